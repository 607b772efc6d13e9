"""Keys and values of sequences that are computed together, as transformers' cache of one step.

A step is one forward of the model over rows that belong to different sequences, one behind the
other. Each sequence owns its buffers, which outlive the step; what is attended to is not known
here. Import it only where the model runs: it imports torch and transformers.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

from app.engine.decoding.limits import BLOCK_TOKENS

_OWN_PAGES_BYTES = 1 << 20


class KeyValues:
    """The keys and values of one sequence: for each layer two (kv_heads, capacity, head_dim).

    `length`: how many tokens are whole, that is written by every layer.
    """

    def __init__(self, layers: int) -> None:
        self.length = 0
        self.capacity = 0
        self._keys: list[torch.Tensor | None] = [None] * layers
        self._values: list[torch.Tensor | None] = [None] * layers

    def reserve(self, tokens: int) -> None:
        """Say that there will be so many tokens; the buffers grow when a layer is written.

        Each growth copies all that is there, and attention may go over the whole buffers: reserve
        what is certain, and let the rest come by blocks.
        """
        if tokens > self.capacity:
            self.capacity = -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS

    def write(self, layer: int, start: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put tokens at their places. keys, values: (kv_heads, tokens, head_dim)."""
        end = start + keys.shape[1]
        self._grown(self._keys, layer, keys)[:, start:end] = keys
        self._grown(self._values, layer, values)[:, start:end] = values

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the whole buffers of a layer; beyond the written tokens is anything finite."""
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            raise LookupError("the layer was never written")
        return keys, values

    def crop(self, tokens: int) -> None:
        """Forget all tokens but the first ones; the buffers stay."""
        self.length = min(self.length, tokens)

    def copy(self, tokens: int, *, reserve_tokens: int = 0) -> KeyValues:
        """Return a sequence of its own with the first tokens of this one, and room for so many."""
        made = KeyValues(len(self._keys))
        made.reserve(max(tokens, reserve_tokens))
        for layer, (keys, values) in enumerate(zip(self._keys, self._values, strict=True)):
            if keys is not None and values is not None:
                made.write(layer, 0, keys[:, :tokens], values[:, :tokens])
        made.length = tokens
        return made

    def _grown(
        self, buffers: list[torch.Tensor | None], layer: int, like: torch.Tensor
    ) -> torch.Tensor:
        held = buffers[layer]
        if held is None or held.shape[1] < self.capacity:
            # Zeros: a key that is masked must still be a number.
            grown = _zeros(torch.Size((like.shape[0], self.capacity, like.shape[2])), like.dtype)
            if held is not None:
                grown[:, : held.shape[1]] = held
            held = buffers[layer] = grown
        return held


def _zeros(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Return zeros in pages of their own.

    In the allocator's heap, buffers of this size lie between the temporaries of a forward: three
    sequences took 0.27 GB more than they hold, and what was freed stayed with the process. Pages of
    their own go back at once, are made when they are written, and may be large ones, with which a
    decode step of attention took 10 % less time.
    """
    size_bytes = shape.numel() * dtype.itemsize
    if size_bytes < _OWN_PAGES_BYTES or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.zeros(shape, dtype=dtype)
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)


@dataclass(slots=True)
class Span:
    """The rows of one sequence in a step: `rows` of them from row `first` on."""

    kv: KeyValues
    first: int
    rows: int

    @property
    def start(self) -> int:
        """The position of the first row in its sequence."""
        return self.kv.length

    @property
    def end(self) -> int:
        """How many tokens the sequence has after the step."""
        return self.kv.length + self.rows


class StepCache(Cache):  # type: ignore[misc, unused-ignore]
    """What the model writes its keys and values to during one step.

    `on_layer` is called with the number of each layer that is reached, and may raise `Abandoned`.
    """

    def __init__(self, spans: Sequence[Span], on_layer: Callable[[int], None]) -> None:
        super().__init__(layers=[])
        self.spans = spans
        self._on_layer = on_layer

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep what a layer made of all rows. Both: (1, kv_heads, rows, head_dim)."""
        self._on_layer(layer_idx)
        for span in self.spans:
            rows = slice(span.first, span.first + span.rows)
            span.kv.write(layer_idx, span.start, key_states[0, :, rows], value_states[0, :, rows])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: positions are given with the step, since each sequence has its own."""
        return 0


class Abandoned(Exception):
    """The step was left because no sequence in it wants its result."""
