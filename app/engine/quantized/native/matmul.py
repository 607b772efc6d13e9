"""Matmul with int8 and int4 weights by the C files of this folder, and their layouts.

A layout is made once, when weights are packed; every call is checked, because C would read beyond
what it is given.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from app.engine.quantized.cpu_flags import cpu_flags
from app.engine.quantized.int4_layout import GROUP
from app.engine.quantized.native.library import AMX_FLAGS, library

# Outputs of an int4 block and of an int8 block; inputs of a tile and of a line.
WIDTH, LANES = 32, 16
TILE_INPUTS, _INPUTS = 64, 4
# int4: up to here reading the weights takes longest (the layers of a block of Phi-3: 12 rows 7.9 ms
# and 9.3 by way of int8, 16 rows 10.0 and 8.1), and each group of a row keeps its own scale.
FEW_ROWS = 12


def fits(outputs: int, inputs: int) -> bool:
    """Tell whether a layer has whole blocks and tiles."""
    return outputs % WIDTH == 0 and inputs % TILE_INPUTS == 0


def pack_int8(levels: Tensor) -> Tensor:
    """Lay (out, in) int8 levels out anew: blocks of 16 outputs, lines of 4 inputs, 128 added."""
    outputs, inputs = levels.shape
    lines = levels.view(outputs // LANES, LANES, inputs // _INPUTS, _INPUTS).transpose(1, 2)
    # The highest bit is what an addition of 128 changes.
    return (lines ^ -128).contiguous().view(outputs, inputs)


def pack_int4(levels: Tensor) -> Tensor:
    """Return (out, in / 2) uint8 of (out, in) levels 0 to 15: blocks of 32 outputs, lines of 4
    inputs, the first 16 outputs of a block in the low halves."""
    outputs, inputs = levels.shape
    halves = levels.to(torch.uint8).view(-1, 2, LANES, inputs // _INPUTS, _INPUTS)
    both = halves[:, 0] | (halves[:, 1] << 4)
    return both.transpose(1, 2).contiguous().view(outputs, inputs // 2)


def int8_matmul(rows: Tensor, packed: Tensor, scales: Tensor, *, amx: bool) -> Tensor:
    """Return rows @ (levels * scales).T as (rows, out) bfloat16.

    packed: (out, in) int8 of `pack_int8` · scales: (out,) float32
    """
    outputs, inputs = packed.shape
    _check(packed, torch.int8, (outputs, inputs))
    _check(scales, torch.float32, (outputs,))
    return _matmul(rows, packed, None, scales, (outputs, inputs), amx)


def int4_matmul(rows: Tensor, packed: Tensor, scales_and_zeros: Tensor, *, amx: bool) -> Tensor:
    """Return rows @ ((levels - 8) * scales + zeros).T as (rows, out) bfloat16.

    packed: (out, in / 2) uint8 of `pack_int4` · scales_and_zeros: (in / 128, out, 2) bfloat16
    """
    outputs, inputs = packed.shape[0], 2 * packed.shape[1]
    _check(packed, torch.uint8, (outputs, inputs // 2))
    _check(scales_and_zeros, torch.bfloat16, (inputs // GROUP, outputs, 2))
    if inputs % GROUP or outputs % WIDTH:
        raise ValueError("int4 layers have whole blocks of outputs and groups of inputs")
    if len(rows) > FEW_ROWS:
        return _matmul(rows, packed, scales_and_zeros, None, (outputs, inputs), amx)
    rows, out = _given(rows, outputs, inputs)
    sizes = (len(rows), inputs, outputs, torch.get_num_threads())
    _call("int4_gemv", rows, packed, scales_and_zeros, out, *sizes)
    return out


@cache
def amx_allowed() -> bool:
    """Tell whether there is AMX and the kernel lets this process use it."""
    loaded = library()
    return loaded is not None and cpu_flags() >= AMX_FLAGS and loaded.allow_amx() == 0


def _matmul(
    rows: Tensor,
    packed: Tensor,
    scales_and_zeros: Tensor | None,
    scales: Tensor | None,
    shape: tuple[int, int],
    amx: bool,
) -> Tensor:
    outputs, inputs = shape
    if not fits(outputs, inputs):
        raise ValueError(f"a layer of {outputs} x {inputs} has no whole blocks and tiles")
    rows, out = _given(rows, outputs, inputs)
    sizes = (len(rows), inputs, outputs, int(amx and amx_allowed()), torch.get_num_threads())
    _call("gemm", rows, packed, scales_and_zeros, scales, out, *sizes)
    return out


def _given(rows: Tensor, outputs: int, inputs: int) -> tuple[Tensor, Tensor]:
    """Return the rows as C reads them, and room for what comes of them."""
    rows = rows.to(torch.bfloat16).contiguous()
    _check(rows, torch.bfloat16, (len(rows), inputs))
    return rows, rows.new_empty((len(rows), outputs))


def _check(tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape) or not tensor.is_contiguous():
        raise ValueError(f"wanted {dtype} of {shape}, got {tensor.dtype} of {tuple(tensor.shape)}")


def _call(name: str, *given: Any) -> None:
    loaded = library()
    if loaded is None:
        raise RuntimeError("there are no kernels of our own on this machine")
    plain = [one.data_ptr() if isinstance(one, Tensor) else one for one in given]
    if getattr(loaded, name)(*plain):
        raise MemoryError("no memory for the rows of a layer")
