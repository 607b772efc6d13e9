"""The log of one process: a ring of events for each run, gone when the process ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.core.errors import EventsGone
from app.stream.event import Draft, Event
from app.stream.log import Header, Page, not_kept

KEPT_EVENTS = 2048
# An ended session of a summary takes about 13 kB (measured): this bounds what a client that opens
# one after the other can fill. Running sessions are bounded by what may run.
KEPT_ENDED_RUNS = 4096


@dataclass(slots=True)
class _Run:
    header: Header
    events: deque[Event]
    shared: bool = False
    stopped: bool = False
    next_index: int = 0
    ended_at_s: float | None = None
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def running(self) -> bool:
        return self.ended_at_s is None and not self.stopped

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
        self._shared: dict[tuple[str, str], str] = {}

    async def open(self, header: Header, *, shared: bool = False) -> Header:
        newest = self._newest.get((header.owner, header.session_id))
        same_request = self._shared.get((header.owner, header.fingerprint)) if shared else None
        for run in (newest, same_request):
            if run is not None and self._runs[run].running:
                return self._runs[run].header
        self.begin(header, shared=shared)
        return header

    def begin(self, header: Header, *, shared: bool = False) -> None:
        """Begin a run whatever else runs; for callers that have claimed its id elsewhere."""
        self._runs[header.run] = _Run(header, deque(maxlen=self._kept_events), shared)
        self._newest[header.owner, header.session_id] = header.run
        if shared:
            self._shared[header.owner, header.fingerprint] = header.run

    def keeps(self, run: str) -> bool:
        """Return whether a run is kept here."""
        return run in self._runs

    def last_index(self, run: str) -> int:
        """Return the last index that a run was given, -1 for none.

        Raises:
            UnknownSession: the run is not kept.
        """
        return self._record(run).next_index - 1

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
        # By index, which a deque finds from its nearer end: a follower mostly reads the last few.
        stop = min(start + limit, len(record.events))
        events = [record.events[place] for place in range(start, stop)]
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

    async def request_stop(self, owner: str, session_id: str) -> None:
        run = self._newest.get((owner, session_id))
        if run is not None:
            self._runs[run].stopped = True

    # No other process sees this log: none follows, requests a stop, or leaves runs behind.

    async def stop_requests(self, timeout_s: float) -> list[str]:
        await asyncio.sleep(timeout_s)
        return []

    async def renew_lease(self, run: str, for_s: float) -> None:
        """No other process reads it."""

    async def lease_left_s(self, run: str) -> float:
        return float("-inf")

    async def heartbeat(self) -> list[Header]:
        return []

    def forget(self, run: str) -> None:
        if run in self._runs:
            self._drop(run)

    async def sweep(self, older_than_s: float) -> int:
        limit_s = time.monotonic() - older_than_s
        dropped = 0
        while self._ended and self._ended_at_s(self._ended[0]) <= limit_s:
            dropped += self._drop(self._ended.popleft())
        return dropped

    async def aclose(self) -> None:
        for record in self._runs.values():
            record.wake()
        self._runs.clear()
        self._newest.clear()
        self._shared.clear()
        self._ended.clear()

    def _ended_at_s(self, run: str) -> float:
        record = self._runs.get(run)
        return (record.ended_at_s if record else None) or 0.0

    def _drop(self, run: str) -> bool:
        record = self._runs.pop(run, None)
        if record is None:
            return False
        header = record.header
        record.wake()
        for index, key in (
            (self._newest, (header.owner, header.session_id)),
            (self._shared, (header.owner, header.fingerprint)),
        ):
            if index.get(key) == run:
                del index[key]
        return True

    def _record(self, run: str) -> _Run:
        try:
            return self._runs[run]
        except KeyError:
            raise not_kept() from None
