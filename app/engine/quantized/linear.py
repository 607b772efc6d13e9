"""Linear layers with int8 or int4 weights; they stand in for nn.Linear.

Where there are kernels of our own they do all of it, see native/. Of torch's, few rows (decoding)
go through those that read the least memory, and many rows (a prompt) through int8 x int8 matmuls.
The layers take what other types they are given and give it back, and do not know where their
numbers come from: see quantize.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from app.engine.quantized.int4_layout import GROUP, pack_int4, unpack_int4
from app.engine.quantized.int8_matmul import int8_matmul
from app.engine.quantized.kernels import Kernels, find_kernels
from app.engine.quantized.native import matmul as native

# The time of the weight-only kernels grows with each row, that of int8 matmuls hardly with the
# first dozens: 3,072 -> 3,072, 4 rows 0.85 against 0.74 ms, 8 rows 1.65 against 0.76.
FEW_ROWS = 4
# From here on, making bfloat16 blocks of int4 weights costs less than the int4 kernel.
DENSE_ROWS = 128
_DENSE_OUTPUTS = 1024


class _Packed(nn.Module):
    """What stands in for an nn.Linear, without its weights."""

    bias: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool, kernels: Kernels | None, device: str
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.kernels = kernels or find_kernels()
        self.register_buffer("bias", _bfloat16(out_features, device=device) if bias else None)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out), of the same type."""
        out = self._matmul(x.reshape(-1, self.in_features)).to(x.dtype)
        if self.bias is not None:
            out = out + self.bias.to(x.dtype)
        return out.view(*x.shape[:-1], -1)

    def _matmul(self, rows: Tensor) -> Tensor:
        """Map (rows, in) to (rows, out)."""
        raise NotImplementedError


class Int8Linear(_Packed):
    """A linear layer with one scale for each output: weight = packed * scales.

    packed: (out, in) int8, of `pack` · scales: (out,) bfloat16 · bias: (out,) bfloat16
    """

    packed: Tensor
    scales: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        kernels: Kernels | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(in_features, out_features, bias, kernels, device)
        self.native = bool(self.kernels.native) and native.fits(out_features, in_features)
        shape = (out_features, in_features)
        self.register_buffer("packed", torch.empty(shape, dtype=torch.int8, device=device))
        self.register_buffer("scales", _bfloat16(out_features, device=device))

    @property
    def block(self) -> int:
        """How many outputs the layout interleaves."""
        return native.LANES if self.native else 1

    def pack(self, levels: Tensor) -> Tensor:
        """Return (out, in) int8 levels as the kernels here want them."""
        return native.pack_int8(levels) if self.native else levels

    def _matmul(self, rows: Tensor) -> Tensor:
        if self.native:
            amx = self.kernels.native == "amx"
            return native.int8_matmul(rows, self.packed, self.scales.float(), amx=amx)
        few = FEW_ROWS if self.kernels.int_matmul else DENSE_ROWS
        if self.kernels.weight_only and rows.shape[0] <= few:
            # With float32 activations the kernel takes a scalar path, 9 times slower.
            made: Tensor = torch.ops.aten._weight_int8pack_mm(
                rows.to(torch.bfloat16).contiguous(), self.packed, self.scales
            )
            return made
        if self.kernels.int_matmul:
            return int8_matmul(rows, self.packed, self.scales)
        return _in_blocks(rows, self.out_features, self._blocks(self.packed))

    def _blocks(self, packed: Tensor) -> Iterator[Tensor]:
        """Yield the weights as (in, some outputs), in the type that is fast here."""
        dense = getattr(torch, self.kernels.dense)
        for start in range(0, self.out_features, _DENSE_OUTPUTS):
            part = slice(start, start + _DENSE_OUTPUTS)
            scales = self.scales[part, None].float()
            yield (packed[part].float() * scales).to(dense).t()


class Int4Linear(_Packed):
    """A linear layer of 4-bit levels: weight = (level - 8) * scale + zero, for groups of inputs.

    packed: (out, in / 2) uint8, of `pack` · scales_and_zeros: (in / 128, out, 2) bfloat16 ·
    bias: (out,) bfloat16
    """

    packed: Tensor
    scales_and_zeros: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        kernels: Kernels | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(in_features, out_features, bias, kernels, device)
        shape = (out_features, in_features // 2)
        self.register_buffer("packed", torch.empty(shape, dtype=torch.uint8, device=device))
        groups = in_features // GROUP
        self.register_buffer("scales_and_zeros", _bfloat16(groups, out_features, 2, device=device))

    @property
    def block(self) -> int:
        """How many outputs the layout of the levels interleaves."""
        return native.WIDTH if self.kernels.native else self.kernels.int4_block

    def pack(self, levels: Tensor) -> Tensor:
        """Return (out, in / 2) uint8 of (out, in) levels 0 to 15, as the kernels here want them."""
        if self.kernels.native:
            return native.pack_int4(levels)
        return pack_int4(levels, self.kernels.int4_block)

    def _matmul(self, rows: Tensor) -> Tensor:
        if self.kernels.native:
            amx = self.kernels.native == "amx"
            return native.int4_matmul(rows, self.packed, self.scales_and_zeros, amx=amx)
        if self.kernels.weight_only and rows.shape[0] < DENSE_ROWS:
            # As in int8: bfloat16 activations only.
            made: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows.to(torch.bfloat16).contiguous(), self.packed, GROUP, self.scales_and_zeros
            )
            return made
        return _in_blocks(rows, self.out_features, self._blocks())

    def _blocks(self) -> Iterator[Tensor]:
        """Yield the weights as (in, some outputs), in the type that is fast here."""
        dense = getattr(torch, self.kernels.dense)
        for start in range(0, self.out_features, _DENSE_OUTPUTS):
            part = slice(start, start + _DENSE_OUTPUTS)
            levels = unpack_int4(self.packed[part], self.kernels.int4_block)
            # Contiguous: with numbers that lie two apart the next step takes 14 times as long.
            lines = self.scales_and_zeros[:, part].permute(2, 0, 1).contiguous().to(dense)
            scales, zeros = lines.unsqueeze(2)
            grouped = (levels.view(torch.int8) - 8).to(dense).view(-1, GROUP, levels.shape[1])
            yield torch.addcmul(zeros, grouped, scales).view(self.in_features, -1)


def _in_blocks(rows: Tensor, outputs: int, blocks: Iterator[Tensor]) -> Tensor:
    """Return rows @ weights, from blocks of (in, some outputs), made one after the other."""
    out = rows.new_empty((rows.shape[0], outputs))
    start = 0
    for block in blocks:
        end = start + block.shape[1]
        out[:, start:end] = rows.to(block.dtype) @ block
        start = end
    return out


def _bfloat16(*shape: int, device: str) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device=device)
