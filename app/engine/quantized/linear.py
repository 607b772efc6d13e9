"""Linear layers with int8 or int4 weights in blocks of 32; they stand in for nn.Linear.

Where there are kernels of our own they round the inputs by blocks of 32 as well and multiply
integers, see native/. Elsewhere some outputs' weights at a time are made into floats, which is
correct and slow. The layers take what other types they are given and give it back, and do not know
where their numbers come from: see quantize.py and layout.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from app.engine.quantized.kernels import Kernels, find_kernels
from app.engine.quantized.layout import BLOCK, packed_shape, unpack_int4, unpack_int8
from app.engine.quantized.native.matmul import matmul

_DENSE_OUTPUTS = 512


class _Packed(nn.Module):
    """What stands in for an nn.Linear, with its weight packed as layout.py says.

    packed: (out / 32, in / 32, bytes of a square) uint8 · bias: (out,) bfloat16
    """

    bits: int
    packed: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        kernels: Kernels | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.kernels = kernels or find_kernels()
        shape = packed_shape(out_features, in_features, self.bits)
        self.register_buffer("packed", torch.empty(shape, dtype=torch.uint8, device=device))
        held = torch.empty(out_features, dtype=torch.bfloat16, device=device) if bias else None
        self.register_buffer("bias", held)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out), of the same type."""
        rows = x.reshape(-1, self.in_features)
        if self.kernels.native:
            out = matmul(rows, self.packed, bits=self.bits, level=self.kernels.native).to(x.dtype)
        else:
            out = self._dense_matmul(rows)
        if self.bias is not None:
            out = out + self.bias.to(x.dtype)
        return out.view(*x.shape[:-1], -1)

    def weight(self, first: int = 0, last: int | None = None) -> Tensor:
        """Return the weight of some outputs, multiples of 32, as float32: (outputs, in)."""
        part = self.packed[first // BLOCK : None if last is None else last // BLOCK]
        return unpack_int4(part) if self.bits == 4 else unpack_int8(part)

    def _dense_matmul(self, rows: Tensor) -> Tensor:
        """Map (rows, in) to (rows, out) through floats, some outputs at a time."""
        dense = getattr(torch, self.kernels.dense)
        out = rows.new_empty((rows.shape[0], self.out_features))
        for first in range(0, self.out_features, _DENSE_OUTPUTS):
            last = min(first + _DENSE_OUTPUTS, self.out_features)
            out[:, first:last] = rows.to(dense) @ self.weight(first, last).to(dense).t()
        return out


class Int8Linear(_Packed):
    """A linear layer of 8-bit codes: weight = scale * code."""

    bits = 8


class Int4Linear(_Packed):
    """A linear layer of 4-bit codes: weight = scale * code + minimum."""

    bits = 4
