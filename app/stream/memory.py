"""The log of one process: a ring of events for each run, gone when the process ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

from app.core.errors import EventsGone, UnknownSession
from app.stream.event import Draft, Event
from app.stream.log import Header, Page

KEPT_EVENTS = 2048
# An ended session of a summary takes about 13 kB (measured): this bounds what a client that opens
# one after the other can fill. Running sessions are bounded by what may run.
KEPT_ENDED_RUNS = 4096


@dataclass(slots=True)
class _Run:
    header: Header
    events: deque[Event]
    next_index: int = 0
    ended_at_s: float | None = None
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

    def wake(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters.clear()


class MemoryLog:
    """An `EventLog` that keeps the last `kept_events` events of each run."""

    def __init__(
        self, kept_events: int = KEPT_EVENTS, kept_ended_runs: int = KEPT_ENDED_RUNS
    ) -> None:
        self._kept_events = kept_events
        self._kept_ended_runs = kept_ended_runs
        # In the order in which they ended.
        self._ended: deque[str] = deque()
        self._runs: dict[str, _Run] = {}
        self._newest: dict[tuple[str, str], str] = {}

    async def open(self, header: Header) -> None:
        self._runs[header.run] = _Run(header, deque(maxlen=self._kept_events))
        self._newest[header.owner, header.session_id] = header.run

    async def find(self, owner: str, session_id: str) -> Header | None:
        run = self._newest.get((owner, session_id))
        return self._runs[run].header if run is not None else None

    async def append(self, run: str, drafts: Sequence[Draft]) -> int:
        record = self._record(run)
        for draft in drafts:
            if record.ended_at_s is not None:
                break
            record.events.append(Event(record.next_index, draft.kind, draft.data, draft.terminal))
            record.next_index += 1
            if draft.terminal:
                record.ended_at_s = time.monotonic()
                self._ended.append(run)
        record.wake()
        while len(self._ended) > self._kept_ended_runs:
            self._drop(self._ended.popleft())
        return record.next_index - 1

    async def read(self, run: str, after: int, limit: int = 256) -> Page:
        record = self._record(run)
        first = record.next_index - len(record.events)
        if after < first - 1 or after >= max(record.next_index, 1):
            raise EventsGone(
                f"events after index {after} are not kept: this session has {first} to "
                f"{record.next_index - 1}; read it again from the start"
            )
        start = after + 1 - first
        events = list(islice(record.events, start, start + limit))
        at_the_end = start + len(events) >= len(record.events)
        return Page(events, ended=at_the_end and record.ended_at_s is not None)

    async def wait(self, run: str, after: int, timeout_s: float) -> None:
        record = self._record(run)
        if record.next_index > after + 1 or record.ended_at_s is not None:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        record.waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout_s)
        finally:
            record.waiters.discard(waiter)

    async def sweep(self, older_than_s: float) -> int:
        limit_s = time.monotonic() - older_than_s
        dropped = 0
        while self._ended and (self._runs[self._ended[0]].ended_at_s or 0.0) <= limit_s:
            self._drop(self._ended.popleft())
            dropped += 1
        return dropped

    async def aclose(self) -> None:
        for record in self._runs.values():
            record.wake()
        self._runs.clear()
        self._newest.clear()
        self._ended.clear()

    def _drop(self, run: str) -> None:
        record = self._runs.pop(run)
        header = record.header
        record.wake()
        if self._newest.get((header.owner, header.session_id)) == run:
            del self._newest[header.owner, header.session_id]

    def _record(self, run: str) -> _Run:
        try:
            return self._runs[run]
        except KeyError:
            raise UnknownSession("this session is no longer kept; start a new one") from None
