"""Attention of the rows of a step to the keys of their own sequences, on the CPU.

Registered with transformers under `NAME`; a model that uses it must be given a `StepCache` and the
keyword `step`. There are two ways to compute the same, and which is faster depends on the machine
(a decode step over 2,560 keys: torch's fused kernel 5.4 ms against 0.9 ms by matrix products on one
CPU, 1.2 against 2.5 ms on another), so `choose_ways` measures. Import it only where the model runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from app.engine.decoding.kv_cache import Span, StepCache

NAME = "precis_step"
# Rows that are computed at once by matrix products: their scores stay in the cache.
BLOCK_ROWS = 128
# Up to so many rows go over whole buffers, of which a slice would be copied.
FEW_ROWS = 4

Way = Callable[..., torch.Tensor]


def fused(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    start: int,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Return the attention output by torch's own kernel.

    query: (kv_heads, groups, rows, head_dim), the rows being those of positions `start` on; keys,
    values: (kv_heads, capacity, head_dim). Returns the shape of the query.
    """
    kv_heads, groups, rows, head_dim = query.shape
    low, high = _reach(start, rows, window)
    flat = query.reshape(1, kv_heads, groups * rows, head_dim)
    mask = None
    whole = start == 0 and groups == 1 and (window is None or rows <= window)
    if rows > 1 and not whole:
        mask = _allowed(start, rows, low, high, window, query.device).repeat(groups, 1)
    output = scaled_dot_product_attention(
        flat,
        keys[None, :, low:high],
        values[None, :, low:high],
        attn_mask=mask,
        is_causal=rows > 1 and whole,
        scale=scaling,
    )
    return output.view(kv_heads, groups, rows, head_dim)


def by_products(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    *,
    start: int,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """Return the same by batched matrix products; shapes as in `fused`.

    A few rows go over the whole buffers, because a slice of them would be copied.
    """
    kv_heads, groups, rows, head_dim = query.shape
    if rows <= FEW_ROWS:
        low, high = _reach(start, rows, window)
        scores = torch.bmm(query.reshape(kv_heads, -1, head_dim), keys.transpose(1, 2))
        scores = scores.float() * scaling
        scores[:, :, high:] = -torch.inf
        scores[:, :, :low] = -torch.inf
        if rows > 1:
            allowed = _allowed(start, rows, low, high, window, query.device)
            scores[:, :, low:high].masked_fill_(~allowed.repeat(groups, 1), -torch.inf)
        shares = scores.softmax(-1).to(values.dtype)
        return torch.bmm(shares, values).view(kv_heads, groups, rows, head_dim)
    output = torch.empty_like(query)
    for first in range(0, rows, BLOCK_ROWS):
        last = min(rows, first + BLOCK_ROWS)
        low, high = _reach(start + first, last - first, window)
        block = query[:, :, first:last].reshape(kv_heads, -1, head_dim)
        scores = torch.bmm(block, keys[:, low:high].transpose(1, 2)).float() * scaling
        allowed = _allowed(start + first, last - first, low, high, window, query.device)
        scores.masked_fill_(~allowed.repeat(groups, 1), -torch.inf)
        shares = scores.softmax(-1).to(values.dtype)
        made = torch.bmm(shares, values[:, low:high])
        output[:, :, first:last] = made.view(kv_heads, groups, last - first, head_dim)
    return output


WAYS: tuple[Way, ...] = (fused, by_products)


class Step:
    """What a forward over a `StepCache` needs to know: whose rows they are, and how to compute.

    `few`: the way of a row or a few; `many`: of more.
    """

    def __init__(self, cache: StepCache, few: Way, many: Way) -> None:
        self.cache = cache
        self._few = few
        self._many = many

    def attend(
        self, layer: int, query: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        """Return (rows, heads, head_dim) for a query of (heads, rows, head_dim)."""
        heads, rows, head_dim = query.shape
        output = query.new_empty(rows, heads, head_dim)
        for span in self.cache.spans:
            output[span.first : span.first + span.rows] = self._span(
                span, layer, query, scaling, window
            )
        return output

    def _span(
        self, span: Span, layer: int, query: torch.Tensor, scaling: float, window: int | None
    ) -> torch.Tensor:
        keys, values = span.kv.layer(layer)
        own = query[:, span.first : span.first + span.rows]
        heads, rows, head_dim = own.shape
        own = own.reshape(keys.shape[0], heads // keys.shape[0], rows, head_dim)
        way = self._few if rows <= FEW_ROWS else self._many
        made = way(own, keys, values, start=span.start, scaling=scaling, window=window)
        return made.reshape(heads, rows, head_dim).transpose(0, 1)


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    step: Step | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """The function that transformers calls: query (1, heads, rows, dim) → (1, rows, heads, dim).

    Keys and values are in the cache of the step, and the mask follows from the positions. Without
    a step, `key` and `value` hold all of one unpadded sequence each, as in plain `generate`.
    """
    if step is not None:
        return step.attend(module.layer_idx, query[0], scaling, sliding_window)[None], None
    batch, heads, rows, head_dim = query.shape
    groups = (key.shape[1], heads // key.shape[1], rows, head_dim)
    start = key.shape[2] - rows
    made = [
        fused(
            query[one].reshape(groups),
            key[one],
            value[one],
            start=start,
            scaling=scaling,
            window=sliding_window,
        )
        for one in range(batch)
    ]
    return torch.stack(made).reshape(query.shape).transpose(1, 2), None


def register() -> None:
    """Make `NAME` known to transformers; it makes no mask for an attention without a mask."""
    AttentionInterface.register(NAME, attend)


def choose_ways(heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> tuple[Way, Way]:
    """Return the faster way for one row and for many, measured on this machine (a few ms)."""
    keys = torch.randn(kv_heads, 1024, head_dim).to(dtype)
    best: list[Way] = []
    for rows in (1, 128):
        query = torch.randn(kv_heads, heads // kv_heads, rows, head_dim).to(dtype)
        took = {way: _seconds(way, query, keys) for way in WAYS}
        best.append(min(took, key=lambda way: took[way]))
    return best[0], best[1]


def _seconds(way: Way, query: torch.Tensor, keys: torch.Tensor) -> float:
    best = float("inf")
    for _ in range(4):
        started_s = time.perf_counter()
        way(query, keys, keys, start=800, scaling=0.1, window=None)
        best = min(best, time.perf_counter() - started_s)
    return best


def _reach(start: int, rows: int, window: int | None) -> tuple[int, int]:
    """Return which keys the rows may see at all: from the first one's window to the last row."""
    low = 0 if window is None else max(0, start - window + 1)
    return low, start + rows


def _allowed(
    start: int, rows: int, low: int, high: int, window: int | None, device: torch.device
) -> torch.Tensor:
    """Return which row may see which key: (rows, high - low) bool. A row sees itself."""
    positions = torch.arange(start, start + rows, device=device)[:, None]
    keys = torch.arange(low, high, device=device)[None]
    allowed = keys <= positions
    if window is not None:
        allowed &= keys > positions - window
    return allowed
