"""The sessions of one process: starting, finding, following and cancelling them.

Starting joins what runs already, here or in another process. Following is in `followers.py`, what
is done beside the requests in `maintenance.py`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager

import structlog

from app.core.errors import AppError, Cancelled, Interrupted, SessionBusy
from app.stream.admission import Admission, Reservation
from app.stream.event import Draft, Event
from app.stream.followers import Followers
from app.stream.history import event_at
from app.stream.index import SessionIndex
from app.stream.log import EventLog, Header
from app.stream.maintenance import Maintenance
from app.stream.session import Ending, Session

log = structlog.get_logger(__name__)

# The first follower comes a few loop turns after the start: without this, a session that may not
# outlive its followers could end before its first one arrives.
FIRST_FOLLOWER_S = 5.0

# The terminal event for an error, in the wire form of one kind of session. It may depend on the
# last event before it, which is None if there was none or if it cannot be read.
KindEnding = Callable[[AppError, Event | None], Draft]


class Sessions:
    """The sessions of one log that this process runs.

    `endings`: for each kind of session, how an error becomes its terminal event. `ttl_s`: how long
    a session is kept after its end. `max_active`, `max_active_per_client`: how many may run or wait
    at once, in all and of one client; None for any.
    """

    def __init__(
        self,
        event_log: EventLog,
        *,
        endings: Mapping[str, KindEnding],
        ttl_s: float = 600.0,
        timeout_s: float | None = None,
        max_active: int | None = None,
        max_active_per_client: int | None = None,
    ) -> None:
        self._log = event_log
        self._endings = endings
        self._timeout_s = timeout_s
        self._index = SessionIndex()
        self._admission = Admission(
            self._index.by_run, event_log, limit=max_active, per_client=max_active_per_client
        )
        self._followers = Followers(event_log, self._index.by_run)
        self._maintenance = Maintenance(
            event_log, self._index.by_run, self._followers, self.ending, ttl_s=ttl_s
        )
        self._closed = False

    @property
    def active(self) -> int:
        """How many sessions run or wait in this process."""
        return len(self._index.by_run)

    def reserve(self) -> AbstractAsyncContextManager[Reservation]:
        """Hold a place while a request prepares its session; `start` takes it over.

        Raises:
            Overloaded: every place, or every one that a client may have, is taken.
        """
        return self._admission.reserve()

    async def running(
        self, owner: str, fingerprint: str, session_id: str | None = None
    ) -> Header | None:
        """Return the session of this process that a request would join, if there is one.

        Raises:
            SessionBusy: the session id runs something else.
        """
        session = self._index.running(owner, fingerprint, session_id)
        if session is None:
            return None
        return _same(await asyncio.shield(session.opened), fingerprint)

    async def start(
        self,
        kind: str,
        generator: Callable[[], AsyncGenerator[Draft, None]],
        *,
        owner: str = "",
        session_id: str | None = None,
        fingerprint: str = "",
        linger_s: float | None = None,
        reservation: Reservation | None = None,
        ending: Ending | None = None,
    ) -> Header:
        """Start a session, or return the running one of the same fingerprint, in any process.

        A session without an id of its own is shared by all requests of its owner with the same
        non-empty fingerprint. `ending`: how an error ends this session, instead of its kind's way.

        Raises:
            SessionBusy: the session id runs something else.
            Interrupted: the server is stopping.
            LogUnavailable: sessions cannot be kept now.
        """
        if self._closed:
            raise Interrupted("the server is stopping; try again in a moment", retry_after_s=5)
        known = await self._join(owner, fingerprint, session_id)
        if known is not None:
            return known
        header = Header(
            run=secrets.token_hex(12),
            session_id=session_id or secrets.token_hex(12),
            kind=kind,
            owner=owner,
            fingerprint=fingerprint,
        )
        session = Session(
            header,
            self._log,
            ending or (lambda error: [self.ending(header, error, None)]),
            linger_s=linger_s,
            timeout_s=self._timeout_s,
            client=reservation.client if reservation is not None else "",
        )
        if reservation is not None:
            self._admission.end(reservation)
        shared = session_id is None and bool(fingerprint)
        self._index.add(session, shared=shared)
        supervisor = session.start(
            generator(), shared=shared, on_end=lambda: self._release(session)
        )
        supervisor.add_done_callback(lambda _: self._forget(session))
        if linger_s is not None:
            session.expire_in(max(linger_s, FIRST_FOLLOWER_S))
        return _same(await asyncio.shield(session.opened), fingerprint)

    async def wait_stopped(self, header: Header) -> None:
        """Return once a session of this process that has ended or is stopping has cleaned up."""
        session = self._index.by_run.get(header.run)
        if session is not None and session.supervisor is not None and not session.running:
            await asyncio.wait({session.supervisor})

    async def find(self, owner: str, session_id: str) -> Header | None:
        """Return the newest run of a session id, running or ended, in any process."""
        return await self._log.find(owner, session_id)

    async def check_log(self) -> None:
        """Raise `LogUnavailable` if no session can be kept now."""
        await self._log.find("", "")

    async def check(self, header: Header, after: int) -> bool:
        """Raise what `follow` would raise at its start, while an HTTP status can still say it.

        Returns:
            Whether an event comes, or may come, after that index.
        """
        page = await self._log.read(header.run, after, 1)
        return bool(page.events) or not page.ended

    def follow(self, header: Header, after: int = -1) -> AsyncGenerator[Event, None]:
        """Yield every event above `after`, then each new one; raise what `Followers.pages` does."""
        return self._followers.events(header.run, after)

    def pages(self, header: Header, after: int = -1) -> AsyncGenerator[list[Event], None]:
        """Yield what `follow` does, all that is ready at a time; no page is empty."""
        return self._followers.pages(header.run, after)

    async def snapshot(self, header: Header) -> list[Event]:
        """Return every event that is there now; see `Followers.snapshot`."""
        return await self._followers.snapshot(header.run)

    async def at(self, header: Header, index: int) -> Event | None:
        """Return the event of an index, None if it is not kept or cannot be read."""
        return await event_at(self._log, header.run, index)

    def ending(self, header: Header, error: AppError, last: Event | None) -> Draft:
        """Return an error as the terminal event of that session's wire form.

        `last`: the event that the error follows, if it is known.
        """
        try:
            return self._endings[header.kind](error, last)
        except Exception:
            log.exception("ending_failed", kind=header.kind)
            return Draft("error", {"error": error.message, "code": error.code}, terminal=True)

    async def cancel(self, owner: str, session_id: str) -> None:
        """Cancel the running session of that id, if there is one, in whichever process."""
        session = self._index.find(owner, session_id)
        if session is not None:
            session.cancel(Cancelled("the session was cancelled"))
        else:
            await self._log.request_stop(owner, session_id)

    async def sweep(self) -> int:
        """Forget sessions that ended longer ago than the TTL; return how many."""
        return await self._maintenance.sweep()

    async def recover(self) -> None:
        """End what dead processes left behind, and what the log could not take before."""
        await self._maintenance.recover()

    async def maintain(self) -> None:
        """Do what is to be done beside the requests, until cancelled."""
        await self._maintenance.run()

    async def end_all(self, timeout_s: float = 10.0) -> None:
        """End every session with `interrupted`, take no new one, and wait for their tasks."""
        self._closed = True
        sessions = list(self._index.by_run.values())
        for session in sessions:
            session.cancel(Interrupted("the server is stopping; ask again in a moment"))
        tasks = {s.supervisor for s in sessions if s.supervisor is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            if late:
                log.warning("sessions_still_stopping", count=len(late))

    async def aclose(self) -> None:
        """End everything and close the log."""
        await self.end_all()
        await self._log.aclose()

    async def _join(self, owner: str, fingerprint: str, session_id: str | None) -> Header | None:
        """Return the session to join; None once the id is free."""
        while fingerprint or session_id:
            known = await self.running(owner, fingerprint, session_id)
            if known is not None:
                return known
            stopping = self._index.find(owner, session_id or "")
            if stopping is None:
                return None
            await stopping.terminal_written.wait()
        return None

    def _forget(self, session: Session) -> None:
        self._index.by_run.pop(session.header.run, None)
        self._admission.record(asyncio.get_running_loop().time() - session.started_s)

    def _release(self, session: Session) -> None:
        if session.unwritten_ending:
            self._maintenance.write_later(session.header.run, session.unwritten_ending)
        self._index.release(session)


def _same(header: Header, fingerprint: str) -> Header:
    """Return the header of the run that a request joins.

    Raises:
        SessionBusy: that run answers another request.
    """
    if header.fingerprint != fingerprint:
        raise SessionBusy(
            f"session {header.session_id!r} is running another request; cancel it first, or choose "
            "another session_id"
        )
    return header
