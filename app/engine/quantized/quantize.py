"""Float weights to the numbers that `Int8Linear` and `Int4Linear` hold.

Works on a few rows at a time, so that nothing of a weight's own size is made beside the result. It
knows neither models nor files.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from app.engine.quantized.int4_layout import GROUP

# So many float32 values stay in a core's cache through all passes of the search, and are too few
# for torch to split among threads: parts are what the threads share.
_ELEMENTS_AT_ONCE = 1 << 15
# Shares of a group's range: a narrower one rounds the many small weights more finely and cuts the
# few large ones. Twice as many shares take twice as long and leave 0.7 % less error.
_SHARES = (1.0, 0.9, 0.8)
_LEAST_SCALE = 1e-9

Pack = Callable[[Tensor], Tensor]
# Scale, zero and squared error of each group.
_Best = tuple[Tensor, Tensor, Tensor]


def quantize_int8(weight: Tensor, pack: Pack, *, block: int) -> tuple[Tensor, Tensor]:
    """Return the packed (out, in) int8 and (out,) bfloat16 scales of a float (out, in) weight.

    `pack` lays the levels of multiples of `block` outputs out as a kernel wants them.
    """
    packed = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(weight.shape[0], dtype=torch.bfloat16)

    def fill(part: slice) -> None:
        values = weight[part].float()
        largest = values.abs().amax(1).clamp_(min=_LEAST_SCALE)
        # Rounded first, so that the error of the scale is not added to that of the values.
        scales[part] = (largest / 127).to(torch.bfloat16)
        scale = scales[part].float().unsqueeze(1)
        packed[part] = pack((values / scale).round_().clamp_(-127, 127).to(torch.int8))

    _for_rows(weight, block, fill)
    return packed, scales


def quantize_int4(weight: Tensor, pack: Pack, *, block: int) -> tuple[Tensor, Tensor]:
    """Return the packed levels and (in / 128, out, 2) bfloat16 scales and zeros of a weight.

    `pack` makes (out, in / 2) uint8 of (out, in) levels 0 to 15, for multiples of `block` outputs.

    For each group of 128 inputs, the range is the one that leaves the least squared error among
    some shares of the group's own, refined once by the least-squares line through its levels.
    """
    outputs, inputs = weight.shape
    packed = torch.empty((outputs, inputs // 2), dtype=torch.uint8)
    scales_and_zeros = torch.empty((inputs // GROUP, outputs, 2), dtype=torch.bfloat16)

    def fill(part: slice) -> None:
        values = weight[part].float().view(-1, inputs // GROUP, GROUP)
        scale, zero = _best_lines(values)
        levels = _levels(values, scale, zero).add_(8).view(-1, inputs)
        packed[part] = pack(levels)
        scales_and_zeros[:, part, 0] = scale.squeeze(2).t().to(torch.bfloat16)
        scales_and_zeros[:, part, 1] = zero.squeeze(2).t().to(torch.bfloat16)

    _for_rows(weight, block, fill)
    return packed, scales_and_zeros


def _best_lines(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and zero, (rows, groups, 1) each, for values of (rows, groups, 128)."""
    low, high = values.aminmax(dim=2, keepdim=True)
    centre, half = (low + high) / 2, (high - low) / 2
    best: _Best = (centre, centre, torch.full_like(centre, torch.inf))
    for share in _SHARES:
        scale = _rounded((2 / 15 * share * half).clamp_(min=_LEAST_SCALE))
        # Levels go from -8 to 7: level 0 is half a step above the group's middle.
        best = _better(values, (scale, _rounded(centre + scale / 2)), best)
    levels = _levels(values, best[0], best[1])
    mean_level, mean = levels.mean(2, keepdim=True), values.mean(2, keepdim=True)
    spread = levels - mean_level
    slope = (spread * values).sum(2, keepdim=True) / spread.square().sum(2, keepdim=True)
    slope = _rounded(torch.where(slope > _LEAST_SCALE, slope, best[0]))
    scale, zero, _ = _better(values, (slope, _rounded(mean - slope * mean_level)), best)
    return scale, zero


def _better(values: Tensor, line: tuple[Tensor, Tensor], best: _Best) -> _Best:
    """Return, group by group, what leaves the lesser squared error: the line given or the best."""
    scale, zero = line
    made = _levels(values, scale, zero).mul_(scale).add_(zero)
    error = made.sub_(values).square_().sum(2, keepdim=True)
    wins = error < best[2]
    return (
        torch.where(wins, scale, best[0]),
        torch.where(wins, zero, best[1]),
        torch.where(wins, error, best[2]),
    )


def _levels(values: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return the levels -8 to 7, as floats."""
    return (values - zero).div_(scale).round_().clamp_(-8, 7)


def _rounded(numbers: Tensor) -> Tensor:
    """Return what bfloat16 keeps of the numbers: the levels are chosen for what will be used."""
    return numbers.to(torch.bfloat16).float()


def _for_rows(weight: Tensor, multiple: int, fill: Callable[[slice], None]) -> None:
    """Call `fill` with every part of the rows, each of a multiple of so many, in a few threads."""
    step = max(1, _ELEMENTS_AT_ONCE // weight.shape[1] // multiple) * multiple
    parts = [slice(at, at + step) for at in range(0, weight.shape[0], step)]
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for _ in threads.map(fill, parts):
            pass
