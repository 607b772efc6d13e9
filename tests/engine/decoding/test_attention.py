"""Attention over kept keys: both ways compute what the definition says."""

from __future__ import annotations

import pytest
import torch

from app.engine.decoding.attention import WAYS, Way, choose_ways

HEADS, GROUPS, DIM, CAPACITY = 2, 3, 16, 400


def by_definition(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, start: int, window: int | None
) -> torch.Tensor:
    """softmax(q k / sqrt(d)) v in float64, row by row, over the keys that a row may see."""
    output = torch.empty(query.shape, dtype=torch.float64)
    for head in range(HEADS):
        for row in range(query.shape[2]):
            place = start + row
            low = 0 if window is None else max(0, place - window + 1)
            seen_keys = keys[head, low : place + 1].double()
            seen_values = values[head, low : place + 1].double()
            scores = query[head, :, row].double() @ seen_keys.T / DIM**0.5
            output[head, :, row] = scores.softmax(-1) @ seen_values
    return output


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("window", [None, 1, 20, 300])
@pytest.mark.parametrize(
    ("start", "rows"), [(0, 1), (0, 7), (0, 150), (250, 1), (130, 150), (9, 2)]
)
def test_both_ways_are_the_definition(way: Way, window: int | None, start: int, rows: int) -> None:
    """S4.24: causal and sliding-window masks, one row and many, groups of heads for one key."""
    torch.manual_seed(start + rows)
    query = torch.randn(HEADS, GROUPS, rows, DIM)
    keys, values = torch.randn(2, HEADS, CAPACITY, DIM)
    expected = by_definition(query, keys, values, start, window)
    options = {"start": start, "scaling": DIM**-0.5, "window": window}
    exact = way(query, keys, values, **options)
    assert exact.shape == query.shape
    assert float((exact.double() - expected).abs().max()) < 1e-5
    half = [each.bfloat16() for each in (query, keys, values)]
    rounded = way(*half, **options)
    reference = by_definition(*half, start, window)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded.double() - reference).abs().max()) < 2e-2


def test_what_lies_beyond_the_last_token_is_not_seen() -> None:
    """Buffers are longer than sequences, and hold what was there before."""
    query = torch.randn(HEADS, GROUPS, 1, DIM)
    keys, values = torch.randn(2, HEADS, CAPACITY, DIM)
    for way in WAYS:
        before = way(query, keys, values, start=99, scaling=0.25, window=None)
        keys[:, 100:] = 1e4
        values[:, 100:] = 1e4
        after = way(query, keys, values, start=99, scaling=0.25, window=None)
        assert torch.equal(before, after)


def test_the_ways_are_chosen_by_measuring() -> None:
    """Which one is faster depends on the machine; any choice is right."""
    one, many = choose_ways(4, 2, 16, torch.float32)
    assert one in WAYS
    assert many in WAYS
