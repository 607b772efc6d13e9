"""The line in front of a model: so many run, so many wait, first come first served.

A ticket is handed on under a plain lock, because the slot comes free in the model's thread and the
next one in line may wait on another event loop. It does not know what runs.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque

from app.core.errors import Overloaded

RETRY_AFTER_S = 30


class Ticket:
    """A place in the line, then a slot. Made by `GenerationQueue.enter`, ended by `release`."""

    def __init__(self, queue: GenerationQueue) -> None:
        self._queue = queue
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._last_position: int | None = None

    @property
    def position(self) -> int | None:
        """The place in the line, 1 is next; None once the slot is held (or released)."""
        return self._queue._position(self)

    async def next_position(self) -> int | None:
        """Return the position as soon as it differs from the one this returned last.

        None means that the slot is held. The first call never waits.
        """
        while (position := self.position) is not None and position == self._last_position:
            self._changed.clear()
            # The position is read again after the event is cleared, or a change would be lost.
            if self.position == position:
                await self._changed.wait()
        self._last_position = position
        return position

    def release(self) -> None:
        """Give the place or the slot back; callable from any thread, again without effect."""
        self._queue._leave(self)

    def _wake(self) -> bool:
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:
            # Its loop was closed under it: this place will never be taken.
            return False
        return True


class GenerationQueue:
    """`slots` tickets run at once, `max_waiting` more stand in line."""

    def __init__(self, slots: int = 1, max_waiting: int = 64) -> None:
        if slots < 1 or max_waiting < 0:
            raise ValueError("slots must be at least 1 and max_waiting at least 0")
        self.slots = slots
        self.max_waiting = max_waiting
        self._lock = threading.Lock()
        self._running: set[Ticket] = set()
        self._waiting: deque[Ticket] = deque()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many hold a slot."""
        return len(self._running)

    def enter(self) -> Ticket:
        """Take a slot if one is free, else the last place in line.

        Raises:
            Overloaded: at once, when the line is full.
        """
        ticket = Ticket(self)
        with self._lock:
            if len(self._running) < self.slots and not self._waiting:
                self._running.add(ticket)
            elif len(self._waiting) >= self.max_waiting:
                raise Overloaded(
                    f"{len(self._running)} requests run and {len(self._waiting)} wait: "
                    "try again later.",
                    retry_after_s=RETRY_AFTER_S,
                )
            else:
                self._waiting.append(ticket)
        return ticket

    def _position(self, ticket: Ticket) -> int | None:
        with self._lock:
            try:
                return self._waiting.index(ticket) + 1
            except ValueError:
                return None

    def _leave(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket in self._running:
                self._running.discard(ticket)
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                return
            while self._waiting and len(self._running) < self.slots:
                heir = self._waiting.popleft()
                if heir._wake():
                    self._running.add(heir)
            for waiter in self._waiting:
                waiter._wake()
