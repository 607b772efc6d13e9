"""Sessions: tasks that drain a generator into a log, and cursors that follow it.

A session's own two tasks do the work: the worker drains the generator, the supervisor, which
nobody cancels, writes exactly one terminal event whatever happens. Whoever listens holds a cursor
and owns nothing. What the events mean, and how they become bytes, is not known here.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog

from app.core.errors import (
    AppError,
    Cancelled,
    InternalError,
    Interrupted,
    Overloaded,
    SessionBusy,
    TimedOut,
)
from app.stream.event import Draft, Event
from app.stream.log import EventLog, Header

log = structlog.get_logger(__name__)

Ending = Callable[[AppError], Draft]

# The first follower comes a few loop turns after the start: without this, a session that may not
# outlive its followers could end before its first one arrives.
FIRST_FOLLOWER_S = 5.0
WAIT_S = 30.0


@dataclass(eq=False, slots=True)
class Session:
    """A run that is alive in this process."""

    header: Header
    linger_s: float | None
    stop: asyncio.Future[AppError]
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    followers: int = 0
    timer: asyncio.TimerHandle | None = None
    worker: asyncio.Task[None] | None = None
    supervisor: asyncio.Task[None] | None = None

    def cancel(self, error: AppError) -> None:
        """Ask for the end; the first reason given is the one that is told."""
        if not self.stop.done():
            self.stop.set_result(error)

    def arrive(self) -> None:
        self.followers += 1
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def leave(self) -> None:
        self.followers -= 1
        if self.followers == 0 and self.linger_s is not None:
            self.arm(self.linger_s)

    def arm(self, delay_s: float) -> None:
        """Cancel the session after `delay_s`, unless somebody follows it before."""
        if self.stop.done() or self.ended:
            return
        reason = Cancelled("nobody was listening any more")
        if delay_s <= 0:
            self.cancel(reason)
            return
        self.timer = asyncio.get_running_loop().call_later(delay_s, self.cancel, reason)


class Place:
    """A reserved place among the sessions that may be active."""


class Sessions:
    """All sessions of one kind of log.

    `endings`: for each kind of session, how an error becomes its terminal event.
    `max_active`: how many may run or wait at once; None for no limit.
    """

    def __init__(
        self,
        event_log: EventLog,
        *,
        endings: Mapping[str, Ending],
        ttl_s: float = 600.0,
        timeout_s: float | None = None,
        max_active: int | None = None,
    ) -> None:
        self._log = event_log
        self._endings = endings
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._max_active = max_active
        self._reserved: set[Place] = set()
        self._by_run: dict[str, Session] = {}
        self._by_id: dict[tuple[str, str], Session] = {}
        self._shared: dict[tuple[str, str], Session] = {}
        self._closed = False

    @property
    def active(self) -> int:
        """How many sessions run or wait in this process."""
        return len(self._by_run)

    @contextmanager
    def reserve(self) -> Iterator[Place]:
        """Hold a place while a request prepares its session; `start` takes it over.

        Raises:
            Overloaded: every place is taken.
        """
        if self._max_active is not None and self.active + len(self._reserved) >= self._max_active:
            raise Overloaded(
                f"{self._max_active} requests are running or waiting, which is all this server "
                "takes at once; try again soon",
                retry_after_s=5,
            )
        place = Place()
        self._reserved.add(place)
        try:
            yield place
        finally:
            self._reserved.discard(place)

    async def running(
        self, owner: str, fingerprint: str, session_id: str | None = None
    ) -> Header | None:
        """Return the running session that already does what a request asks for.

        Raises:
            SessionBusy: the session id runs something else.
        """
        if session_id is None:
            session = self._shared.get((owner, fingerprint))
        else:
            session = self._by_id.get((owner, session_id))
        # A session that was told to stop is as good as ended: what comes now starts afresh.
        if session is None or session.ended or session.stop.done():
            return None
        if session.header.fingerprint != fingerprint:
            raise SessionBusy(
                f"session {session_id!r} is running another request; cancel it first, or choose "
                "another session_id"
            )
        await session.opened.wait()
        return session.header

    async def start(
        self,
        kind: str,
        generator: Callable[[], AsyncGenerator[Draft, None]],
        *,
        owner: str = "",
        session_id: str | None = None,
        fingerprint: str = "",
        linger_s: float | None = None,
        place: Place | None = None,
    ) -> Header:
        """Start a session, or return the running one of the same fingerprint.

        A session without an id of its own is shared by all requests of its owner with the same
        non-empty fingerprint.

        Raises:
            SessionBusy: the session id runs something else.
            Interrupted: the server is stopping.
        """
        if self._closed:
            raise Interrupted("the server is stopping; try again in a moment", retry_after_s=5)
        if fingerprint or session_id:
            known = await self.running(owner, fingerprint, session_id)
            if known is not None:
                return known
        header = Header(
            run=secrets.token_hex(12),
            session_id=session_id or secrets.token_hex(12),
            kind=kind,
            owner=owner,
            fingerprint=fingerprint,
        )
        session = Session(header, linger_s, asyncio.get_running_loop().create_future())
        self._by_run[header.run] = session
        if place is not None:
            self._reserved.discard(place)
        self._by_id[owner, header.session_id] = session
        if session_id is None and fingerprint:
            self._shared[owner, fingerprint] = session
        session.supervisor = asyncio.create_task(self._supervise(session, generator()))
        if linger_s is not None:
            session.arm(max(linger_s, FIRST_FOLLOWER_S))
        await session.opened.wait()
        return header

    async def settled(self, header: Header) -> None:
        """Return when a session that has ended, or was told to, has cleaned up in this process."""
        session = self._by_run.get(header.run)
        if session is None or session.supervisor is None:
            return
        if session.ended or session.stop.done():
            await asyncio.wait({session.supervisor})

    async def find(self, owner: str, session_id: str) -> Header | None:
        """Return the newest run of a session id, running or ended."""
        return await self._log.find(owner, session_id)

    async def check(self, header: Header, after: int) -> None:
        """Raise what `follow` would raise at its start, while an HTTP status can still say it."""
        await self._log.read(header.run, after, 1)

    async def follow(self, header: Header, after: int = -1) -> AsyncGenerator[Event, None]:
        """Yield every event above `after`, then each new one, until the terminal event.

        Raises:
            EventsGone: the events are no longer kept, or a reader fell too far behind.
        """
        session = self._by_run.get(header.run)
        if session is not None:
            session.arrive()
        try:
            while True:
                page = await self._log.read(header.run, after)
                for event in page.events:
                    after = event.index
                    yield event
                if page.ended:
                    return
                if not page.events:
                    await self._log.wait(header.run, after, WAIT_S)
        finally:
            if session is not None:
                session.leave()

    def ending(self, header: Header, error: AppError) -> Draft:
        """Return an error as the terminal event of that session's wire form."""
        try:
            return self._endings[header.kind](error)
        except Exception:
            log.exception("ending_failed", kind=header.kind)
            return Draft("error", {"error": error.message, "code": error.code}, terminal=True)

    def cancel(self, owner: str, session_id: str) -> None:
        """Cancel the running session of that id, if there is one."""
        session = self._by_id.get((owner, session_id))
        if session is not None:
            session.cancel(Cancelled("the session was cancelled"))

    async def sweep(self) -> int:
        """Forget sessions that ended longer ago than the TTL; return how many."""
        return await self._log.sweep(self._ttl_s)

    async def end_all(self, timeout_s: float = 10.0) -> None:
        """End every session with `interrupted`, take no new one, and wait for their tasks."""
        self._closed = True
        sessions = list(self._by_run.values())
        for session in sessions:
            session.cancel(Interrupted("the server is stopping; ask again in a moment"))
        tasks = {s.supervisor for s in sessions if s.supervisor is not None}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            if late:
                log.warning("sessions_still_stopping", count=len(late))

    async def aclose(self) -> None:
        await self.end_all()
        await self._log.aclose()

    async def _supervise(self, session: Session, drafts: AsyncGenerator[Draft, None]) -> None:
        header = session.header
        try:
            await self._log.open(header)
            session.opened.set()
            log.info("session_started", session_id=header.session_id, kind=header.kind)
            session.worker = asyncio.create_task(self._drain(session, drafts))
            either: set[asyncio.Future[Any]] = {session.worker, session.stop}
            done, _ = await asyncio.wait(
                either, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                session.cancel(TimedOut(f"the answer took longer than {self._timeout_s or 0:g} s"))
            error = self._outcome(session)
            if error is not None:
                await self._log.append(header.run, [self.ending(header, error)])
            log.info(
                "session_ended",
                session_id=header.session_id,
                kind=header.kind,
                code=error.code if error else None,
            )
        finally:
            # A follower that joins from here on finds the run in the log; a model that needs a
            # moment to stop does not keep the id busy, but still counts as active.
            untold = session.ended or session.stop.done()
            session.ended = True
            session.opened.set()
            self._release(session)
            await self._stop_worker(session, untold=untold)
            if session.timer is not None:
                session.timer.cancel()
            self._by_run.pop(header.run, None)

    async def _drain(self, session: Session, drafts: AsyncGenerator[Draft, None]) -> None:
        async with aclosing(drafts):
            async for draft in drafts:
                await self._log.append(session.header.run, [draft])
                if draft.terminal:
                    session.ended = True
                    return

    async def _stop_worker(self, session: Session, *, untold: bool) -> None:
        """Wait until the worker has cleaned up.

        `untold`: the ending did not come from what the worker raised, so that is logged here,
        without its message, which may hold anything.
        """
        worker = session.worker
        if worker is None:
            return
        if not worker.done():
            worker.cancel()
            await asyncio.wait({worker})
        failure = None if worker.cancelled() else worker.exception()
        if failure is not None and untold:
            log.warning(
                "session_cleanup_failed",
                session_id=session.header.session_id,
                error=type(failure).__name__,
            )

    def _outcome(self, session: Session) -> AppError | None:
        """Say with which error the session ends, or None when it ended by itself."""
        worker = session.worker
        if session.ended:
            return None
        if session.stop.done():
            return session.stop.result()
        if worker is None or worker.cancelled():
            return Interrupted("the server stopped this session")
        failure = worker.exception()
        if isinstance(failure, AppError):
            return failure
        log.error(
            "session_failed",
            session_id=session.header.session_id,
            exc_info=failure or RuntimeError("the generator ended without a terminal event"),
        )
        return InternalError("the server failed while answering; its log says why")

    def _release(self, session: Session) -> None:
        header = session.header
        for index, key in (
            (self._by_id, (header.owner, header.session_id)),
            (self._shared, (header.owner, header.fingerprint)),
        ):
            if index.get(key) is session:
                del index[key]
