"""Products of rows with int8 weights on torch's kernels, each row rounded by a scale of its own."""

from __future__ import annotations

import torch
from torch import Tensor

# The int32 sums of so many rows take at most 64 MB in Phi-3; they are scaled in parts that fit
# into a core's cache.
_MATMUL_ROWS = 1024
_SCALED_ELEMENTS = 1 << 20
_LARGEST_LEVEL = 127
_LEAST_SCALE = 1e-12


def int8_matmul(rows: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """Return rows @ (weight * scales).T in the type of the rows, for (out, in) int8 weights."""
    out = rows.new_empty((rows.shape[0], weight.shape[0]))
    columns = scales.float()
    step = max(1, _SCALED_ELEMENTS // weight.shape[0])
    for start in range(0, rows.shape[0], _MATMUL_ROWS):
        levels, row_scales = _rounded(rows[start : start + _MATMUL_ROWS])
        sums = torch._int_mm(levels, weight.t())
        for at in range(0, sums.shape[0], step):
            part = sums[at : at + step].float().mul_(row_scales[at : at + step])
            out[start + at : start + at + part.shape[0]] = part.mul_(columns)
    return out


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows as int8 levels, and the scale of each: (rows, 1) float32."""
    scales = rows.abs().amax(1, keepdim=True).float().div_(_LARGEST_LEVEL).clamp_(min=_LEAST_SCALE)
    # A float32 row would be divided in place.
    return rows.float().div(scales).round_().to(torch.int8), scales
