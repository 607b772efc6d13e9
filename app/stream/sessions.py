"""All sessions of one process, and cursors that follow those of any process.

Starting joins what runs already; following is one loop for replay, live tail and resume; beside
the requests, `maintain` hears what other processes ask for and ends what dead ones left behind.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager, suppress

import structlog

from app.core.errors import (
    AppError,
    Cancelled,
    Interrupted,
    LogUnavailable,
    Overloaded,
    SessionBusy,
    UnknownSession,
)
from app.stream.event import Draft, Event
from app.stream.history import event_at, events_of_run, last_event
from app.stream.log import EventLog, Header
from app.stream.repeat import repeat_forever
from app.stream.session import Ending, Session

log = structlog.get_logger(__name__)

# The first follower comes a few loop turns after the start: without this, a session that may not
# outlive its followers could end before its first one arrives.
FIRST_FOLLOWER_S = 5.0
WAIT_S = 30.0
HEARTBEAT_S = 1.0
# A follower in another process counts for this long after each beat.
LEASE_S = 3.0
# What a follower waits for between two pages, for each that this process has: with one follower
# every event goes out by itself, with 500 those of 75 ms go out together, which nobody sees and
# which keeps the event loop free (measured by bench.streams).
PAUSE_PER_FOLLOWER_S = 0.00015
MAX_PAUSE_S = 0.1
MIN_PAUSE_S = 0.002

# How a kind of session tells an error: as a terminal event that may depend on what was told last,
# which is None where nothing was, or where it cannot be known.
KindEnding = Callable[[AppError, Event | None], Draft]


class Reservation:
    """A reserved place among the sessions that may be active."""


class Sessions:
    """The sessions of one log that this process runs.

    `endings`: for each kind of session, how an error becomes its terminal event.
    `max_active`: how many may run or wait at once; None for no limit.
    """

    def __init__(
        self,
        event_log: EventLog,
        *,
        endings: Mapping[str, KindEnding],
        ttl_s: float = 600.0,
        timeout_s: float | None = None,
        max_active: int | None = None,
    ) -> None:
        self._log = event_log
        self._endings = endings
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._max_active = max_active
        self._reserved: set[Reservation] = set()
        self._by_run: dict[str, Session] = {}
        self._by_id: dict[tuple[str, str], Session] = {}
        self._shared: dict[tuple[str, str], Session] = {}
        # Terminal events that the log could not take, and runs of other processes followed here.
        self._unwritten_endings: dict[str, Sequence[Draft]] = {}
        self._remote_runs: Counter[str] = Counter()
        self._followers = 0
        self._closed = False

    @property
    def active(self) -> int:
        """How many sessions run or wait in this process."""
        return len(self._by_run)

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
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
        reservation = Reservation()
        self._reserved.add(reservation)
        try:
            yield reservation
        finally:
            self._reserved.discard(reservation)

    async def running(
        self, owner: str, fingerprint: str, session_id: str | None = None
    ) -> Header | None:
        """Return the session that already does in this process what a request asks for.

        Raises:
            SessionBusy: the session id runs something else.
        """
        if session_id is None:
            session = self._shared.get((owner, fingerprint))
        else:
            session = self._by_id.get((owner, session_id))
        if session is None or not session.running:
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
        non-empty fingerprint. `ending`: how this session tells an error, instead of its kind.

        Raises:
            SessionBusy: the session id runs something else.
            Interrupted: the server is stopping.
            LogUnavailable: sessions cannot be kept now.
        """
        if self._closed:
            raise Interrupted("the server is stopping; try again in a moment", retry_after_s=5)
        while fingerprint or session_id:
            known = await self.running(owner, fingerprint, session_id)
            if known is not None:
                return known
            stopping = self._by_id.get((owner, session_id or ""))
            if stopping is None:
                break
            await stopping.terminal_written.wait()
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
        )
        shared = session_id is None and bool(fingerprint)
        self._by_run[header.run] = session
        if reservation is not None:
            self._reserved.discard(reservation)
        self._by_id[owner, header.session_id] = session
        if shared:
            self._shared[owner, fingerprint] = session
        session.start(generator(), shared=shared, on_end=lambda: self._release(session))
        assert session.supervisor is not None  # noqa: S101  (start sets it)
        session.supervisor.add_done_callback(lambda _: self._by_run.pop(header.run, None))
        if linger_s is not None:
            session.arm(max(linger_s, FIRST_FOLLOWER_S))
        return _same(await asyncio.shield(session.opened), fingerprint)

    async def wait_stopped(self, header: Header) -> None:
        """Return when a session that has ended, or was told to, has cleaned up in this process."""
        session = self._by_run.get(header.run)
        if session is None or session.supervisor is None:
            return
        if not session.running:
            await asyncio.wait({session.supervisor})

    async def find(self, owner: str, session_id: str) -> Header | None:
        """Return the newest run of a session id, running or ended, in any process."""
        return await self._log.find(owner, session_id)

    async def check(self, header: Header, after: int) -> bool:
        """Raise what `follow` would raise at its start, while an HTTP status can still say it.

        Returns:
            Whether an event comes, or may come, after that index.
        """
        page = await self._log.read(header.run, after, 1)
        return bool(page.events) or not page.ended

    async def follow(self, header: Header, after: int = -1) -> AsyncGenerator[Event, None]:
        """Yield every event above `after`, then each new one, until the terminal event.

        Raises:
            EventsGone: the events are no longer kept, or a reader fell too far behind.
            LogUnavailable: the log cannot be read, or the session's end could not be written.
        """
        async with aclosing(self.pages(header, after)) as pages:
            async for events in pages:
                for event in events:
                    yield event

    async def pages(self, header: Header, after: int = -1) -> AsyncGenerator[list[Event], None]:
        """Yield what `follow` does, all that is ready at a time; no page is empty."""
        run = header.run
        session = self._by_run.get(run)
        first = self._attach(run, session)
        self._followers += 1
        try:
            if first:
                await self._renew_lease(run, LEASE_S)
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
                if session is not None and session.lost is not None:
                    raise session.lost
                await self._log.wait(run, after, WAIT_S)
        except (UnknownSession, LogUnavailable):
            if session is not None and session.lost is not None:
                raise session.lost from None
            raise
        finally:
            self._followers -= 1
            self._detach(run, session)

    async def snapshot(self, header: Header) -> list[Event]:
        """Return every event that there is, without waiting for one.

        Whoever asks counts as a follower for that moment, so that polling keeps a session alive.

        Raises:
            EventsGone: the first events are no longer kept.
            UnknownSession, LogUnavailable: as `follow` does.
        """
        session = self._by_run.get(header.run)
        first = self._attach(header.run, session)
        try:
            if first:
                await self._renew_lease(header.run, LEASE_S)
            return await events_of_run(self._log, header.run)
        except (UnknownSession, LogUnavailable):
            if session is not None and session.lost is not None:
                raise session.lost from None
            raise
        finally:
            self._detach(header.run, session)

    async def at(self, header: Header, index: int) -> Event | None:
        """Return the event of an index, None where it is not kept or cannot be read."""
        return await event_at(self._log, header.run, index)

    async def _pause(self) -> None:
        """Let events gather where many follow."""
        pause_s = min(MAX_PAUSE_S, self._followers * PAUSE_PER_FOLLOWER_S)
        if pause_s > MIN_PAUSE_S:
            await asyncio.sleep(pause_s)

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
        session = self._by_id.get((owner, session_id))
        if session is not None:
            session.cancel(Cancelled("the session was cancelled"))
        else:
            await self._log.stop(owner, session_id)

    async def sweep(self) -> int:
        """Forget sessions that ended longer ago than the TTL; return how many."""
        return await self._log.sweep(self._ttl_s)

    async def recover(self) -> None:
        """End what dead processes left behind, and what the log could not take before."""
        for header in await self._log.heartbeat():
            error = Interrupted("the server that wrote this stopped before it was done; ask again")
            log.info("session_interrupted", session_id=header.session_id, kind=header.kind)
            with suppress(UnknownSession):
                last = await last_event(self._log, header.run)
                await self._log.append(header.run, [self.ending(header, error, last)])
        for run, ending in list(self._unwritten_endings.items()):
            with suppress(UnknownSession):
                await self._log.append(run, ending)
            del self._unwritten_endings[run]

    async def maintain(self) -> None:
        """Do what is to be done beside the requests, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(repeat_forever(self._heartbeat, HEARTBEAT_S, away_s=HEARTBEAT_S))
            group.create_task(repeat_forever(self._handle_stops, 0.0, away_s=HEARTBEAT_S))

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
        """End everything and close the log."""
        await self.end_all()
        await self._log.aclose()

    def _attach(self, run: str, session: Session | None) -> bool:
        """Count a follower; True for the first here of a run of another process."""
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
            # The last beat said for how long it counts; nothing can be awaited here.
            del self._remote_runs[run]

    async def _renew_lease(self, run: str, for_s: float) -> None:
        try:
            await self._log.renew_lease(run, for_s)
        except LogUnavailable:
            log.warning("following_not_told")

    async def _heartbeat(self) -> None:
        await self.recover()
        for run in list(self._remote_runs):
            await self._renew_lease(run, LEASE_S)

    async def _handle_stops(self) -> None:
        for run in await self._log.stops(WAIT_S):
            session = self._by_run.get(run)
            if session is not None:
                session.cancel(Cancelled("the session was cancelled"))

    def _release(self, session: Session) -> None:
        header = session.header
        if session.unwritten_ending:
            self._unwritten_endings[header.run] = session.unwritten_ending
        for index, key in (
            (self._by_id, (header.owner, header.session_id)),
            (self._shared, (header.owner, header.fingerprint)),
        ):
            if index.get(key) is session:
                del index[key]


def _same(header: Header, fingerprint: str) -> Header:
    """Return the header of a run that stands for a request, if it does the same."""
    if header.fingerprint != fingerprint:
        raise SessionBusy(
            f"session {header.session_id!r} is running another request; cancel it first, or choose "
            "another session_id"
        )
    return header
