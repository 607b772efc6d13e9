"""The line in front of a model: so many run, so many wait, clients are served in turn.

Turns are start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996): a ticket's turn is the later
one of the turn that is served now and the one after its client's last ticket; the lowest turn is
served next, the earlier arrival first. So one client's hundred requests hold up another's first one
by no more than what runs already. New clients could overtake without end: after some it is over.

A ticket is handed on under a plain lock, because the slot comes free in the model's thread and the
next one in line may wait on another event loop. It does not know what runs.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from itertools import count

from app.core.client import current_client
from app.core.errors import Overloaded

# Until something has run, nobody knows how long it takes.
RETRY_AFTER_S = 30
MAX_RETRY_AFTER_S = 600
DURATIONS = 32
# So many that came later are served before a ticket, and no more.
OVERTAKEN_AT_MOST = 16


class Ticket:
    """A place in the line, then a slot. Made by `GenerationQueue.enter`, ended by `release`."""

    def __init__(self, queue: GenerationQueue, client: str, turn: int, arrival: int) -> None:
        self.client = client
        self.turn = turn
        self.arrival = arrival
        self.overtaken = 0
        self.running_from_s = 0.0
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
        # In the order in which they are served.
        self._waiting: list[Ticket] = []
        self._arrivals = count()
        self._turn = 0
        # The turn after the last ticket of each client, of those that are not in the past.
        self._next_turns: dict[str, int] = {}
        self._durations_s: deque[float] = deque(maxlen=DURATIONS)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many hold a slot."""
        return len(self._running)

    def enter(self) -> Ticket:
        """Take a slot if one is free, else a place in line, for the client of this request.

        Raises:
            Overloaded: at once, when the line is full.
        """
        with self._lock:
            free = len(self._running) < self.slots and not self._waiting
            if not free and len(self._waiting) >= self.max_waiting:
                raise Overloaded(
                    f"{len(self._running)} requests run and {len(self._waiting)} wait: "
                    "try again later.",
                    retry_after_s=self._retry_after_s(),
                )
            ticket = self._ticket(current_client.get())
            if free:
                self._run(ticket)
                return ticket
            self._waiting.append(ticket)
            self._sort()
            self._wake_all()
        return ticket

    def _ticket(self, client: str) -> Ticket:
        turn = max(self._turn, self._next_turns.get(client, 0))
        self._next_turns[client] = turn + 1
        return Ticket(self, client, turn, next(self._arrivals))

    def _run(self, ticket: Ticket) -> None:
        ticket.running_from_s = time.monotonic()
        self._running.add(ticket)
        self._turn = max(self._turn, ticket.turn)
        self._next_turns = {c: turn for c, turn in self._next_turns.items() if turn > self._turn}

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
                self._durations_s.append(time.monotonic() - ticket.running_from_s)
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
                self._give_turn_back(ticket)
            else:
                return
            while self._waiting and len(self._running) < self.slots:
                heir = self._waiting.pop(0)
                if heir._wake():
                    self._run(heir)
                    self._count_overtaken(heir)
            self._wake_all()

    def _give_turn_back(self, left: Ticket) -> None:
        """Move the client's later tickets up: one that was never served cost it no turn."""
        later = [t for t in self._waiting if t.client == left.client and t.turn > left.turn]
        for ticket in later:
            ticket.turn -= 1
        if left.client in self._next_turns:
            self._next_turns[left.client] -= 1
        self._sort()

    def _count_overtaken(self, served: Ticket) -> None:
        for ticket in self._waiting:
            ticket.overtaken += ticket.arrival < served.arrival
        self._sort()

    def _sort(self) -> None:
        self._waiting.sort(key=lambda t: (t.overtaken < OVERTAKEN_AT_MOST, t.turn, t.arrival))

    def _wake_all(self) -> None:
        for waiter in self._waiting:
            waiter._wake()

    def _retry_after_s(self) -> int:
        """Return in how many seconds a slot comes free, by how long the last runs held theirs."""
        if not self._durations_s:
            return RETRY_AFTER_S
        mean_s = sum(self._durations_s) / len(self._durations_s)
        return min(max(math.ceil(mean_s / self.slots), 1), MAX_RETRY_AFTER_S)
