"""Reads runs for their followers: replay, live tail and resume are one loop over the log.

A run that another process writes is followed like one of this process; a lease in the log shows
that process that it still has followers here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager

import structlog

from app.core.errors import LogUnavailable, UnknownSession
from app.stream.event import Event
from app.stream.history import events_of_run
from app.stream.log import EventLog
from app.stream.session import Session

log = structlog.get_logger(__name__)

WAIT_S = 30.0
# How long a follower counts in the process that writes its run, after each renewal.
LEASE_S = 3.0
# What a follower waits for between two pages, for each that this process has: with one follower
# every event goes out by itself, with 500 those of 75 ms go out together, which nobody sees and
# which keeps the event loop free (measured by bench.streams).
PAUSE_PER_FOLLOWER_S = 0.00015
MAX_PAUSE_S = 0.1
MIN_PAUSE_S = 0.002


class Followers:
    """The followers that this process serves.

    `sessions`: the sessions that run in this process, by run; a run that is not among them is
    written by another process, or has ended.
    """

    def __init__(self, event_log: EventLog, sessions: Mapping[str, Session]) -> None:
        self._log = event_log
        self._sessions = sessions
        self._remote_runs: Counter[str] = Counter()
        self._count = 0

    async def events(self, run: str, after: int) -> AsyncGenerator[Event, None]:
        """Yield the events of `pages` one by one."""
        async with aclosing(self.pages(run, after)) as pages:
            async for events in pages:
                for event in events:
                    yield event

    async def pages(self, run: str, after: int) -> AsyncGenerator[list[Event], None]:
        """Yield the events above `after` as they come, all that are ready at a time.

        No page is empty; the last one ends with the terminal event.

        Raises:
            EventsGone: the events are no longer kept, or the reader fell too far behind.
            LogUnavailable: the log cannot be read, or the session's end could not be written.
        """
        session = self._sessions.get(run)
        first = self._attach(run, session)
        self._count += 1
        try:
            with _session_failure(session):
                if first:
                    await self._renew_lease(run)
                while True:
                    page = await self._log.read(run, after)
                    if page.events:
                        after = page.events[-1].index
                        yield page.events
                    if page.ended:
                        return
                    if page.events:
                        await self._pause()
                        continue
                    if session is not None and session.log_failure is not None:
                        raise session.log_failure
                    await self._log.wait(run, after, WAIT_S)
        finally:
            self._count -= 1
            self._detach(run, session)

    async def snapshot(self, run: str) -> list[Event]:
        """Return every event of a run that is there now.

        The caller counts as a follower meanwhile, so that polling keeps a session alive.

        Raises:
            EventsGone: the first events are no longer kept.
            UnknownSession, LogUnavailable: as `pages` does.
        """
        session = self._sessions.get(run)
        first = self._attach(run, session)
        try:
            with _session_failure(session):
                if first:
                    await self._renew_lease(run)
                return await events_of_run(self._log, run)
        finally:
            self._detach(run, session)

    async def renew_leases(self) -> None:
        """Renew the lease of every run of another process that is followed here."""
        for run in list(self._remote_runs):
            await self._renew_lease(run)

    def _attach(self, run: str, session: Session | None) -> bool:
        """Count a follower; True for the first one here of a run of another process."""
        if session is not None:
            session.attach()
            return False
        self._remote_runs[run] += 1
        return self._remote_runs[run] == 1

    def _detach(self, run: str, session: Session | None) -> None:
        if session is not None:
            session.detach()
            return
        self._remote_runs[run] -= 1
        if self._remote_runs[run] <= 0:
            # The lease runs out by itself; nothing can be awaited here.
            del self._remote_runs[run]

    async def _renew_lease(self, run: str) -> None:
        try:
            await self._log.renew_lease(run, LEASE_S)
        except LogUnavailable:
            log.warning("lease_not_renewed")

    async def _pause(self) -> None:
        """Let events gather where many follow."""
        pause_s = min(MAX_PAUSE_S, self._count * PAUSE_PER_FOLLOWER_S)
        if pause_s > MIN_PAUSE_S:
            await asyncio.sleep(pause_s)


@contextmanager
def _session_failure(session: Session | None) -> Iterator[None]:
    """Raise the error that ended a session, where the log could not take its terminal event."""
    try:
        yield
    except (UnknownSession, LogUnavailable):
        if session is not None and session.log_failure is not None:
            raise session.log_failure from None
        raise
