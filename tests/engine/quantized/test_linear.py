"""Packed linear layers against the float ones that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from app.engine.quantized.kernels import Kernels
from app.engine.quantized.layout import pack_int4, pack_int8, unpack_int4, unpack_int8
from app.engine.quantized.linear import Int4Linear, Int8Linear
from app.engine.quantized.quantize import quantize_int4, quantize_int8
from tests.packed_models import LAYOUTS, error, kernels_of

IN, OUT = 384, 192
SLOW = [Kernels(dense) for dense in ("float32", "bfloat16")]
# Relative to the output, root of the mean square: what rounding weights and rows to 8 and 4 bits in
# blocks of 32 leaves on normally distributed numbers is 0.9 and 7.4 %.
INT8_ERROR, INT4_ERROR = 0.012, 0.08
Make = Callable[[nn.Linear, Kernels | None], nn.Module]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(bias: bool = True) -> nn.Linear:
    layer = nn.Linear(IN, OUT, bias=bias)
    layer.requires_grad_(False)
    layer.weight.copy_(normal(OUT, IN) * 0.02)
    if bias:
        layer.bias.copy_(normal(OUT, seed=1))
    return layer


def int8_of(layer: nn.Linear, kernels: Kernels | None = None) -> Int8Linear:
    made = Int8Linear(IN, OUT, layer.bias is not None, kernels=kernels)
    made.packed = quantize_int8(layer.weight)
    if layer.bias is not None:
        made.bias = layer.bias.to(torch.bfloat16)
    return made


def int4_of(layer: nn.Linear, kernels: Kernels | None = None) -> Int4Linear:
    made = Int4Linear(IN, OUT, layer.bias is not None, kernels=kernels)
    made.packed = quantize_int4(layer.weight)
    if layer.bias is not None:
        made.bias = layer.bias.to(torch.bfloat16)
    return made


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 4, 5, 12, 13, 127, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("make", "bound"), [(int8_of, INT8_ERROR), (int4_of, INT4_ERROR)])
def test_a_packed_layer_answers_like_the_float_one(
    rows: int, dtype: torch.dtype, make: Make, bound: float, layout: str
) -> None:
    """C12: every number of rows has its kernel; the type that comes in goes out."""
    layer, kernels = linear(bias=False), kernels_of(layout)
    packed = make(layer, kernels)
    x = normal(rows, IN, seed=2).to(dtype)
    made = packed(x)
    assert (made.dtype, made.shape) == (dtype, (rows, OUT))
    assert error(made, layer(x.float())) < bound


@pytest.mark.parametrize("make", [int8_of, int4_of])
def test_leading_sides_and_bias_are_those_of_a_linear_layer(make: Make) -> None:
    """Architecture: the layers stand in for nn.Linear."""
    layer = linear()
    packed = make(layer, None)
    x = normal(2, 3, IN, seed=3)
    assert packed(x).shape == (2, 3, OUT)
    assert error(packed(x) - layer.bias.to(torch.bfloat16), layer(x) - layer.bias) < INT4_ERROR
    assert (packed.in_features, packed.out_features) == (IN, OUT)
    # Rows that are not contiguous, as a slice of a sequence gives them.
    assert torch.equal(packed(x[:, -1:]), packed(x[:, -1:].contiguous()))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_large_input_spoils_no_other_block_of_its_row(layout: str) -> None:
    """C32: real models have outliers of 25,000 times the median; the other blocks keep 8 bits."""
    codes = torch.randint(1, 16, (OUT, IN), generator=torch.Generator().manual_seed(1))
    codes[:, 40] = 0
    scales = torch.ones(OUT, IN // 32)
    eight, four = (kind(IN, OUT, kernels=kernels_of(layout)) for kind in (Int8Linear, Int4Linear))
    eight.packed = pack_int8(codes.to(torch.int8), scales)
    four.packed = pack_int4(codes, scales, torch.zeros_like(scales))
    x = normal(5, IN, seed=7)
    wanted = x @ codes.float().t()
    x[:, 40] = 25_000.0
    # Of the 12 blocks, the one beside the large input is lost.
    for layer in (eight, four):
        assert error(layer(x), wanted) < 0.4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("make", [int8_of, int4_of])
def test_rows_do_not_see_each_other(make: Make, layout: str) -> None:
    """C12: who shares a batch must not change what somebody reads."""
    packed = make(linear(), kernels_of(layout))
    x = normal(1500, IN, seed=7)
    together = packed(x)
    for part in (slice(0, 1), slice(0, 9), slice(1019, 1030), slice(900, 1500)):
        assert error(packed(x[part]), together[part]) < INT8_ERROR
    x[3] *= 1e6
    others = torch.arange(1500) != 3
    assert torch.equal(packed(x)[others], together[others])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernels", SLOW, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 40, 300])
def test_the_slow_path_gives_what_the_fast_one_does(
    kernels: Kernels, rows: int, layout: str
) -> None:
    """C12: a machine without the instructions answers alike, only later."""
    layer, fast = linear(), kernels_of(layout)
    x = normal(rows, IN, seed=4)
    for make in (int8_of, int4_of):
        assert error(make(layer, kernels)(x), make(layer, fast)(x)) < INT8_ERROR


@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_the_search_leaves_less_error_than_the_blocks_range(tails: str) -> None:
    """C32: 4 bits cost quality, and the rounding decides how much."""
    weight = normal(OUT, IN, seed=5)
    if tails == "heavy":
        weight = weight / normal(OUT, IN, seed=6).abs().clamp(min=0.3)
    grouped = weight.view(OUT, -1, 32)
    low, high = grouped.aminmax(dim=2, keepdim=True)
    step = (high - low) / 15
    plain = ((grouped - low) / step).round() * step + low
    made = unpack_int4(quantize_int4(weight))
    assert error(made, weight) < 0.95 * error(plain.view_as(weight), weight)


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0, 1e-7, 1e6])
def test_weights_that_are_all_alike_stay_so(value: float) -> None:
    """C12: no division by a range of nothing, and what float16 cannot hold is the nearest."""
    weight = torch.full((64, 128), value)
    for made in (unpack_int4(quantize_int4(weight)), unpack_int8(quantize_int8(weight))):
        assert made.isfinite().all()
        if abs(value) < 65504:
            assert torch.allclose(made, weight, rtol=0.005, atol=1e-6)


def test_a_row_of_zeros_gives_the_bias() -> None:
    """C12: no division by nothing."""
    layer = linear()
    for rows in (1, 20):
        made = int8_of(layer)(torch.zeros(rows, IN))
        assert torch.allclose(made, layer.bias.to(torch.bfloat16).float().expand(rows, OUT))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packing_leaves_the_weight_as_it_was(dtype: torch.dtype) -> None:
    """C12: the tensor is a view of the checkpoint's file."""
    weight = normal(64, 256).to(dtype)
    before = weight.clone()
    quantize_int8(weight)
    quantize_int4(weight)
    assert torch.equal(weight, before)
