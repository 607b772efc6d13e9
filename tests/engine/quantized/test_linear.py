"""Packed linear layers against the float ones that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from app.engine.quantized.int4_layout import GROUP, pack_int4, unpack_int4
from app.engine.quantized.kernels import Kernels, find_kernels
from app.engine.quantized.linear import DENSE_ROWS, Int4Linear, Int8Linear
from app.engine.quantized.quantize import quantize_int4, quantize_int8
from tests.packed_models import LAYOUTS, error, kernels_of

IN, OUT = 384, 192
SLOW = [Kernels(False, 64, False, dense) for dense in ("float32", "bfloat16")]
SLOW.append(Kernels(find_kernels().weight_only, find_kernels().int4_block, False, "float32"))
# Relative to the output, root of the mean square: what rounding weights (and rows) to 8 and 4 bits
# leaves on normally distributed numbers is 0.9 (1.3) and 9.4 %.
INT8_ERROR, INT4_ERROR = 0.02, 0.11
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


def fill(made: Int8Linear, weight: Tensor) -> None:
    made.packed, made.scales = quantize_int8(weight, made.pack, block=made.block)


def int8_of(layer: nn.Linear, kernels: Kernels | None = None) -> Int8Linear:
    made = Int8Linear(IN, OUT, layer.bias is not None, kernels=kernels)
    fill(made, layer.weight)
    if layer.bias is not None:
        made.bias = layer.bias.to(torch.bfloat16)
    return made


def int4_of(layer: nn.Linear, kernels: Kernels | None = None) -> Int4Linear:
    made = Int4Linear(IN, OUT, layer.bias is not None, kernels=kernels)
    made.packed, made.scales_and_zeros = quantize_int4(layer.weight, made.pack, block=made.block)
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
def test_rows_do_not_see_each_other(layout: str) -> None:
    """C12: who shares a batch must not change what somebody reads."""
    x = normal(8, IN, seed=7)
    x[3] *= 1000
    packed = int8_of(linear(), kernels_of(layout))
    together = packed(x)
    alone = torch.cat([packed(row[None]) for row in x])
    assert error(together[:3], alone[:3]) < INT8_ERROR


@pytest.mark.parametrize("kernels", SLOW, ids=["float32", "bfloat16", "no VNNI"])
@pytest.mark.parametrize("rows", [1, 40, 300])
def test_the_slow_path_gives_what_the_fast_one_does(kernels: Kernels, rows: int) -> None:
    """C12: a machine without the instructions answers alike, only later."""
    layer = linear()
    x = normal(rows, IN, seed=4)
    fast = Kernels(True, 64, True, "bfloat16")
    if not (find_kernels().weight_only and find_kernels().int4_block == 64):
        fast = find_kernels()
    eight = int8_of(layer, fast)(x)
    assert error(int8_of(layer, kernels)(x), eight) < INT8_ERROR
    four, slow_four = int4_of(layer, fast), int4_of(layer, kernels)
    # The very same levels, so only the arithmetic may differ.
    assert error(slow_four(x), four(x)) < 0.01


def test_the_layout_is_that_of_torchs_own_kernel() -> None:
    """C12: what is kept on a disk can be read by the slow path as well."""
    levels = torch.randint(0, 16, (192, 256), dtype=torch.int32)
    for block in (32, 64):
        assert torch.equal(unpack_int4(pack_int4(levels, block), block).t().int(), levels)
    kernels = find_kernels()
    vectorised = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    assert kernels.weight_only == vectorised
    if vectorised:
        own = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 2)
        assert torch.equal(pack_int4(levels, kernels.int4_block), own)


@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_the_search_leaves_less_error_than_the_groups_range(tails: str) -> None:
    """C12: 4 bits cost quality, and the rounding decides how much."""
    weight = normal(OUT, IN, seed=5)
    if tails == "heavy":
        weight = weight / normal(OUT, IN, seed=6).abs().clamp(min=0.3)
    packed, scales_and_zeros = quantize_int4(weight, pack_64, block=64)
    grouped = weight.view(OUT, -1, GROUP)
    low, high = grouped.aminmax(dim=2, keepdim=True)
    step = (high - low) / 15
    plain = ((grouped - low) / step).round() * step + low
    assert error(unpacked(packed, scales_and_zeros), weight) < 0.97 * error(
        plain.view_as(weight), weight
    )


def as_it_is(levels: Tensor) -> Tensor:
    return levels


def pack_64(levels: Tensor) -> Tensor:
    return pack_int4(levels, 64)


def unpacked(packed: Tensor, scales_and_zeros: Tensor) -> Tensor:
    levels = unpack_int4(packed, 64).float().view(-1, GROUP, packed.shape[0]) - 8
    scales, zeros = scales_and_zeros.float()[:, None].unbind(-1)
    return (levels * scales + zeros).view(-1, packed.shape[0]).t()


@pytest.mark.parametrize("value", [0.0, 0.5, -3.0])
def test_weights_that_are_all_alike_stay_so(value: float) -> None:
    """C12: no division by a range of nothing."""
    weight = torch.full((64, 128), value)
    assert torch.allclose(unpacked(*quantize_int4(weight, pack_64, block=64)), weight, atol=1e-6)
    packed, scales = quantize_int8(weight, as_it_is, block=1)
    assert torch.allclose(packed * scales.float()[:, None], weight, rtol=0.005)


def test_rows_do_not_change_one_another() -> None:
    """C12: several sequences in one step, one of them with a number that dwarfs the others."""
    packed = int8_of(linear())
    x = normal(1500, IN, seed=7)
    together = packed(x)
    # Enough rows for the kernel that all of them go through, on any machine.
    many = DENSE_ROWS + 1
    for part in (slice(0, many), slice(1024 - many // 2, 1024 + many), slice(1500 - many, 1500)):
        assert torch.allclose(together[part], packed(x[part]), rtol=1e-5, atol=1e-5)
    x[3, 5] = 1e6
    others = torch.arange(1500) != 3
    assert torch.equal(packed(x)[others], together[others])


@pytest.mark.parametrize("kernels", [None, *SLOW], ids=["own", "float32", "bfloat16", "no VNNI"])
def test_few_rows_get_what_they_get_among_many(kernels: Kernels | None) -> None:
    """C12: another kernel may serve them, which keeps bfloat16 or rounds each row to 8 bits."""
    packed = int8_of(linear(), kernels)
    x = normal(1500, IN, seed=7)
    together = packed(x)
    for part in (slice(0, 1), slice(0, 9), slice(1019, 1030), slice(1490, 1500)):
        assert error(packed(x[part]), together[part]) < INT8_ERROR / 2


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
    quantize_int8(weight, as_it_is, block=1)
    quantize_int4(weight, pack_64, block=64)
    assert torch.equal(weight, before)
