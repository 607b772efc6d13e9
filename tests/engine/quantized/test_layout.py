"""Packed weights are exactly the numbers that were given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from app.engine.quantized.layout import pack_int4, pack_int8, packed_shape, unpack_int4, unpack_int8

OUT, IN = 96, 64


def drawn(*shape: int, least: int, most: int) -> Tensor:
    return torch.randint(least, most + 1, shape, generator=torch.Generator().manual_seed(1))


def halves(seed: int) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(OUT, IN // 32, generator=made).to(torch.float16)


def of_blocks(codes: Tensor, scales: Tensor) -> Tensor:
    return (codes.view(OUT, -1, 32).float() * scales.float()[..., None]).view(OUT, IN)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
@pytest.mark.parametrize("numbers", [torch.float16, torch.float32])
def test_blocks_of_four_bits_go_in_bit_for_bit(dtype: torch.dtype, numbers: torch.dtype) -> None:
    """C31, C32: the codes, scales and minimums of a file are not rounded again."""
    codes, scales, minimums = drawn(OUT, IN, least=0, most=15), halves(2), halves(3)
    packed = pack_int4(codes.to(dtype), scales.to(numbers), minimums.to(numbers))
    assert tuple(packed.shape) == packed_shape(OUT, IN, 4)
    wanted = of_blocks(codes, scales) + minimums.float().repeat_interleave(32, 1)
    assert torch.equal(unpack_int4(packed), wanted)


def test_blocks_without_a_minimum_go_in_bit_for_bit() -> None:
    """C31: of Q4_0, whose weight is d * (q - 8), the minimum is -8 * d."""
    codes, scales = drawn(OUT, IN, least=0, most=15), halves(2)
    packed = pack_int4(codes, scales, -8 * scales)
    assert torch.equal(unpack_int4(packed), of_blocks(codes - 8, scales))


def test_blocks_of_eight_bits_go_in_bit_for_bit() -> None:
    """C31: all 256 codes, those of Q8_0."""
    codes, scales = drawn(OUT, IN, least=-128, most=127).to(torch.int8), halves(2)
    packed = pack_int8(codes, scales)
    assert tuple(packed.shape) == packed_shape(OUT, IN, 8)
    assert torch.equal(unpack_int8(packed), of_blocks(codes, scales))


@pytest.mark.parametrize("scale", [1 / 3, 1e6, 1e-9])
def test_what_the_layout_cannot_hold_exactly_is_refused(scale: float) -> None:
    """C31: it would be another weight without a word."""
    scales, codes = torch.full((OUT, IN // 32), scale), torch.zeros(OUT, IN, dtype=torch.int8)
    with pytest.raises(ValueError, match="float16"):
        pack_int8(codes, scales)
    with pytest.raises(ValueError, match="float16"):
        pack_int4(codes, torch.ones_like(scales), scales)


def test_sizes_that_do_not_fit_are_refused() -> None:
    """C32: a square has 32 outputs and 32 inputs."""
    for outputs, inputs, blocks in ((48, 64, 2), (64, 48, 1), (64, 64, 1)):
        with pytest.raises(ValueError, match=r"squares|numbers"):
            pack_int8(torch.zeros(outputs, inputs, dtype=torch.int8), torch.ones(outputs, blocks))
