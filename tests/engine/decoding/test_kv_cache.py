"""Buffers of keys and values: what is written stays through growth, what is freed goes back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from app.engine.decoding.kv_cache import KeyValues
from app.engine.decoding.limits import BLOCK_TOKENS


@pytest.mark.parametrize("heads", [1, 64], ids=["small", "of pages of their own"])
def test_growing_loses_nothing_and_leaves_only_numbers(heads: int) -> None:
    """S4.24: keys that are masked must be finite."""
    kv = KeyValues(2)
    written = torch.randn(heads, 900, 32)
    for start, end in ((0, 200), (200, 512), (512, 513), (513, 900)):
        kv.reserve(end)
        for layer in range(2):
            part = written[:, start:end]
            kv.write(layer, start, part, -part)
        kv.length = end
    assert kv.capacity == 4 * BLOCK_TOKENS
    for layer in range(2):
        keys, values = kv.layer(layer)
        assert keys.shape == (heads, kv.capacity, 32)
        assert torch.equal(keys[:, :900], written)
        assert torch.equal(values[:, :900], -written)
        assert not keys[:, 900:].any()
        assert keys.data_ptr() % 64 == 0


def test_a_copy_has_its_own_buffers_and_room() -> None:
    """Two sequences never share what one of them writes."""
    kv = KeyValues(1)
    kv.reserve(300)
    kv.write(0, 0, torch.ones(64, 300, 32), torch.ones(64, 300, 32))
    kv.length = 300
    made = kv.copy(100, reserve_tokens=700)
    assert (made.length, made.capacity) == (100, 3 * BLOCK_TOKENS)
    made.write(0, 100, torch.zeros(64, 10, 32), torch.zeros(64, 10, 32))
    assert kv.layer(0)[0][:, :300].min() == 1
    assert made.layer(0)[0][:, :100].min() == 1


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def test_what_is_let_go_goes_back_to_the_machine() -> None:
    """C12: what prompts took is there for others when they are forgotten."""
    kv = KeyValues(8)
    kv.reserve(2048)
    part = torch.ones(32, 2048, 64, dtype=torch.bfloat16)
    before = resident_bytes()
    for layer in range(8):
        kv.write(layer, 0, part, part)
    size = 16 * part.nbytes
    assert resident_bytes() - before > 0.9 * size
    del kv
    assert resident_bytes() - before < 0.1 * size
