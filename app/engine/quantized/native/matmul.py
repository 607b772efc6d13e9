"""Packs weights, and multiplies with packed ones, by the C files of this folder.

Every call is checked, because C would read beyond what it is given.
"""

from __future__ import annotations

import torch
from torch import Tensor

from app.engine.quantized.layout import BLOCK, SQUARE_BYTES, fits, packed_shape
from app.engine.quantized.native.library import Level, library

# By AMX from here on: making bfloat16 of the weights first pays only for so many rows.
AMX_ROWS = 17


def pack(values: Tensor, *, bits: int, level: Level) -> Tensor:
    """Return float32 (out, in) rows, multiples of 32, as layout.py says; by the calling thread.

    Raises:
        ValueError: sizes or types do not fit.
    """
    outputs, inputs = values.shape
    if values.dtype != torch.float32 or not fits(outputs, inputs):
        raise ValueError(f"wanted float32 of whole squares, got {values.dtype} of {values.shape}")
    values, packed = (
        values.contiguous(),
        torch.empty(packed_shape(outputs, inputs, bits), dtype=torch.uint8),
    )
    loaded = library(level)
    if loaded is None:
        raise RuntimeError(f"there are no kernels of the level {level} on this machine")
    loaded.pack(values.data_ptr(), packed.data_ptr(), outputs, inputs, bits)
    return packed


def matmul(rows: Tensor, packed: Tensor, *, bits: int, level: Level) -> Tensor:
    """Return rows @ weight.T as (rows, out) bfloat16, of (rows, in) of any type.

    packed: the weight, as layout.py says · bits: 4 or 8 · level: whose instructions are used

    Raises:
        ValueError: sizes or types do not fit.
    """
    if packed.dtype != torch.uint8 or packed.dim() != 3 or not packed.is_contiguous():
        raise ValueError(f"wanted packed weights, got {packed.dtype} of {tuple(packed.shape)}")
    outputs, inputs = packed.shape[0] * BLOCK, packed.shape[1] * BLOCK
    rows = rows.to(torch.bfloat16).contiguous()
    if packed.shape[2] != SQUARE_BYTES[bits] or rows.dim() != 2 or rows.shape[1] != inputs:
        raise ValueError(
            f"wanted (rows, {inputs}) and squares of {SQUARE_BYTES[bits]} bytes, got "
            f"{tuple(rows.shape)} and {packed.shape[2]}"
        )
    loaded = library(level)
    if loaded is None:
        raise RuntimeError(f"there are no kernels of the level {level} on this machine")
    count = rows.shape[0]
    out = rows.new_empty((count, outputs))
    call = loaded.amx_matmul if level == "amx" and count >= AMX_ROWS else loaded.matmul
    given = (rows.data_ptr(), packed.data_ptr(), out.data_ptr(), count, inputs, outputs)
    if count and call(*given, bits, torch.get_num_threads()):
        raise MemoryError("no memory for the rows of a layer")
    return out
