"""The protocol of an append-only log of events, one contract for every place that can hold one.

A log knows no tasks and no clients. It stores runs: a session id can be used again after its
session has ended, and each use is a run of its own, so a slow reader of the old run never sees
events of the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.stream.event import Draft, Event


@dataclass(frozen=True, slots=True)
class Header:
    """Who a run is. `owner` is empty when the server asks for no keys."""

    run: str
    session_id: str
    kind: str
    owner: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Page:
    """Events in order. `ended`: the run's terminal event is at or before the last of them."""

    events: list[Event]
    ended: bool


class EventLog(Protocol):
    """Append, read after a cursor, wait for more."""

    async def open(self, header: Header) -> None:
        """Begin a run; it becomes what `find` answers for its owner and session id."""
        ...

    async def find(self, owner: str, session_id: str) -> Header | None:
        """Return the newest run of that owner's session id."""
        ...

    async def append(self, run: str, drafts: Sequence[Draft]) -> int:
        """Append and return the last index; whatever follows a terminal event is dropped."""
        ...

    async def read(self, run: str, after: int, limit: int = 256) -> Page:
        """Return events with an index above `after` (-1 for all).

        Raises:
            EventsGone: an event above `after` is no longer kept, or the index was never given.
            UnknownSession: the run is not kept.
        """
        ...

    async def wait(self, run: str, after: int, timeout_s: float) -> None:
        """Return once the run has an event above `after`, has ended, or the time is over."""
        ...

    async def sweep(self, older_than_s: float) -> int:
        """Drop runs that ended longer ago than that; return how many."""
        ...

    async def aclose(self) -> None:
        """Free what the log holds."""
        ...


def open_log(url: str) -> EventLog:
    """Return the log that a URL names; `memory:` is the one of this process.

    Raises:
        ValueError: no log of that scheme exists.
    """
    from app.stream.memory import MemoryLog

    if url == "memory:":
        return MemoryLog()
    raise ValueError(f"no event log for {url.partition(':')[0]!r}: use memory:")
