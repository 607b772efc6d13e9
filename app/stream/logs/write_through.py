"""The part that all durable logs share: a store first, then a ring of the runs of this process.

An event becomes visible once the store has it, so nothing that a client was sent is lost with the
process. Which store that is, and how it speaks, is not known here.
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

# The store keeps ended runs; the ring only spares those who come right after the end the way there.
RINGED_ENDED_RUNS = 256
# Requests go on failing as long as the store is away.
DOUBTFUL_RUNS = 1024


@dataclass(frozen=True, slots=True)
class Packed:
    """A draft as a store keeps it; `data` is JSON in UTF-8."""

    kind: str
    data: bytes
    terminal: bool


@dataclass(frozen=True, slots=True)
class Written:
    """What the store made of an append: the run's last index, and whether it took anything."""

    last: int
    taken: bool


@dataclass(frozen=True, slots=True)
class Append:
    """Drafts of one run on their way into the store; `done` becomes the last index."""

    run: str
    drafts: Sequence[Draft]
    packed: Sequence[Packed]
    done: asyncio.Future[int]

    def settle(self, outcome: Written | AppError) -> None:
        """Give the outcome to whoever still waits for it."""
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

    Appends of all runs that come while the store is busy go there together, next. A run leaves the
    ring when the store fails, or has other events than the ring: its readers go to the store then.
    """

    def __init__(self) -> None:
        self._ring = MemoryLog(kept_ended_runs=RINGED_ENDED_RUNS)
        self._queue: list[Append] = []
        self._writer: asyncio.Future[None] | None = None
        self._pauses: dict[str, set[asyncio.Future[None]]] = {}
        # Runs whose opening got no answer: the store may have them, with nobody who runs them.
        self._doubtful: dict[str, Header] = {}

    async def open(self, header: Header, *, shared: bool = False) -> Header:
        try:
            held = await self._claim(header, shared)
        except LogUnavailable:
            self._doubtful[header.run] = header
            if len(self._doubtful) > DOUBTFUL_RUNS:
                del self._doubtful[next(iter(self._doubtful))]
            raise
        if held.run == header.run:
            self._ring.begin(header)
        return held

    async def append(self, run: str, drafts: Sequence[Draft]) -> int:
        packed = [Packed(d.kind, pack(d.data), d.terminal) for d in drafts]
        job = Append(run, tuple(drafts), packed, asyncio.get_running_loop().create_future())
        self._queue.append(job)
        if self._writer is None:
            # Not awaited by whoever started it: the events of others must not be lost when the
            # session that came first is cancelled.
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
        return [*lost, *self._doubtful.values()]

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
        """Do what `open` says in the store."""

    @abstractmethod
    async def _write(self, batch: Sequence[Append]) -> Sequence[Written | AppError]:
        """Append a batch in its order; say what became of each."""

    @abstractmethod
    async def _fetch(self, run: str, after: int, limit: int) -> Page:
        """Do what `read` says in the store."""

    @abstractmethod
    async def _watch(self, run: str, after: int, timeout_s: float) -> None:
        """Do what `wait` says for a run that is not in the ring."""

    @abstractmethod
    async def _heartbeat(self) -> list[Header]:
        """Do what `heartbeat` says in the store."""

    @abstractmethod
    async def _drop(self, older_than_s: float) -> int:
        """Do what `sweep` says in the store."""

    async def _pause(self, run: str, for_s: float) -> bool:
        """Sleep so long; True, and earlier, when the run is forgotten meanwhile."""
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
                self._doubtful.pop(job.run, None)
            await self._show(job, outcome)
            job.settle(outcome)

    async def _show(self, job: Append, outcome: Written | AppError) -> None:
        """Bring the ring up to what the store has, or drop the run there."""
        if not self._ring.keeps(job.run):
            return
        if isinstance(outcome, AppError):
            self.forget(job.run)
            return
        # Another process may have ended the run: the store then took nothing and has more.
        if outcome.taken:
            await self._ring.append(job.run, job.drafts)
        if self._ring.last_index(job.run) != outcome.last:
            self.forget(job.run)
