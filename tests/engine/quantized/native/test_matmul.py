"""Matmuls of our own kernels against the same codes multiplied in float32."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from app.engine.quantized.layout import pack_int4, pack_int8, unpack_int4, unpack_int8
from app.engine.quantized.native.library import Level, library
from app.engine.quantized.native.matmul import AMX_ROWS, matmul, pack
from app.engine.quantized.quantize import quantize_int4, quantize_int8
from tests.packed_models import NATIVE, error, kernels_of

IN, OUT = 384, 96
# What rounding blocks of normally distributed rows to int8, and sums to bfloat16, leaves.
ROWS_ERROR = 0.013
COUNTS = [*range(1, 20), 31, 32, 33, 63, 64, 65, 300]
# 1 MB of rounded rows is one chunk.
BEYOND_A_CHUNK = (1 << 20) // IN + 5

pytestmark = pytest.mark.parametrize("level", NATIVE)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Weights:
    """Packed weights, and what they stand for."""

    def __init__(self, bits: int, outputs: int = OUT, inputs: int = IN) -> None:
        self.bits = bits
        drawn = torch.Generator().manual_seed(1)
        least, most = (0, 15) if bits == 4 else (-128, 127)
        codes = torch.randint(least, most + 1, (outputs, inputs), generator=drawn)
        scales = (normal(outputs, inputs // 32, seed=2).abs() * 0.01 + 0.01).to(torch.float16)
        if bits == 4:
            minimums = (normal(outputs, inputs // 32, seed=3) * 0.1).to(torch.float16)
            self.packed = pack_int4(codes, scales, minimums)
            self.weight = unpack_int4(self.packed)
        else:
            self.packed = pack_int8(codes.to(torch.int8), scales)
            self.weight = unpack_int8(self.packed)

    def by(self, level: Level, rows: Tensor) -> Tensor:
        kernels_of(level)
        return matmul(rows, self.packed, bits=self.bits, level=level)


@pytest.mark.parametrize("count", [*COUNTS, BEYOND_A_CHUNK])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_number_of_rows_gives_what_the_codes_give(
    level: Level, bits: int, count: int
) -> None:
    """C12, C32: passes, tiles and chunks end anywhere."""
    weights, rows = Weights(bits), normal(count, IN, seed=4).to(torch.bfloat16)
    made = weights.by(level, rows)
    assert (made.shape, made.dtype) == ((count, OUT), torch.bfloat16)
    assert error(made, rows.float() @ weights.weight.t()) < ROWS_ERROR
    # Nobody's row is another's.
    for row in {0, count // 2, count - 1}:
        assert error(made[row], rows[row].float() @ weights.weight.t()) < 2 * ROWS_ERROR


@pytest.mark.parametrize("inputs", [32, 64, 96, 576, 1536, 8192])
@pytest.mark.parametrize("bits", [4, 8])
def test_every_width_of_whole_blocks_is_multiplied(level: Level, bits: int, inputs: int) -> None:
    """C32: those of Phi-3 and of SmolLM2, and the least."""
    weights = Weights(bits, 32, inputs)
    for count in (1, 7, 40):
        rows = normal(count, inputs, seed=4).to(torch.bfloat16)
        # A sum of few products may be near nothing.
        assert error(weights.by(level, rows), rows.float() @ weights.weight.t()) < 2 * ROWS_ERROR


@pytest.mark.parametrize("count", [1, 9, 40])
@pytest.mark.parametrize(("bits", "code"), [(4, 15), (8, 127), (8, -128)])
def test_the_largest_numbers_do_not_overflow(
    level: Level, bits: int, code: int, count: int
) -> None:
    """C12: 8,192 inputs of a Phi-3, all at their bounds: nothing saturates on the way."""
    codes = torch.full((32, 8192), code, dtype=torch.int8)
    ones = torch.ones(32, 8192 // 32)
    packed = pack_int4(codes, ones, 0 * ones) if bits == 4 else pack_int8(codes, ones)
    rows = torch.full((count, 8192), 3.0)
    rows[1::2] *= -1
    kernels_of(level)
    made = matmul(rows, packed, bits=bits, level=level)
    assert torch.allclose(made.float(), (rows.sum(1) * code)[:, None].expand(count, 32), rtol=0.004)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounded_rows_are_multiplied_exactly(level: Level, bits: int) -> None:
    """C32: rows that int8 holds come out as float32 has them, up to the bfloat16 of the result."""
    weights = Weights(bits)
    drawn = torch.Generator().manual_seed(5)
    rows = torch.randint(-127, 128, (AMX_ROWS - 1, IN), generator=drawn).float()
    rows[:, ::32] = 127.0
    wanted = rows @ weights.weight.t()
    made = weights.by(level, rows)
    assert (made.float() - wanted).abs().max() <= wanted.abs().max() * 2**-8


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_nothing_and_rows_that_are_not_there(level: Level, bits: int) -> None:
    """C12: no division by nothing, no row of no numbers."""
    weights = Weights(bits)
    for count in (1, 20):
        assert not weights.by(level, torch.zeros(count, IN)).any()
    assert weights.by(level, torch.zeros(0, IN)).shape == (0, OUT)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9, 31, 32, 33])
@pytest.mark.parametrize("bits", [4, 8])
def test_nothing_is_written_beside_the_rows(level: Level, bits: int, count: int) -> None:
    """C12: C does not see where a tensor ends."""
    weights, rows = Weights(bits), normal(count, IN).to(torch.bfloat16)
    kernels_of(level)
    loaded = library(level)
    assert loaded is not None
    calls: list[Any] = [loaded.matmul, *([loaded.amx_matmul] if level == "amx" else [])]
    for call in calls:
        room = torch.full((count + 2, OUT), 7.0, dtype=torch.bfloat16)
        given = (rows.data_ptr(), weights.packed.data_ptr(), room[1:-1].data_ptr())
        assert call(*given, count, IN, OUT, bits, 2) == 0
        assert (room[[0, -1]] == 7).all()
        assert error(room[1:-1], rows.float() @ weights.weight.t()) < ROWS_ERROR


def test_what_does_not_fit_is_refused(level: Level) -> None:
    """C12: a wrong size would be read beyond its end."""
    kernels_of(level)
    eight, four = Weights(8).packed, Weights(4).packed
    by_eight, by_four = partial(matmul, bits=8, level=level), partial(matmul, bits=4, level=level)
    for call in (
        lambda: by_eight(torch.ones(2, IN - 1), eight),
        lambda: by_eight(torch.ones(IN), eight),
        lambda: by_eight(torch.ones(2, IN), four),
        lambda: by_eight(torch.ones(2, IN), eight.view(torch.int8)),
        lambda: by_eight(torch.ones(2, IN), eight[:, ::2]),
        lambda: by_eight(torch.ones(2, IN), eight[0]),
        lambda: by_four(torch.ones(2, IN), eight),
        lambda: by_four(torch.ones(2, 2 * IN), four),
    ):
        with pytest.raises(ValueError, match="wanted"):
            call()


def test_torchs_own_matmuls_between_change_nothing(level: Level) -> None:
    """C12: both use the tiles of the same core, each in its own form."""
    rows = normal(64, IN).to(torch.bfloat16)
    weights = Weights(8), Weights(4)
    square = normal(512, 512).to(torch.bfloat16)
    first = [one.by(level, rows) for one in weights]
    product = square @ square
    for _ in range(5):
        assert torch.equal(square @ square, product)
        for one, made in zip(weights, first, strict=True):
            assert torch.equal(one.by(level, rows), made)


def test_several_threads_do_not_see_each_other(level: Level) -> None:
    """C12: two models, or a model and its next one, run at the same time."""
    weights = Weights(8), Weights(4)
    rows = [normal(count, IN, seed=count).to(torch.bfloat16) for count in (1, 3, 20, 70)]
    alone = [[one.by(level, some) for some in rows] for one in weights]
    wrong: list[int] = []

    def work(which: int) -> None:
        for _ in range(20):
            for some, made in zip(rows, alone[which % 2], strict=True):
                if not torch.equal(weights[which % 2].by(level, some), made):
                    wrong.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


@pytest.mark.parametrize("bits", [4, 8])
def test_packing_in_c_leaves_no_more_error_than_packing_in_torch(
    level: Level, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C32: a machine without a compiler holds as good a model, only later."""
    kernels_of(level)
    weight = normal(64, IN) / normal(64, IN, seed=6).abs().clamp(min=0.3)
    made, unpack = pack(weight, bits=bits, level=level), unpack_int4 if bits == 4 else unpack_int8
    monkeypatch.setattr("app.engine.quantized.quantize.best_level", lambda: None)
    by_torch = quantize_int4(weight) if bits == 4 else quantize_int8(weight)
    assert error(unpack(made), weight) <= 1.0001 * error(unpack(by_torch), weight)
    assert error(unpack(made), unpack(by_torch)) < (0.1 if bits == 4 else 1e-3)


@pytest.mark.parametrize("count", [1, 7, AMX_ROWS - 1])
def test_all_levels_count_alike(level: Level, count: int) -> None:
    """C12: the same integers, so that a text does not depend on the instruction."""
    rows = normal(count, IN).to(torch.bfloat16)
    for bits in (4, 8):
        first = Weights(bits).by(NATIVE[-1], rows)
        assert error(Weights(bits).by(level, rows), first.float()) < 1e-4
