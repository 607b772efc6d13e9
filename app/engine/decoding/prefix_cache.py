"""Sequences that were computed before, for those that begin the same way.

A system prompt is computed once, and so is an article that several requests are about. It holds
keys and values up to a number of tokens, the least recently used going first, and each only for a
time: they are what users sent.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from app.engine.decoding.kv_cache import KeyValues
from app.engine.decoding.limits import BLOCK_TOKENS

# Less than this is computed as fast as it is found and copied.
LEAST_TOKENS = 16


@dataclass(frozen=True, slots=True)
class _Kept:
    """An ended sequence; `until_s`: when it goes."""

    ids: list[int]
    kv: KeyValues
    until_s: float


class PrefixCache:
    """Keeps ended sequences of one model, `max_tokens` in all, each for `ttl_s` after its end.

    Running sequences are counted elsewhere. All methods may be called from any thread.
    """

    def __init__(
        self,
        max_tokens: int,
        *,
        ttl_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Whole blocks, as buffers have them.
        self._max_tokens = max_tokens // BLOCK_TOKENS * BLOCK_TOKENS
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: list[_Kept] = []

    @property
    def held_tokens(self) -> int:
        """How many tokens' memory is held."""
        return sum(one.kv.capacity for one in self._kept)

    def acquire(
        self,
        ids: Sequence[int],
        running: Iterable[tuple[Sequence[int], KeyValues]],
        *,
        layers: int,
        reserve_tokens: int,
    ) -> KeyValues:
        """Return keys and values for a sequence, with as much of it as is known already.

        The last token is always left to be computed, since its logits are wanted. An ended sequence
        that shares most of its tokens is handed over; of another one, or one of `running`, the
        common part is copied. `reserve_tokens`: how many tokens there will be at least.
        """
        most = len(ids) - 1
        best, shared, place = None, LEAST_TOKENS - 1, -1
        with self._lock:
            self._forget()
            kept = [(one.ids, one.kv) for one in self._kept]
            for at, (other, kv) in enumerate([*kept, *running]):
                common = min(most, kv.length, _common(ids, other))
                if common > shared:
                    best, shared, place = kv, common, at
            if best is None:
                made = KeyValues(layers)
            elif place < len(kept) and shared * 2 >= best.length:
                del self._kept[place]
                best.crop(shared)
                made = best
            else:
                made = best.copy(shared, reserve_tokens=reserve_tokens)
                if place < len(kept):
                    self._kept.append(self._kept.pop(place))
        made.reserve(reserve_tokens)
        return made

    def store(self, ids: Sequence[int], kv: KeyValues) -> None:
        """Keep what a sequence has computed, or its beginning where the whole has no room."""
        tokens = min(kv.length, self._max_tokens)
        if tokens < LEAST_TOKENS or self._ttl_s <= 0:
            return
        with self._lock:
            self._forget()
            self._make_room(min(kv.capacity, self._max_tokens))
            if kv.capacity > self._max_tokens:
                kv = kv.copy(tokens)
            self._kept.append(_Kept(list(ids[:tokens]), kv, self._clock() + self._ttl_s))

    def forget_expired(self) -> list[KeyValues]:
        """Drop the expired ones and return them; never waits for the lock.

        Needed only while nothing is acquired or stored. Freeing them takes tenths of a second.
        """
        if not self._lock.acquire(blocking=False):
            return []
        try:
            return self._forget()
        finally:
            self._lock.release()

    def _forget(self) -> list[KeyValues]:
        now_s = self._clock()
        gone = [one.kv for one in self._kept if one.until_s <= now_s]
        self._kept = [one for one in self._kept if now_s < one.until_s]
        return gone

    def _make_room(self, tokens: int) -> None:
        while self._kept and self.held_tokens + tokens > self._max_tokens:
            del self._kept[0]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their start."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
