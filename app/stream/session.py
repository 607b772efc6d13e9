"""One session: a worker that drains a generator into the log, and a supervisor that ends it.

The supervisor, which nobody cancels, writes exactly one terminal event whatever happens. Whoever
listens holds a cursor and owns nothing. What the events mean, and how they become bytes, is not
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
from app.stream.event import Draft
from app.stream.log import EventLog, Header

log = structlog.get_logger(__name__)

# How an error becomes what ends a session: its terminal event, and what must come before that.
Ending = Callable[[AppError], Sequence[Draft]]


class Session:
    """A run that is alive in this process.

    `linger_s`: how long it outlives its last follower; None for ever. `opened` gives the header of
    the run that stands for this request: its own, or one that another process is running already.
    `terminal_written` is set once the terminal event is in the log, or can never be.
    """

    def __init__(
        self,
        header: Header,
        event_log: EventLog,
        ending: Ending,
        *,
        linger_s: float | None,
        timeout_s: float | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.header = header
        self.stop: asyncio.Future[AppError] = loop.create_future()
        self.opened: asyncio.Future[Header] = loop.create_future()
        self.terminal_written = asyncio.Event()
        self.ended = False
        # What followers hear when the log cannot hold the terminal event, and that event.
        self.lost: AppError | None = None
        self.unwritten_ending: Sequence[Draft] = ()
        self.supervisor: asyncio.Task[None] | None = None
        self._log = event_log
        self._ending = ending
        self._linger_s = linger_s
        self._timeout_s = timeout_s
        self._followers = 0
        self._last_index = -1
        self._timer: asyncio.TimerHandle | None = None
        self._worker: asyncio.Task[None] | None = None
        self._expiry: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """A session that was told to stop is as good as ended: what comes now starts afresh."""
        return not self.ended and not self.stop.done()

    def cancel(self, error: AppError) -> None:
        """Ask for the end; the first reason given is the one that is told."""
        if not self.stop.done():
            self.stop.set_result(error)

    def attach(self) -> None:
        """Count a follower; the session no longer runs out."""
        self._followers += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def detach(self) -> None:
        """Count a follower less; after the last one the time begins to run."""
        self._followers -= 1
        if self._followers == 0 and self._linger_s is not None:
            self.arm(self._linger_s)

    def arm(self, delay_s: float) -> None:
        """Cancel the session after `delay_s`, unless somebody follows it before."""
        if not self.running:
            return
        if delay_s <= 0:
            self.cancel(Cancelled("nobody was listening any more"))
            return
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._run_out)

    def start(
        self, drafts: AsyncGenerator[Draft, None], *, shared: bool, on_end: Callable[[], None]
    ) -> None:
        """Begin; `on_end` is called once the id is free again, before the model has stopped."""
        self.supervisor = asyncio.create_task(self._supervise(drafts, shared, on_end))

    async def _supervise(
        self, drafts: AsyncGenerator[Draft, None], shared: bool, on_end: Callable[[], None]
    ) -> None:
        try:
            if await self._open(shared):
                await self._run(drafts)
        finally:
            # A follower that joins from here on finds the run in the log; a model that needs a
            # moment to stop does not keep the id busy, but still counts as active.
            unwritten = self.ended or self.stop.done()
            self.ended = True
            on_end()
            self.terminal_written.set()
            await self._stop_worker(unwritten=unwritten)
            for timer in (self._timer, self._expiry):
                if timer is not None:
                    timer.cancel()
            await drafts.aclose()

    async def _open(self, shared: bool) -> bool:
        """Claim the id; False when another run stands for this request, or the log is gone."""
        try:
            held = await self._log.open(self.header, shared=shared)
        except Exception as failure:
            if not isinstance(failure, AppError):
                log.exception("session_not_opened")
                failure = LogUnavailable("the server cannot keep sessions now; try again soon")
            self.opened.set_exception(failure)
            # Whoever asked may have gone; an exception that nobody reads would be reported.
            self.opened.exception()
            return False
        self.opened.set_result(held)
        return held.run == self.header.run

    async def _run(self, drafts: AsyncGenerator[Draft, None]) -> None:
        header = self.header
        log.info("session_started", session_id=header.session_id, kind=header.kind)
        self._worker = asyncio.create_task(self._drain(drafts))
        either: set[asyncio.Future[Any]] = {self._worker, self.stop}
        done, _ = await asyncio.wait(
            either, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            self.cancel(TimedOut(f"the answer took longer than {self._timeout_s or 0:g} s"))
        error = self._outcome()
        if error is not None:
            await self._tell(error)
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
                # Not the next index: another process took this one for dead and ended the run.
                if draft.terminal or last != self._last_index + 1:
                    self.ended = True
                    return
                self._last_index = last

    async def _tell(self, error: AppError) -> None:
        """Write what ends the session; if the log cannot take it, tell those who follow now."""
        ending = self._ending(error)
        try:
            await self._log.append(self.header.run, ending)
        except Exception as failure:
            log.warning("session_end_not_written", error=type(failure).__name__)
            self.lost = error if isinstance(error, LogUnavailable) else _unwritable(failure)
            self.unwritten_ending = () if isinstance(failure, UnknownSession) else ending
            self._log.forget(self.header.run)

    def _outcome(self) -> AppError | None:
        """Say with which error the session ends, or None when it ended by itself."""
        if self.ended:
            return None
        if self.stop.done():
            return self.stop.result()
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

    async def _stop_worker(self, *, unwritten: bool) -> None:
        """Wait until the worker has cleaned up.

        `unwritten`: the ending did not come from what the worker raised, so that is logged here,
        without its message, which may hold anything.
        """
        worker = self._worker
        if worker is None:
            return
        if not worker.done():
            worker.cancel()
            await asyncio.wait({worker})
        failure = None if worker.cancelled() else worker.exception()
        if failure is not None and unwritten:
            log.warning(
                "session_cleanup_failed",
                session_id=self.header.session_id,
                error=type(failure).__name__,
            )

    def _run_out(self) -> None:
        self._timer = None
        self._expiry = asyncio.create_task(self._expire())

    async def _expire(self) -> None:
        """Cancel the session, unless it is followed in another process."""
        linger_s = self._linger_s or 0.0
        try:
            left_s = linger_s + await self._log.lease_left_s(self.header.run)
        except Exception as failure:
            log.warning("followers_not_known", error=type(failure).__name__)
            left_s = 0.0
        if self._followers == 0:
            self.arm(left_s)


def _unwritable(failure: Exception) -> AppError:
    if isinstance(failure, LogUnavailable):
        return failure
    return LogUnavailable("the server can no longer keep this session; ask again")
