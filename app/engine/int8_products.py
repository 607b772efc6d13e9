"""Products of rows with int8 weights, each row rounded to int8 by a scale of its own.

Two ways to the same numbers. `plain` reads (out, in) weights and lays them out anew at every call;
`prepacked` has them as `Opaque` memory, laid out once by oneDNN for this processor. Laying out
takes 3 s a gigabyte, so that its bytes can be written down and taken up again.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache

import torch
from torch import Tensor

# An int32 product of so many rows is at most 64 MB wide in Phi-3; it is scaled in pieces that a
# core's cache holds.
_PRODUCT_ROWS = 1024
_SCALED_ELEMENTS = 1 << 20
# With fewer rows, oneDNN takes its reference kernel for matrices with so narrow a side: 1 x 4,096 x
# 256 took 21 ms, and padded to 8 rows 0.1.
_LEAST_ROWS, _NARROW = 8, 256
_LARGEST_LEVEL = 126
_LEAST_SCALE = 1e-12

# A tensor whose memory only oneDNN understands.
Opaque = Tensor


def prepacked(rows: Tensor, weight: Opaque, scales: Tensor, zero_points: Tensor) -> Tensor:
    """Return rows @ (weight * scales).T in the type of the rows: bfloat16 or float32.

    scales: (out,) float32 · zero_points: (out,) int32, all zero, which the kernel insists on.
    """
    levels, row_scales = _rounded(rows)
    missing = _LEAST_ROWS - len(rows) if min(weight.shape) <= _NARROW else 0
    if missing > 0:
        levels = torch.cat((levels, levels.new_zeros(missing, levels.shape[1])))
    out: Tensor = torch.ops.onednn.qlinear_pointwise(
        levels, 1.0, 0, weight, scales, zero_points, None, 1.0, 0, rows.dtype, "none", [], ""
    )
    return out[: len(rows)].mul_(row_scales.to(out.dtype))


def plain(rows: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """Return rows @ (weight * scales).T in the type of the rows, for (out, in) int8 weights."""
    out = rows.new_empty((rows.shape[0], weight.shape[0]))
    columns = scales.float()
    step = max(1, _SCALED_ELEMENTS // weight.shape[0])
    for start in range(0, rows.shape[0], _PRODUCT_ROWS):
        levels, row_scales = _rounded(rows[start : start + _PRODUCT_ROWS])
        product = torch._int_mm(levels, weight.t())
        for at in range(0, product.shape[0], step):
            part = product[at : at + step].float().mul_(row_scales[at : at + step])
            out[start + at : start + at + part.shape[0]] = part.mul_(columns)
    return out


def packed_bytes(weight: Tensor) -> Tensor:
    """Return the (bytes,) uint8 of (out, in) int8 weights as oneDNN lays them out."""
    own = _laid_out(weight)
    made = torch.empty(_size(own), dtype=torch.uint8)
    ctypes.memmove(made.data_ptr(), torch.ops.mkldnn.data_ptr(own), made.nbytes)
    return made


def opaque_of(packed: Tensor, outputs: int, inputs: int) -> Opaque:
    """Return weights from what `packed_bytes` made of them on a machine of the same `layout`."""
    # A copy of a tensor of the same form is the one way to memory of that form.
    made = _example(outputs, inputs).clone()
    if packed.nbytes != _size(made) or not packed.is_contiguous():
        raise ValueError("the bytes are of another layout")
    ctypes.memmove(torch.ops.mkldnn.data_ptr(made), packed.data_ptr(), packed.nbytes)
    return made


def packed_size(outputs: int, inputs: int) -> int:
    """Return how many bytes weights take when they are laid out."""
    return _size(_example(outputs, inputs))


@cache
def layout() -> str:
    """Return a mark of how oneDNN lays weights out here: it differs by processor and version."""
    form = torch.ops.mkldnn._get_mkldnn_serialized_md(_example(128, 128)).numpy().tobytes()
    return hashlib.sha256(form + torch.__version__.encode()).hexdigest()[:16]


def forget_examples() -> None:
    """Let go of the memory, as large as a layer, that `packed_size` and `opaque_of` keep."""
    _example.cache_clear()


@cache
def _example(outputs: int, inputs: int) -> Opaque:
    return _laid_out(torch.zeros((outputs, inputs), dtype=torch.int8))


def _laid_out(weight: Tensor) -> Opaque:
    made: Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return made


def _size(weight: Opaque) -> int:
    return int(torch.ops.mkldnn._nbytes(weight))


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows as int8 levels, and the scale of each: (rows, 1) float32.

    Scales are numbers of bfloat16, since outputs of that type are multiplied by one of another type
    20 times as slowly; one that was rounded down must not take a level beyond 127.
    """
    largest = rows.abs().amax(1, keepdim=True).float()
    scales = largest.div_(_LARGEST_LEVEL).clamp_(min=_LEAST_SCALE).to(torch.bfloat16).float()
    # A float32 row would be divided in place.
    return rows.float().div(scales).round_().to(torch.int8), scales
