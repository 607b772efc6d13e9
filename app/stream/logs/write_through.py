"""What all durable logs share: events go to a store first, then to a ring in memory.

Followers see an event once the store has it, so nothing that a client was sent is lost with the
process. The ring holds the runs of this process. Which store it is, is not known here.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from app.core.errors import AppError, EventsGone, InternalError, LogUnavailable, UnknownSession
from app.stream.event import Data, Draft
from app.stream.log import Header, Page
from app.stream.logs.memory import MemoryLog

log = structlog.get_logger(__name__)

# The store keeps ended runs; the ring only saves it the readers that come right after the end.
RINGED_ENDED_RUNS = 256
# A bound, since every request while the store is away leaves one.
UNCONFIRMED_RUNS = 1024


@dataclass(frozen=True, slots=True)
class Packed:
    """A draft as a store keeps it; `data` is JSON in UTF-8."""

    kind: str
    data: bytes
    terminal: bool


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of an append: the run's last index, and whether the store took any draft."""

    last: int
    taken: bool


@dataclass(frozen=True, slots=True)
class Append:
    """Drafts of one run that wait for the store; `done` becomes the last index."""

    run: str
    drafts: Sequence[Draft]
    packed: Sequence[Packed]
    done: asyncio.Future[int]

    def settle(self, outcome: Written | AppError) -> None:
        """Set the outcome, unless the caller has been cancelled."""
        if self.done.done():
            return
        if isinstance(outcome, Written):
            self.done.set_result(outcome.last)
        else:
            self.done.set_exception(outcome)


def pack(data: Data) -> bytes:
    """Return data as JSON that `unpack` gives back exactly, lone surrogates included.

    ASCII escapes would not do: two lone surrogates in a row come back from them as one character.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def unpack(packed: bytes) -> Data:
    """Return what `pack` was given."""
    data: Data = json.loads(packed.decode("utf-8", "surrogatepass"))
    return data


class WriteThroughLog(ABC):
    """An `EventLog` over a store that outlives the process.

    Appends of all runs that come while the store is busy are one batch, which is written next. A
    run leaves the ring when the store fails, or has other events than the ring; from then on its
    readers read from the store.
    """

    def __init__(self) -> None:
        self._ring = MemoryLog(kept_ended_runs=RINGED_ENDED_RUNS)
        self._queue: list[Append] = []
        self._writer: asyncio.Future[None] | None = None
        self._pauses: dict[str, set[asyncio.Future[None]]] = {}
        # Runs whose opening got no answer: the store may have them, but no process runs them.
        self._unconfirmed: dict[str, Header] = {}

    async def open(self, header: Header, *, shared: bool = False) -> Header:
        try:
            holder = await self._claim(header, shared)
        except LogUnavailable:
            self._unconfirmed[header.run] = header
            if len(self._unconfirmed) > UNCONFIRMED_RUNS:
                del self._unconfirmed[next(iter(self._unconfirmed))]
            raise
        if holder.run == header.run:
            self._ring.begin(header)
        return holder

    async def append(self, run: str, drafts: Sequence[Draft]) -> int:
        packed = [Packed(d.kind, pack(d.data), d.terminal) for d in drafts]
        job = Append(run, tuple(drafts), packed, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        if self._writer is None:
            # A future of its own: if the session that came first is cancelled, the events of the
            # others must still be written.
            self._writer = asyncio.ensure_future(self._write_queue())
        return await job.done

    async def read(self, run: str, after: int, limit: int = 256) -> Page:
        try:
            return await self._ring.read(run, after, limit)
        except (UnknownSession, EventsGone):
            return await self._fetch(run, after, limit)

    async def wait(self, run: str, after: int, timeout_s: float) -> None:
        if self._ring.keeps(run):
            await self._ring.wait(run, after, timeout_s)
        else:
            await self._watch(run, after, timeout_s)

    async def heartbeat(self) -> list[Header]:
        lost = await self._heartbeat()
        return [*lost, *self._unconfirmed.values()]

    def forget(self, run: str) -> None:
        self._ring.forget(run)
        for pause in self._pauses.pop(run, ()):
            if not pause.done():
                pause.set_result(None)

    async def sweep(self, older_than_s: float) -> int:
        await self._ring.sweep(older_than_s)
        return await self._drop(older_than_s)

    async def aclose(self) -> None:
        if self._writer is not None:
            await asyncio.wait((self._writer,))
        for run in list(self._pauses):
            self.forget(run)
        await self._ring.aclose()

    @abstractmethod
    async def _claim(self, header: Header, shared: bool) -> Header:
        """Do what `EventLog.open` does in the store."""

    @abstractmethod
    async def _write(self, batch: Sequence[Append]) -> Sequence[Written | AppError]:
        """Append a batch in its order; return the outcome of each."""

    @abstractmethod
    async def _fetch(self, run: str, after: int, limit: int) -> Page:
        """Do what `EventLog.read` does in the store."""

    @abstractmethod
    async def _watch(self, run: str, after: int, timeout_s: float) -> None:
        """Do what `EventLog.wait` does for a run that is not in the ring."""

    @abstractmethod
    async def _heartbeat(self) -> list[Header]:
        """Do what `EventLog.heartbeat` does in the store."""

    @abstractmethod
    async def _drop(self, older_than_s: float) -> int:
        """Do what `EventLog.sweep` does in the store."""

    async def _pause(self, run: str, for_s: float) -> bool:
        """Sleep for `for_s`; return True, and earlier, if the run is forgotten meanwhile."""
        pause: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pauses = self._pauses.setdefault(run, set())
        pauses.add(pause)
        try:
            await asyncio.wait((pause,), timeout=for_s)
            return pause.done()
        finally:
            pauses.discard(pause)
            if not pauses and self._pauses.get(run) is pauses:
                del self._pauses[run]

    async def _write_queue(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                await self._write_batch(batch)
        finally:
            self._writer = None

    async def _write_batch(self, batch: Sequence[Append]) -> None:
        outcomes: Sequence[Written | AppError]
        try:
            outcomes = await self._write(batch)
        except AppError as failure:
            outcomes = [failure] * len(batch)
        except Exception as defect:
            log.error("append_failed", error=type(defect).__name__)
            outcomes = [InternalError("the server failed to keep this session; ask again")] * len(
                batch
            )
        except asyncio.CancelledError:
            for job in (*batch, *self._queue):
                job.done.cancel()
            self._queue.clear()
            raise
        for job, outcome in zip(batch, outcomes, strict=True):
            if not isinstance(outcome, LogUnavailable):
                self._unconfirmed.pop(job.run, None)
            await self._update_ring(job, outcome)
            job.settle(outcome)

    async def _update_ring(self, job: Append, outcome: Written | AppError) -> None:
        """Give the ring what the store took; drop the run from it if the two then differ."""
        if not self._ring.keeps(job.run):
            return
        if isinstance(outcome, AppError):
            self.forget(job.run)
            return
        # If another process has ended the run, the store took nothing and has one event more.
        if outcome.taken:
            await self._ring.append(job.run, job.drafts)
        if self._ring.last_index(job.run) != outcome.last:
            self.forget(job.run)
