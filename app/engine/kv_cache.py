"""Keys and values of sequences that are computed together, as transformers' cache of one step.

A step is one forward of the model over rows that belong to different sequences, one behind the
other. Each sequence owns its buffers, which outlive the step; what is attended to is not known
here. Import it only where the model runs: it imports torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache

# Buffers grow by so many tokens: a copy of all keys for every BLOCK_TOKENS new ones.
BLOCK_TOKENS = 256


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
        """Say that there will be so many tokens; the buffers grow when a layer is written."""
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

    def copy(self, tokens: int) -> KeyValues:
        """Return a sequence of its own with the first tokens of this one."""
        made = KeyValues(len(self._keys))
        made.reserve(tokens)
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
            grown = like.new_zeros(like.shape[0], self.capacity, like.shape[2])
            if held is not None:
                grown[:, : held.shape[1]] = held
            held = buffers[layer] = grown
        return held


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

    `stopped` is asked before every layer; True ends the forward with `Abandoned`.
    """

    def __init__(self, spans: Sequence[Span], stopped: Callable[[], bool]) -> None:
        super().__init__(layers=[])
        self.spans = spans
        self._stopped = stopped

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep what a layer made of all rows. Both: (1, kv_heads, rows, head_dim)."""
        if self._stopped():
            raise Abandoned
        for span in self.spans:
            rows = slice(span.first, span.first + span.rows)
            span.kv.write(layer_idx, span.start, key_states[0, :, rows], value_states[0, :, rows])
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: positions are given with the step, since each sequence has its own."""
        return 0


class Abandoned(Exception):
    """Nobody wants the step any more."""
