"""How torch's int4 kernel on the CPU wants its levels, and back."""

from __future__ import annotations

import torch
from torch import Tensor

# Inputs that share a scale and a zero.
GROUP = 128


def pack_int4(levels: Tensor, block: int) -> Tensor:
    """Return (out, in / 2) uint8 of (out, in) levels 0 to 15, as the int4 kernel wants them.

    Of each `block` outputs, a byte holds one input of output i (low half) and i + block / 2.
    """
    outputs, inputs = levels.shape
    halves = levels.to(torch.uint8).view(outputs // block, 2, block // 2, inputs)
    packed = halves[:, 0] | (halves[:, 1] << 4)
    return packed.transpose(1, 2).contiguous().view(outputs, inputs // 2)


def unpack_int4(packed: Tensor, block: int) -> Tensor:
    """Return (in, out) uint8 levels: the inverse of `pack_int4`, transposed."""
    outputs, half = packed.shape
    halves = packed.view(outputs // block, 2 * half, block // 2)
    levels = torch.stack((halves & 15, halves >> 4), dim=2)
    return levels.permute(1, 0, 2, 3).reshape(2 * half, outputs)
