"""Float weights to the packed ones that `Int8Linear` and `Int4Linear` hold.

Works on a few rows at a time, so that nothing of a weight's own size is made beside the result. It
knows neither models nor files.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from app.engine.quantized.layout import BLOCK, pack_int4, pack_int8, packed_shape
from app.engine.quantized.native import matmul as native
from app.engine.quantized.native.library import best_level

# So many float32 values stay in a core's cache through all passes of the search, and are too few
# for torch to split among threads: parts are what the threads share.
_ELEMENTS_AT_ONCE = 1 << 15
# Shares of a block's range that the search begins with: a narrower one rounds the many small
# weights more finely and cuts the few large ones.
_SHARES = (1.0, 0.92, 0.84)
_LEAST, _MOST = 2.0**-24, 65504.0
_LEAST_SPREAD = 1e-9

# Scale, minimum and squared error of each block.
_Best = tuple[Tensor, Tensor, Tensor]


def quantize_int8(weight: Tensor) -> Tensor:
    """Return a float (out, in) weight packed in int8: each block's largest number is code 127."""

    def pack(rows: Tensor) -> Tensor:
        values = rows.view(len(rows), -1, BLOCK)
        scale = _half((values.abs().amax(2, keepdim=True) / 127).clamp_(_LEAST, _MOST))
        codes = (values / scale).round_().clamp_(-127, 127).to(torch.int8)
        return pack_int8(codes.view(len(values), -1), scale.squeeze(2))

    return _by_rows(weight, 8, pack)


def quantize_int4(weight: Tensor) -> Tensor:
    """Return a float (out, in) weight packed in int4.

    Scale and minimum of each block are those that leave the least squared error among some shares
    of the block's own range, each refined by the least-squares line through its codes.
    """

    def pack(rows: Tensor) -> Tensor:
        values = rows.view(len(rows), -1, BLOCK)
        scale, minimum = best_lines(values)
        codes = _codes(values, scale, minimum).to(torch.uint8)
        return pack_int4(codes.view(len(values), -1), scale.squeeze(2), minimum.squeeze(2))

    return _by_rows(weight, 4, pack)


def best_lines(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and minimum, (rows, blocks, 1) each, for values of (rows, blocks, 32)."""
    low, high = values.aminmax(dim=2, keepdim=True)
    centre, half = (low + high) / 2, (high - low) / 2
    best: _Best = (half, low, torch.full_like(low, torch.inf))
    for share in _SHARES:
        scale = _half((2 / 15 * share * half).clamp_(_LEAST, _MOST))
        best = _better(values, scale, _half(centre - 7.5 * scale), best)
        scale, minimum = _line(values, _codes(values, scale, _half(centre - 7.5 * scale)), best)
        best = _better(values, scale, minimum, best)
    return best[0], best[1]


def _line(values: Tensor, codes: Tensor, best: _Best) -> tuple[Tensor, Tensor]:
    """Return the least-squares line through the codes; the best so far where there is none."""
    mean_code, mean = codes.mean(2, keepdim=True), values.mean(2, keepdim=True)
    spread = codes - mean_code
    slope = (spread * values).sum(2, keepdim=True) / spread.square().sum(2, keepdim=True)
    slope = _half(torch.where(slope > _LEAST_SPREAD, slope, best[0]).clamp_(_LEAST, _MOST))
    return slope, _half(mean - slope * mean_code)


def _better(values: Tensor, scale: Tensor, minimum: Tensor, best: _Best) -> _Best:
    """Return, block by block, what leaves the lesser squared error: the line given or the best."""
    made = _codes(values, scale, minimum).mul_(scale).add_(minimum)
    error = made.sub_(values).square_().sum(2, keepdim=True)
    wins = error < best[2]
    return (
        torch.where(wins, scale, best[0]),
        torch.where(wins, minimum, best[1]),
        torch.where(wins, error, best[2]),
    )


def _codes(values: Tensor, scale: Tensor, minimum: Tensor) -> Tensor:
    """Return the codes 0 to 15, as floats."""
    return (values - minimum).div_(scale).round_().clamp_(0, 15)


def _half(numbers: Tensor) -> Tensor:
    """Return what float16 keeps of the numbers: the codes are chosen for what will be used."""
    return numbers.clamp(-_MOST, _MOST).to(torch.float16).float()


def _by_rows(weight: Tensor, bits: int, pack: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `pack` makes of all rows, some float32 (rows, in) at a time, by threads.

    Kernels of our own do the same with twice as many shares in a twentieth of the time.
    """
    level = best_level()
    outputs, inputs = weight.shape
    packed = torch.empty(packed_shape(outputs, inputs, bits), dtype=torch.uint8)
    step = max(1, _ELEMENTS_AT_ONCE // inputs // BLOCK) * BLOCK

    def fill(first: int) -> None:
        rows = weight[first : first + step].float()
        made = native.pack(rows, bits=bits, level=level) if level else pack(rows)
        packed[first // BLOCK : (first + step) // BLOCK] = made

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for _ in threads.map(fill, range(0, outputs, step)):
            pass
    return packed
