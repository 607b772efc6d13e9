"""Linear layers with int8 or int4 weights on torch's own CPU kernels; they stand in for nn.Linear.

Few rows (decoding) go through the weight-only kernels, which read the least memory; many rows (a
prompt) through int8 x int8 products. Both take what other types they are given and give it back.
They do not know where their numbers come from: see quantize.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

GROUP = 128
# The time of the weight-only kernels grows with each row, that of int8 products hardly with the
# first dozens: 3,072 -> 3,072, 4 rows 0.85 against 0.74 ms, 8 rows 1.65 against 0.76.
FEW_ROWS = 4
# From here on, making bfloat16 blocks of int4 weights costs less than the int4 kernel.
DENSE_ROWS = 128
# An int32 product of so many rows is at most 64 MB wide in Phi-3; it is scaled in pieces that a
# core's cache holds.
_PRODUCT_ROWS = 1024
_SCALED_ELEMENTS = 1 << 20
_DENSE_OUTPUTS = 1024
_LEAST_SCALE = 1e-12


@dataclass(frozen=True, slots=True)
class Kernels:
    """What this machine does fast; everything else has a correct, slower way.

    `weight_only`: the int8 and int4 kernels are vectorised. `int4_block`: how many outputs the int4
    kernel's layout interleaves. `int_matmul`: int8 products have their instruction (VNNI, AMX),
    without which they may saturate. `dense`: the type in which unpacked blocks are multiplied.
    """

    weight_only: bool
    int4_block: int
    int_matmul: bool
    dense: str


@cache
def find_kernels() -> Kernels:
    """Return what this machine does fast."""
    capability = torch.backends.cpu.get_cpu_capability()
    block = {"AVX512": 64, "AVX2": 32}.get(capability)
    flags = _cpu_flags()
    onednn: Any = torch.backends.mkldnn
    return Kernels(
        weight_only=block is not None and _is_laid_out_as_known(block),
        int4_block=block or 64,
        int_matmul=bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"}) and onednn.is_available(),
        dense="bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else "float32",
    )


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


class Int8Linear(nn.Module):
    """A linear layer with one scale for each output: weight = packed * scales.

    packed: (out, in) int8 · scales: (out,) bfloat16 · bias: (out,) bfloat16
    """

    packed: Tensor
    scales: Tensor
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
        shape = (out_features, in_features)
        self.register_buffer("packed", torch.empty(shape, dtype=torch.int8, device=device))
        self.register_buffer("scales", _bfloat16(out_features, device=device))
        self.register_buffer("bias", _bfloat16(out_features, device=device) if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out), of the same type."""
        rows = x.reshape(-1, self.in_features)
        few = FEW_ROWS if self.kernels.int_matmul else DENSE_ROWS
        if self.kernels.weight_only and rows.shape[0] <= few:
            # With float32 activations the kernel takes a scalar path, 9 times slower.
            out = torch.ops.aten._weight_int8pack_mm(
                rows.to(torch.bfloat16).contiguous(), self.packed, self.scales
            )
        elif self.kernels.int_matmul:
            out = _int_matmul(rows, self.packed, self.scales)
        else:
            out = _in_blocks(rows, self.out_features, self._blocks())
        return _finished(out, self.bias, x)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def _blocks(self) -> Iterator[Tensor]:
        """Yield the weights as (in, some outputs), in the type that is fast here."""
        dense = getattr(torch, self.kernels.dense)
        for start in range(0, self.out_features, _DENSE_OUTPUTS):
            part = slice(start, start + _DENSE_OUTPUTS)
            scales = self.scales[part, None].float()
            yield (self.packed[part].float() * scales).to(dense).t()


class Int4Linear(nn.Module):
    """A linear layer of 4-bit levels: weight = (level - 8) * scale + zero, for groups of inputs.

    packed: (out, in / 2) uint8, of `pack_int4` · scales_and_zeros: (in / 128, out, 2) bfloat16 ·
    bias: (out,) bfloat16 · twin: the same weights in int8, which multiply many rows faster.
    """

    packed: Tensor
    scales_and_zeros: Tensor
    bias: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        twin: bool = False,
        kernels: Kernels | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.kernels = kernels or find_kernels()
        shape = (out_features, in_features // 2)
        self.register_buffer("packed", torch.empty(shape, dtype=torch.uint8, device=device))
        groups = in_features // GROUP
        self.register_buffer("scales_and_zeros", _bfloat16(groups, out_features, 2, device=device))
        self.register_buffer("bias", _bfloat16(out_features, device=device) if bias else None)
        self.twin = (
            Int8Linear(in_features, out_features, kernels=self.kernels, device=device)
            if twin
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, in) to (…, out), of the same type."""
        rows = x.reshape(-1, self.in_features)
        count = rows.shape[0]
        if self.twin is not None and count > FEW_ROWS:
            out = self.twin(rows)
        elif self.kernels.weight_only and count < DENSE_ROWS:
            # As in int8: bfloat16 activations only.
            out = torch.ops.aten._weight_int4pack_mm_for_cpu(
                rows.to(torch.bfloat16).contiguous(), self.packed, GROUP, self.scales_and_zeros
            )
        else:
            out = _in_blocks(rows, self.out_features, self._blocks())
        return _finished(out, self.bias, x)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

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


def _int_matmul(rows: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """Return rows @ (weight * scales).T with each row rounded to int8 by a scale of its own."""
    out = rows.new_empty((rows.shape[0], weight.shape[0]))
    columns = scales.float()
    step = max(1, _SCALED_ELEMENTS // weight.shape[0])
    for start in range(0, rows.shape[0], _PRODUCT_ROWS):
        block = rows[start : start + _PRODUCT_ROWS].float()
        row_scales = block.abs().amax(1, keepdim=True).div_(127).clamp_(min=_LEAST_SCALE)
        product = torch._int_mm((block / row_scales).round_().to(torch.int8), weight.t())
        for at in range(0, product.shape[0], step):
            part = product[at : at + step].float().mul_(row_scales[at : at + step])
            out[start + at : start + at + part.shape[0]] = part.mul_(columns)
    return out


def _in_blocks(rows: Tensor, outputs: int, blocks: Iterator[Tensor]) -> Tensor:
    """Return rows @ weights, from blocks of (in, some outputs), made one after the other."""
    out = rows.new_empty((rows.shape[0], outputs))
    start = 0
    for block in blocks:
        end = start + block.shape[1]
        out[:, start:end] = rows.to(block.dtype) @ block
        start = end
    return out


def _finished(out: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    out = out.to(x.dtype)
    if bias is not None:
        out = out + bias.to(x.dtype)
    return out.view(*x.shape[:-1], -1)


def _bfloat16(*shape: int, device: str) -> Tensor:
    return torch.empty(shape, dtype=torch.bfloat16, device=device)


def _is_laid_out_as_known(block: int) -> bool:
    """Tell whether this build of torch packs int4 as `pack_int4` does, on this machine."""
    levels = (torch.arange(block * GROUP, dtype=torch.int32) * 7 % 16).view(block, GROUP)
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 2)
    except (RuntimeError, AttributeError):
        return False
    return torch.equal(packed, pack_int4(levels, block))


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith("flags"):
            return frozenset(line.partition(":")[2].split())
    return frozenset()
