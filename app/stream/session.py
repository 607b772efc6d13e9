"""One session: a worker that drains a generator into the log, and a supervisor that ends it.

The supervisor, which nobody cancels, writes exactly one terminal event whatever happens. A
follower holds a cursor and owns nothing. What the events mean, and how they become bytes, is not
known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import structlog

from app.core.errors import (
    AppError,
    Cancelled,
    InternalError,
    Interrupted,
    LogUnavailable,
    TimedOut,
    UnknownSession,
)
from app.core.metrics import SESSIONS
from app.stream.event import Draft
from app.stream.log import EventLog, Header

log = structlog.get_logger(__name__)

# The drafts that end a session with an error: the terminal one, and what must come before it.
Ending = Callable[[AppError], Sequence[Draft]]


class Session:
    """A run that is alive in this process.

    `linger_s`: how long it outlives its last follower; None for ever. `opened` gives the header of
    the run that answers this request: its own, or one that another process is running already.
    `terminal_written` is set once the terminal event is in the log, or can never be.
    `client`: whose place it takes; `gave_way`: another session has that place now.
    `log_failure`: why the log could not take the terminal event, for followers to raise;
    `unwritten_ending`: the drafts that it did not take and may still take later.
    """

    def __init__(
        self,
        header: Header,
        event_log: EventLog,
        ending: Ending,
        *,
        linger_s: float | None,
        timeout_s: float | None,
        client: str = "",
    ) -> None:
        loop = asyncio.get_running_loop()
        self.header = header
        self.client = client
        self.gave_way = False
        self.started_s = loop.time()
        self.opened: asyncio.Future[Header] = loop.create_future()
        self.terminal_written = asyncio.Event()
        self.ended = False
        self.log_failure: AppError | None = None
        self.unwritten_ending: Sequence[Draft] = ()
        self.supervisor: asyncio.Task[None] | None = None
        self._log = event_log
        self._ending = ending
        self._linger_s = linger_s
        self._timeout_s = timeout_s
        self._stop_request: asyncio.Future[AppError] = loop.create_future()
        self._followers = 0
        self._unfollowed_from_s = self.started_s
        self._last_index = -1
        self._timer: asyncio.TimerHandle | None = None
        self._worker: asyncio.Task[None] | None = None
        self._expiry: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """False from the stop request on: a new request for the same id starts a new run."""
        return not self.ended and not self._stop_request.done()

    @property
    def abandoned_s(self) -> float | None:
        """For how long nobody has followed it in this process.

        None: it is followed, it ends already, or it does not need followers.
        """
        if self._followers or not self.running or self._linger_s is None:
            return None
        return asyncio.get_running_loop().time() - self._unfollowed_from_s

    def give_way(self, error: AppError) -> None:
        """Request the end, and leave the place to another session at once."""
        self.gave_way = True
        self.cancel(error)

    def cancel(self, error: AppError) -> None:
        """Request the end; the error of the first request is the one that ends the session."""
        if not self._stop_request.done():
            self._stop_request.set_result(error)

    def attach(self) -> None:
        """Count a follower; while there is one, the session does not expire."""
        self._followers += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def detach(self) -> None:
        """Count a follower less; the last one to leave starts the linger time."""
        self._followers -= 1
        self._unfollowed_from_s = asyncio.get_running_loop().time()
        if self._followers == 0 and self._linger_s is not None:
            self.expire_in(self._linger_s)

    def expire_in(self, delay_s: float) -> None:
        """Cancel the session after `delay_s`, unless it gets a follower before."""
        if not self.running:
            return
        if delay_s <= 0:
            self.cancel(Cancelled("nobody was listening any more"))
            return
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)

    def start(
        self, drafts: AsyncGenerator[Draft, None], *, shared: bool, on_end: Callable[[], None]
    ) -> asyncio.Task[None]:
        """Return the supervisor, started.

        `on_end` is called once the run has ended, before the generator is closed.
        """
        self.supervisor = asyncio.create_task(self._supervise(drafts, shared, on_end))
        return self.supervisor

    async def _supervise(
        self, drafts: AsyncGenerator[Draft, None], shared: bool, on_end: Callable[[], None]
    ) -> None:
        try:
            if await self._open(shared):
                await self._run(drafts)
        finally:
            # A follower that joins from here on finds the run in the log; a model that needs a
            # moment to stop does not keep the id busy, but still counts as active.
            other_cause = self.ended or self._stop_request.done()
            self.ended = True
            on_end()
            self.terminal_written.set()
            await self._stop_worker(report_failure=other_cause)
            for timer in (self._timer, self._expiry):
                if timer is not None:
                    timer.cancel()
            await drafts.aclose()

    async def _open(self, shared: bool) -> bool:
        """Claim the id; False if another run answers this request, or the log is unavailable."""
        try:
            holder = await self._log.open(self.header, shared=shared)
        except Exception as failure:
            if not isinstance(failure, AppError):
                log.exception("session_not_opened")
                failure = LogUnavailable("the server cannot keep sessions now; try again soon")
            self.opened.set_exception(failure)
            # The request may be gone; asyncio would report an exception that nobody has read.
            self.opened.exception()
            return False
        self.opened.set_result(holder)
        return holder.run == self.header.run

    async def _run(self, drafts: AsyncGenerator[Draft, None]) -> None:
        header = self.header
        log.info("session_started", session_id=header.session_id, kind=header.kind)
        self._worker = asyncio.create_task(self._drain(drafts))
        either: set[asyncio.Future[Any]] = {self._worker, self._stop_request}
        done, _ = await asyncio.wait(
            either, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            self.cancel(TimedOut(f"the answer took longer than {self._timeout_s or 0:g} s"))
        error = self._outcome()
        if error is not None:
            await self._write_ending(error)
        SESSIONS.labels(header.kind, error.code if error else "done").inc()
        log.info(
            "session_ended",
            session_id=header.session_id,
            kind=header.kind,
            code=error.code if error else None,
        )

    async def _drain(self, drafts: AsyncGenerator[Draft, None]) -> None:
        async with aclosing(drafts):
            async for draft in drafts:
                last = await self._log.append(self.header.run, [draft])
                # Not the next index: another process believed this one dead and ended the run.
                if draft.terminal or last != self._last_index + 1:
                    self.ended = True
                    return
                self._last_index = last

    async def _write_ending(self, error: AppError) -> None:
        """Append the terminal event; if the log cannot take it, let the followers fail now."""
        ending = self._ending(error)
        try:
            await self._log.append(self.header.run, ending)
        except Exception as failure:
            log.warning("session_end_not_written", error=type(failure).__name__)
            self.log_failure = error if isinstance(error, LogUnavailable) else _unwritable(failure)
            self.unwritten_ending = () if isinstance(failure, UnknownSession) else ending
            self._log.forget(self.header.run)

    def _outcome(self) -> AppError | None:
        """Return the error that ends the session, None if its generator ended it."""
        if self.ended:
            return None
        if self._stop_request.done():
            return self._stop_request.result()
        worker = self._worker
        if worker is None or worker.cancelled():
            return Interrupted("the server stopped this session")
        failure = worker.exception()
        if isinstance(failure, AppError):
            return failure
        log.error(
            "session_failed",
            session_id=self.header.session_id,
            exc_info=failure or RuntimeError("the generator ended without a terminal event"),
        )
        return InternalError("the server failed while answering; its log says why")

    async def _stop_worker(self, *, report_failure: bool) -> None:
        """Wait until the worker has cleaned up.

        `report_failure`: what the worker raised did not end the session and would be lost, so it
        is logged here; without its message, which may hold anything.
        """
        worker = self._worker
        if worker is None:
            return
        if not worker.done():
            worker.cancel()
            await asyncio.wait({worker})
        failure = None if worker.cancelled() else worker.exception()
        if failure is not None and report_failure:
            log.warning(
                "session_cleanup_failed",
                session_id=self.header.session_id,
                error=type(failure).__name__,
            )

    def _on_timer(self) -> None:
        self._timer = None
        self._expiry = asyncio.create_task(self._expire())

    async def _expire(self) -> None:
        """Cancel the session, unless it is followed in another process."""
        linger_s = self._linger_s or 0.0
        try:
            left_s = linger_s + await self._log.lease_left_s(self.header.run)
        except Exception as failure:
            log.warning("lease_not_read", error=type(failure).__name__)
            left_s = 0.0
        if self._followers == 0:
            self.expire_in(left_s)


def _unwritable(failure: Exception) -> AppError:
    if isinstance(failure, LogUnavailable):
        return failure
    return LogUnavailable("the server can no longer keep this session; ask again")
