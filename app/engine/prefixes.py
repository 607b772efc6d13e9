"""Sequences that were computed before, for those that begin the same way.

A system prompt is computed once, and an article that is asked for again is not read again. It holds
keys and values up to a number of tokens, the least recently used going first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.engine.kv_cache import KeyValues

# Less than this is computed as fast as it is found and copied.
LEAST_TOKENS = 16


class Prefixes:
    """Keeps ended sequences of one model, `max_tokens` in all."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._kept: list[tuple[list[int], KeyValues]] = []

    def take(
        self,
        ids: Sequence[int],
        running: Iterable[tuple[Sequence[int], KeyValues]],
        *,
        layers: int,
        room_tokens: int,
    ) -> KeyValues:
        """Return keys and values for a sequence, with as much of it as is known already.

        The last token is always left to be computed, since its logits are wanted. An ended sequence
        that shares most of its tokens is handed over; of another one, or one of `running`, the
        common part is copied. `room_tokens`: how long the sequence may become.
        """
        most = len(ids) - 1
        best, shared, place = None, LEAST_TOKENS - 1, -1
        for at, (other, kv) in enumerate([*self._kept, *running]):
            common = min(most, kv.length, _common(ids, other))
            if common > shared:
                best, shared, place = kv, common, at
        if best is None:
            made = KeyValues(layers)
        elif place < len(self._kept) and shared * 2 >= best.length:
            del self._kept[place]
            best.crop(shared)
            made = best
        else:
            made = best.copy(shared)
        self._make_room(room_tokens)
        return made

    def keep(self, ids: Sequence[int], kv: KeyValues) -> None:
        """Take over what a sequence has computed."""
        if kv.length >= LEAST_TOKENS:
            self._make_room(kv.length)
            self._kept.append((list(ids[: kv.length]), kv))

    def _make_room(self, tokens: int) -> None:
        while self._kept and self._held() + tokens > self._max_tokens:
            del self._kept[0]

    def _held(self) -> int:
        return sum(kv.capacity for _, kv in self._kept)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their start."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
