"""Matmuls of our own kernels against the same levels multiplied in float32."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
from torch import Tensor

from app.engine.quantized.int4_layout import GROUP
from app.engine.quantized.native import matmul
from app.engine.quantized.native.library import library
from tests.packed_models import NATIVE, error, kernels_of

IN, OUT = 384, 96
# What rounding normally distributed rows to int8 leaves: a scale for each row, or each group.
ROWS_ERROR = 0.013
COUNTS = [*range(1, 19), 31, 32, 33, 63, 64, 65, 300]
# 1 MB of rounded rows is one chunk.
BEYOND_A_CHUNK = (1 << 20) // IN + 5

pytestmark = pytest.mark.parametrize("layout", NATIVE)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def levels_of(least: int, most: int, outputs: int = OUT, inputs: int = IN) -> Tensor:
    made = torch.Generator().manual_seed(1)
    return torch.randint(least, most + 1, (outputs, inputs), generator=made, dtype=torch.int8)


class Eight:
    """int8 weights, and what they stand for."""

    def __init__(self, layout: str, outputs: int = OUT, inputs: int = IN) -> None:
        self.levels = levels_of(-127, 127, outputs, inputs)
        self.scales = normal(outputs, seed=2).abs() * 0.01 + 0.01
        self.weight = self.levels * self.scales[:, None]
        self.amx = kernels_of(layout).native == "amx"

    def __call__(self, rows: Tensor) -> Tensor:
        packed = matmul.pack_int8(self.levels)
        return matmul.int8_matmul(rows, packed, self.scales, amx=self.amx)


class Four:
    """int4 weights, and what they stand for."""

    def __init__(self, layout: str) -> None:
        self.levels = levels_of(0, 15)
        lines = torch.stack((normal(IN // GROUP, OUT).abs(), normal(IN // GROUP, OUT, seed=3)), 2)
        self.lines = (lines * 0.01 + 0.001).to(torch.bfloat16)
        scales, zeros = self.lines.float().permute(2, 1, 0)[..., None]
        grouped = (self.levels.float() - 8).view(OUT, -1, GROUP)
        self.weight = (grouped * scales + zeros).view(OUT, IN)
        self.amx = kernels_of(layout).native == "amx"

    def __call__(self, rows: Tensor) -> Tensor:
        packed = matmul.pack_int4(self.levels)
        return matmul.int4_matmul(rows, packed, self.lines, amx=self.amx)


@pytest.mark.parametrize("count", [*COUNTS, BEYOND_A_CHUNK])
@pytest.mark.parametrize("kind", [Eight, Four])
def test_every_number_of_rows_gives_what_the_levels_give(
    layout: str, kind: type[Eight | Four], count: int
) -> None:
    """C12: passes, tiles and chunks end anywhere."""
    weights, rows = kind(layout), normal(count, IN, seed=4).to(torch.bfloat16)
    made = weights(rows)
    assert (made.shape, made.dtype) == ((count, OUT), torch.bfloat16)
    assert error(made, rows.float() @ weights.weight.t()) < ROWS_ERROR
    # Nobody's row is another's.
    for row in {0, count // 2, count - 1}:
        assert error(made[row], rows[row].float() @ weights.weight.t()) < 2 * ROWS_ERROR


@pytest.mark.parametrize("count", [1, 9, 40])
def test_the_largest_numbers_do_not_overflow(layout: str, count: int) -> None:
    """C12: 8,192 inputs of a Phi-3, all at their bounds."""
    weights = Eight(layout, 32, 8192)
    weights.levels[:] = 127
    rows = torch.full((count, 8192), 3.0)
    rows[:, ::2] *= torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)[:, None]
    weights.scales = torch.ones(32)
    expected = (rows.sum(1) * 127)[:, None].expand(count, 32)
    assert torch.allclose(weights(rows).float(), expected, rtol=0.01)


def test_rows_of_nothing_and_rows_that_are_not_there(layout: str) -> None:
    """C12: no division by nothing, no row of no numbers."""
    for weights in (Eight(layout), Four(layout)):
        for count in (1, 20):
            assert not weights(torch.zeros(count, IN)).any()
        assert weights(torch.zeros(0, IN)).shape == (0, OUT)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8, 9, 31, 32, 33])
def test_nothing_is_written_beside_the_rows(layout: str, count: int) -> None:
    """C12: C does not see where a tensor ends."""
    loaded = library()
    assert loaded is not None
    for weights in (Eight(layout), Four(layout)):
        rows = normal(count, IN).to(torch.bfloat16)
        room = torch.full((count + 2, OUT), 7.0, dtype=torch.bfloat16)
        out = room[1:-1].data_ptr()
        if isinstance(weights, Eight):
            packed, scales = matmul.pack_int8(weights.levels), weights.scales
            given = (rows.data_ptr(), packed.data_ptr(), None, scales.data_ptr(), out)
        else:
            packed, scales = matmul.pack_int4(weights.levels), weights.lines
            given = (rows.data_ptr(), packed.data_ptr(), scales.data_ptr(), None, out)
            if count <= matmul.FEW_ROWS:
                few = partial(loaded.int4_gemv, rows.data_ptr(), packed.data_ptr())
                assert few(scales.data_ptr(), out, count, IN, OUT, 2) == 0
        assert loaded.gemm(*given, count, IN, OUT, int(weights.amx), 2) == 0
        assert (room[[0, -1]] == 7).all()
        assert error(room[1:-1], rows.float() @ weights.weight.t()) < ROWS_ERROR


def test_what_does_not_fit_is_refused(layout: str) -> None:
    """C12: a wrong size would be read beyond its end."""
    eight, four = matmul.pack_int8(levels_of(-9, 9)), matmul.pack_int4(levels_of(0, 15))
    lines, scales = Four(layout).lines, torch.ones(OUT)
    by_eight = partial(matmul.int8_matmul, amx=layout == "amx")
    by_four = partial(matmul.int4_matmul, amx=layout == "amx")
    for call in (
        lambda: by_eight(torch.ones(2, IN - 1), eight, scales),
        lambda: by_eight(torch.ones(2, IN), eight, scales[1:]),
        lambda: by_eight(torch.ones(2, IN), eight, scales.to(torch.bfloat16)),
        lambda: by_eight(torch.ones(2, IN), eight[:, ::2], scales),
        lambda: by_eight(torch.ones(2, 48), torch.ones(32, 48, dtype=torch.int8), torch.ones(32)),
        lambda: by_eight(torch.ones(2, IN), eight[:48], scales[:48]),
        lambda: by_four(torch.ones(2, 2 * IN), four, lines),
        lambda: by_four(torch.ones(2, IN), four, lines[:-1]),
        lambda: by_four(torch.ones(2, IN), four.view(torch.int8), lines),
        lambda: by_four(torch.ones(2, 64), torch.ones(32, 32, dtype=torch.uint8), lines[:0]),
    ):
        with pytest.raises(ValueError, match=r"wanted|whole blocks"):
            call()


def test_torchs_own_matmuls_between_change_nothing(layout: str) -> None:
    """C12: both use the tiles of the same core, each in its own form."""
    rows = normal(64, IN).to(torch.bfloat16)
    weights = Eight(layout), Four(layout)
    square = normal(512, 512).to(torch.bfloat16)
    first = [one(rows) for one in weights]
    product = square @ square
    for _ in range(5):
        assert torch.equal(square @ square, product)
        assert all(torch.equal(one(rows), made) for one, made in zip(weights, first, strict=True))


def test_several_threads_do_not_see_each_other(layout: str) -> None:
    """C12: two models, or a model and its next one, run at the same time."""
    weights = Eight(layout), Four(layout)
    rows = [normal(count, IN, seed=count).to(torch.bfloat16) for count in (1, 3, 20, 70)]
    alone = [[one(some) for some in rows] for one in weights]
    wrong: list[int] = []

    def work(which: int) -> None:
        for _ in range(20):
            for some, made in zip(rows, alone[which % 2], strict=True):
                if not torch.equal(weights[which % 2](some), made):
                    wrong.append(which)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong


def test_amx_and_vnni_count_alike(layout: str) -> None:
    """C12: the same integers, so that a text does not depend on the instruction."""
    rows = normal(40, IN).to(torch.bfloat16)
    for kind in (Eight, Four):
        assert torch.equal(kind(layout)(rows), kind("vnni")(rows))
