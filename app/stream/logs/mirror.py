"""The last events of runs that other processes write, shared by all who follow them here.

One follower of a run listens to the store and puts what it receives into the mirror; the others
read it there. The store itself is not known here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from itertools import islice

from app.stream.event import Event
from app.stream.log import Page

MIRRORED_RUNS = 256
MIRRORED_EVENTS = 512


class Mirror:
    """A run's last events without a gap. One follower at a time listens for more.

    `known`: the store had the run at the last look. `dropped`: this mirror is no longer filled.
    """

    def __init__(self) -> None:
        self.known = False
        self.dropped = False
        self.last = -1
        self._listening = False
        self._events: deque[Event] = deque(maxlen=MIRRORED_EVENTS)
        # Those who wait, first come first, and the index after which each wants events.
        self._waiters: dict[asyncio.Future[None], int] = {}

    async def wait(self, after: int) -> bool:
        """Wait for events after an index, or for the caller's turn to listen.

        True: the caller listens now, and must call `stop_listening`. False: there is something to
        read. Nobody who has something to read waits for those who listen for what comes later.
        """
        while not self.dropped and self.last <= after:
            if not self._listening:
                self._listening = True
                return True
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[waiter] = after
            try:
                await waiter
            except asyncio.CancelledError:
                # It may have been this one's turn.
                self._waiters.pop(waiter)
                self._wake_next_listener()
                raise
            self._waiters.pop(waiter)
        return False

    def stop_listening(self) -> None:
        """Let the next follower listen."""
        self._listening = False
        self._wake_next_listener()

    def drop(self) -> None:
        """Fill this mirror no longer."""
        self.dropped = True
        self._wake_readers()

    def begin_after(self, index: int) -> None:
        """Drop all events; the next one is the one after `index`."""
        self._events.clear()
        self.last = index
        self._wake_readers()

    def extend(self, events: Sequence[Event]) -> None:
        """Add consecutive events; if there is a gap before them, drop the earlier ones."""
        if events and events[0].index != self.last + 1:
            self._events.clear()
        self._events.extend(events)
        if events:
            self.last = events[-1].index
            self._wake_readers()

    def page(self, after: int, limit: int) -> Page | None:
        """Return what follows an index, None if only the store knows it.

        At the end that is an empty page while somebody listens: an event would be here by now.
        """
        first = self.last + 1 - len(self._events)
        if after < first - 1 or after > self.last:
            return None
        events = list(islice(self._events, after + 1 - first, after + 1 - first + limit))
        if events:
            return Page(events, ended=events[-1].terminal)
        if self._events and self._events[-1].terminal:
            return Page([], ended=True)
        return Page([], ended=False) if self._listening else None

    def _wake_readers(self) -> None:
        for waiter, after in self._waiters.items():
            if (self.dropped or self.last > after) and not waiter.done():
                waiter.set_result(None)

    def _wake_next_listener(self) -> None:
        if not self._listening:
            waiter = next((each for each in self._waiters if not each.done()), None)
            if waiter is not None:
                waiter.set_result(None)


class Mirrors:
    """The mirrors of the runs that were used last."""

    def __init__(self) -> None:
        self._mirrors: OrderedDict[str, Mirror] = OrderedDict()

    def find(self, run: str) -> Mirror | None:
        """Return the mirror of a run, if there is one."""
        return self._mirrors.get(run)

    def use(self, run: str) -> Mirror:
        """Return the mirror of a run, a new one if there was none."""
        mirror = self._mirrors.setdefault(run, Mirror())
        self._mirrors.move_to_end(run)
        while len(self._mirrors) > MIRRORED_RUNS:
            # A follower that listens with it goes on, for itself alone.
            self._mirrors.popitem(last=False)
        return mirror

    def drop(self, run: str) -> None:
        """Drop the mirror of a run; its followers look into the store again."""
        mirror = self._mirrors.pop(run, None)
        if mirror is not None:
            mirror.drop()
