"""What this process has of runs that others write: their last events, as they were heard.

It knows no store: whoever listens for a run puts in what came, the others find it there.
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
    """A run's last events without a gap. Whoever holds `listening` listens for more.

    `known`: the run was there when last looked. `dropped`: listen no more, look again.
    """

    def __init__(self) -> None:
        self.listening = asyncio.Lock()
        self.known = False
        self.dropped = False
        self.last = -1
        self._events: deque[Event] = deque(maxlen=MIRRORED_EVENTS)

    def begin_after(self, index: int) -> None:
        """Forget what is here, and go on after an index."""
        self._events.clear()
        self.last = index

    def extend(self, events: Sequence[Event]) -> None:
        """Add events that follow each other; a gap before them clears what was here."""
        if events and events[0].index != self.last + 1:
            self._events.clear()
        self._events.extend(events)
        if events:
            self.last = events[-1].index

    def page(self, after: int, limit: int) -> Page | None:
        """Return what follows an index, or None where only the store can tell.

        At the end there is nothing as long as somebody listens: it would be here by now.
        """
        first = self.last + 1 - len(self._events)
        if after < first - 1 or after > self.last:
            return None
        events = list(islice(self._events, after + 1 - first, after + 1 - first + limit))
        if events:
            return Page(events, ended=events[-1].terminal)
        if self._events and self._events[-1].terminal:
            return Page([], ended=True)
        return Page([], ended=False) if self.listening.locked() else None


class Mirrors:
    """The mirrors of the runs that were asked for last."""

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
            # Who listens there goes on, alone.
            self._mirrors.popitem(last=False)
        return mirror

    def drop(self, run: str) -> None:
        """Forget a run; who waits for it looks again."""
        mirror = self._mirrors.pop(run, None)
        if mirror is not None:
            mirror.dropped = True
