"""The protocol of an append-only log of events, one contract for every place that can hold one.

A log knows no tasks and no clients. It stores runs: a session id can be used again after its
session has ended, and each use is a run of its own, so a slow reader of the old run never sees
events of the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.core.errors import UnknownSession
from app.stream.event import Draft, Event


@dataclass(frozen=True, slots=True)
class Header:
    """Identifies a run. `owner` is empty when the server asks for no keys."""

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
    """Append, read after a cursor, wait for more; leases, heartbeats and stop requests.

    The last three are how processes that share a log know of each other's runs and followers.

    Every method may raise `LogUnavailable`: the place that holds the events cannot be reached, and
    may be reached again later.
    """

    async def open(self, header: Header, *, shared: bool = False) -> Header:
        """Begin a run, and return the header of the run that now stands for it.

        That is another one, and nothing begins, if a run of the same owner and session id is
        running in any process; or, if `shared`, one that was opened as shared with the same owner
        and fingerprint. A run that has ended, was asked to stop, or lost its process
        does not count as running.
        """
        ...

    async def find(self, owner: str, session_id: str) -> Header | None:
        """Return the newest run of that owner's session id."""
        ...

    async def append(self, run: str, drafts: Sequence[Draft]) -> int:
        """Append and return the last index; whatever follows a terminal event is dropped.

        Raises:
            UnknownSession: the run is not kept.
        """
        ...

    async def read(self, run: str, after: int, limit: int = 256) -> Page:
        """Return events with an index above `after` (-1 for all).

        Raises:
            EventsGone: an event above `after` is no longer kept, or the index was never given.
            UnknownSession: the run is not kept.
        """
        ...

    async def wait(self, run: str, after: int, timeout_s: float) -> None:
        """Return once the run has an event above `after`, has ended, or the time is over.

        It may return early. An unknown run is an error, as in `read`.
        """
        ...

    async def request_stop(self, owner: str, session_id: str) -> None:
        """Ask the process that runs this session to end it; no effect if the session has ended.

        The run gives up its session id at once, whatever that process does.
        """
        ...

    async def stop_requests(self, timeout_s: float) -> list[str]:
        """Return runs of this process that another one asked to stop, each once.

        Waits for the first of them, at most `timeout_s`.
        """
        ...

    async def renew_lease(self, run: str, for_s: float) -> None:
        """Count this process as a follower of another one's run for `for_s` from now."""
        ...

    async def lease_left_s(self, run: str) -> float:
        """Return for how many seconds more another process follows a run of this one.

        Negative: so long ago the last lease ran out; minus infinity: there never was one.
        """
        ...

    async def heartbeat(self) -> list[Header]:
        """Show that this process is alive; return running runs whose process no longer is.

        The caller appends their terminal event, since only it knows the wire form.
        """
        ...

    async def sweep(self, older_than_s: float) -> int:
        """Drop runs that ended longer ago than that; return how many."""
        ...

    def forget(self, run: str) -> None:
        """Drop this process's copy of a run that cannot be written; wake its waiters."""
        ...

    async def aclose(self) -> None:
        """Free what the log holds."""
        ...


def not_kept() -> UnknownSession:
    """Return the error of a run that a log does not have, or has no more."""
    return UnknownSession("this session is no longer kept; start a new one")
