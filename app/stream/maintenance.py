"""What is done beside the requests: heartbeats, recovery of lost runs, stop requests, sweeping.

Requests never wait for it, and it goes on whatever becomes of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from app.core.errors import AppError, Cancelled, Interrupted, LogUnavailable, UnknownSession
from app.stream.event import Draft, Event
from app.stream.followers import Followers
from app.stream.history import last_event
from app.stream.log import EventLog, Header
from app.stream.session import Session

log = structlog.get_logger(__name__)

HEARTBEAT_S = 1.0
STOP_REQUESTS_WAIT_S = 30.0

# The terminal event for the error that ends a run, which may depend on the run's last event.
RunEnding = Callable[[Header, AppError, Event | None], Draft]


class Maintenance:
    """Keeps the sessions of one process and its log in step with other processes.

    `sessions`: the sessions that run in this process, by run. `ttl_s`: how long a session is kept
    after its end.
    """

    def __init__(
        self,
        event_log: EventLog,
        sessions: Mapping[str, Session],
        followers: Followers,
        ending: RunEnding,
        *,
        ttl_s: float,
    ) -> None:
        self._log = event_log
        self._sessions = sessions
        self._followers = followers
        self._ending = ending
        self._ttl_s = ttl_s
        self._unwritten_endings: dict[str, Sequence[Draft]] = {}

    def write_later(self, run: str, ending: Sequence[Draft]) -> None:
        """Append the ending of a run once the log can be written again."""
        self._unwritten_endings[run] = ending

    async def run(self) -> None:
        """Repeat every step until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(repeat_forever(self.heartbeat, HEARTBEAT_S, retry_s=HEARTBEAT_S))
            group.create_task(repeat_forever(self.handle_stop_requests, 0.0, retry_s=HEARTBEAT_S))

    async def heartbeat(self) -> None:
        """Show that this process lives and that its followers do; end what others left behind."""
        await self.recover()
        await self._followers.renew_leases()

    async def recover(self) -> None:
        """End the runs of dead processes, and write the endings that the log did not take."""
        for header in await self._log.heartbeat():
            error = Interrupted("the server that wrote this stopped before it was done; ask again")
            log.info("session_interrupted", session_id=header.session_id, kind=header.kind)
            with suppress(UnknownSession):
                last = await last_event(self._log, header.run)
                await self._log.append(header.run, [self._ending(header, error, last)])
        for run, ending in list(self._unwritten_endings.items()):
            with suppress(UnknownSession):
                await self._log.append(run, ending)
            del self._unwritten_endings[run]

    async def handle_stop_requests(self) -> None:
        """Cancel the sessions that another process asked this one to stop."""
        for run in await self._log.stop_requests(STOP_REQUESTS_WAIT_S):
            session = self._sessions.get(run)
            if session is not None:
                session.cancel(Cancelled("the session was cancelled"))

    async def sweep(self) -> int:
        """Drop sessions that ended longer ago than `ttl_s`; return how many."""
        return await self._log.sweep(self._ttl_s)


async def repeat_forever(
    step: Callable[[], Awaitable[None]], pause_s: float, *, retry_s: float
) -> None:
    """Repeat a step until cancelled; one that failed is repeated after `retry_s`.

    A log that is unavailable is reported once, not at every attempt.
    """
    failing = False
    while True:
        try:
            await step()
            if failing:
                log.info("event_log_available_again")
            failing = False
        except LogUnavailable:
            if not failing:
                log.warning("event_log_unavailable")
            failing = True
        except Exception:
            log.exception("maintenance_failed")
            failing = True
        await asyncio.sleep(retry_s if failing else pause_s)
