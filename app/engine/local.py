"""The engine that runs a model in this process: a queue, a thread, and a bridge to the event loop.

It knows the loader only as a class with three methods, and neither torch nor transformers.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from app.core.errors import AppError, EngineUnavailable, GenerationFailed, Unsupported
from app.engine.base import Finish, GenerateRequest, Item, Message, Status, Text
from app.engine.failures import as_app_error, raised_at
from app.engine.queue import GenerationQueue, Ticket

STOP_TIMEOUT_S = 30.0

log = structlog.get_logger(__name__)
_numbers = itertools.count(1)


class Loader(Protocol):
    """What loads the model and runs it: `ModelServiceV4`, the class itself.

    `stream_generation` is called in a thread and returns any iterable of text; if that is a
    generator which returns a `Finish`, its counts are used.
    """

    def stream_generation(
        self,
        prompt: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int | None,
        stop: Sequence[str],
        json_schema: Mapping[str, Any] | None,
        stop_event: threading.Event,
        on_status: Callable[[Status], None],
    ) -> Iterable[str]: ...

    def unavailable(self) -> EngineUnavailable | None: ...

    def model_id(self) -> str: ...

    def info(self) -> dict[str, Any]: ...

    def prepare(self) -> None: ...


class LocalEngine:
    """`slots` generations at once, `max_waiting` more in line, in order of arrival (C25)."""

    name = "local"

    def __init__(
        self,
        loader: Loader,
        *,
        slots: int = 1,
        max_waiting: int = 64,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self._loader = loader
        self._stop_timeout_s = stop_timeout_s
        self._queue = GenerationQueue(slots, max_waiting)
        self._runs: set[_Run] = set()

    @property
    def model(self) -> str:
        """Which model the loader holds."""
        return self._loader.model_id()

    def facts(self) -> dict[str, str]:
        """Return the weight format and why it was chosen, once that is known (C12)."""
        info = self._loader.info()
        facts = {"weights": info.get("weights"), "weights_reason": info.get("reason")}
        return {name: value for name, value in facts.items() if value}

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield the output; closing the generator stops the model within a token.

        The slot is free for the next one when the model's thread has ended, not before.

        Raises:
            Overloaded: the line is full.
            Unsupported, EngineUnavailable: before the first `Text`.
            GenerationFailed: at any time later.
        """
        if request.images:
            raise Unsupported(
                "This model reads no images: set VISION_MODEL_ID to a model of the VISION role."
            )
        ticket = self._queue.enter()
        run: _Run | None = None
        try:
            while (position := await ticket.next_position()) is not None:
                yield Status("queued", position=position)
            run = _Run(self._loader, request, ticket)
            self._runs.add(run)
            run.start(on_end=self._runs.discard)
            while (items := await run.take()) is not None:
                for item in items:
                    yield item
        finally:
            if run is None:
                ticket.release()
            else:
                await run.stop(self._stop_timeout_s)

    async def unavailable(self) -> EngineUnavailable | None:
        """Return why the model could not serve now, or None; never loads anything."""
        return await asyncio.to_thread(self._loader.unavailable)

    async def prepare(self) -> None:
        """Start the download of a model that is missing; do not wait for it."""
        await asyncio.to_thread(self._loader.prepare)

    async def aclose(self) -> None:
        """Stop every generation and wait, not for ever, until their threads have ended."""
        runs = tuple(self._runs)
        for run in runs:
            run.cancel()
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(run.stop(self._stop_timeout_s))


class _Run:
    """One generation in its thread, and the items it hands over to the event loop.

    The thread appends to a deque and wakes the loop; the loop takes all that is there at once.
    """

    def __init__(self, loader: Loader, request: GenerateRequest, ticket: Ticket) -> None:
        self._loader = loader
        self._request = request
        self._ticket = ticket
        self._stop = threading.Event()
        self._items: deque[Item] = deque()
        self._error: AppError | None = None
        self._ended = threading.Event()
        self._wake = asyncio.Event()
        self._wakers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = [
            (asyncio.get_running_loop(), self._wake)
        ]
        self._on_end: Callable[[_Run], None] = _ignore
        self._thread = threading.Thread(
            target=self._work, name=f"generation-{next(_numbers)}", daemon=True
        )

    def start(self, *, on_end: Callable[[_Run], None]) -> None:
        """Start the thread; `on_end` is called in it, last."""
        self._on_end = on_end
        try:
            self._thread.start()
        except RuntimeError as exc:
            self._finish()
            raise GenerationFailed("The server cannot start a thread: try again later.") from exc

    def cancel(self) -> None:
        """Ask the model to stop; callable from any thread."""
        self._stop.set()

    async def stop(self, timeout_s: float) -> None:
        """Ask the model to stop, and wait until its thread is done or the time is over."""
        self.cancel()
        ended = asyncio.Event()
        self._wakers.append((asyncio.get_running_loop(), ended))
        try:
            async with asyncio.timeout(timeout_s):
                # An event is set for every item too; only the end of the thread counts here.
                while not self._ended.is_set():
                    await ended.wait()
                    ended.clear()
        except TimeoutError:
            log.warning("generation_still_stopping", thread=self._thread.name)

    async def take(self) -> list[Item] | None:
        """Wait, then return all that is ready, adjacent texts joined; None when the run is over.

        Raises:
            AppError: what ended the run, after everything before it was taken.
        """
        while not self._items and not self._ended.is_set():
            await self._wake.wait()
            self._wake.clear()
        ready: list[Item] = []
        while self._items:
            item = self._items.popleft()
            last = ready[-1] if ready else None
            if isinstance(item, Text) and isinstance(last, Text):
                ready[-1] = Text(last.text + item.text)
            else:
                ready.append(item)
        if ready:
            return ready
        if self._error is not None:
            raise self._error
        return None

    def _put(self, item: Item) -> None:
        self._items.append(item)
        self._notify()

    def _notify(self) -> None:
        for loop, event in tuple(self._wakers):
            # A loop that was closed has nobody left to wake.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

    def _work(self) -> None:
        try:
            self._put(self._run())
        except BaseException as exc:
            if not isinstance(exc, AppError):
                log.error("generation_failed", error=type(exc).__name__, where=raised_at(exc))
            self._error = as_app_error(exc)
        finally:
            self._finish()

    def _run(self) -> Finish:
        """Iterate the loader's text to its end, or until somebody cancels."""
        request = self._request
        pieces = 0
        source = iter(
            self._loader.stream_generation(
                request.messages,
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                top_p=request.top_p,
                seed=request.seed,
                stop=request.stop,
                json_schema=request.json_schema,
                stop_event=self._stop,
                on_status=self._put,
            )
        )
        try:
            while not self._stop.is_set():
                try:
                    piece = next(source)
                except StopIteration as end:
                    if isinstance(end.value, Finish):
                        return end.value
                    return Finish("stop", 0, pieces)
                if piece:
                    pieces += 1
                    self._put(Text(piece))
        finally:
            _close(source)
        return Finish("cancelled", 0, pieces)

    def _finish(self) -> None:
        # The slot first: whoever learns of the end may rely on the slot being free.
        self._ticket.release()
        self._on_end(self)
        self._ended.set()
        self._notify()


def _ignore(run: _Run) -> None:
    del run


def _close(source: Iterator[str]) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()
