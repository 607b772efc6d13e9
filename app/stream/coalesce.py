"""Joins the pieces of an answer into events: no more than a client can draw or a log can hold.

The memory log keeps 2,048 events of a session, and an answer of any length must fit, so that it can
be replayed from its start. What a piece is, and how an event looks, is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Generic, TypeVar

Piece = TypeVar("Piece")

# A client redraws at most 33 times a second (A17).
REDRAW_INTERVAL_S = 0.03
# The first SINGLE_EVENTS have one piece each, those up to PAIR_EVENTS two; from there on an event
# has twice as many after every DOUBLES_EVERY more. Ten million pieces make 1,937 events, which
# leaves 111 for what else a session says.
SINGLE_EVENTS = 1_000
PAIR_EVENTS = 1_524
DOUBLES_EVERY = 25


def pieces_per_event(events: int) -> int:
    """Return how many pieces the next event holds after so many events."""
    if events < SINGLE_EVENTS:
        return 1
    if events < PAIR_EVENTS:
        return 2
    return 4 << (events - PAIR_EVENTS) // DOUBLES_EVERY


class Throttle:
    """Says when the next event is due. `interval_s`: at least so long after the one before."""

    def __init__(self, interval_s: float = 0.0) -> None:
        self._interval_s = interval_s
        self._events = 0
        self._pieces = 0
        self._sent_at_s = float("-inf")

    def due(self, now_s: float) -> bool:
        """Count one more piece, and return whether it is time for an event."""
        self._pieces += 1
        return (
            self._pieces >= pieces_per_event(self._events)
            and now_s - self._sent_at_s >= self._interval_s
        )

    def sent(self, now_s: float) -> None:
        """Count an event, which has all pieces so far."""
        self._events += 1
        self._pieces = 0
        self._sent_at_s = now_s


class Coalescer(Generic[Piece]):
    """Joins pieces until an event is due.

    `join` returns two pieces as one, or None where they must be events of their own.
    """

    def __init__(
        self,
        join: Callable[[Piece, Piece], Piece | None],
        *,
        interval_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._join = join
        self._clock = clock
        self._throttle = Throttle(interval_s)
        self._held: Piece | None = None

    def feed(self, piece: Piece) -> list[Piece]:
        """Take the next piece; return what is to be sent now, in order."""
        ready: list[Piece] = []
        joined = piece if self._held is None else self._join(self._held, piece)
        if joined is None:
            ready = self.flush()
            joined = piece
        self._held = joined
        return [*ready, *self.flush()] if self._throttle.due(self._clock()) else ready

    def flush(self) -> list[Piece]:
        """Return what is still held, due or not."""
        if self._held is None:
            return []
        ready, self._held = [self._held], None
        self._throttle.sent(self._clock())
        return ready
