"""The engine that runs a model in this process: a queue, a thread, and a bridge to the event loop.

It knows the loader only as a class with a few methods, and neither torch nor transformers.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import structlog

from app.core.errors import AppError, EngineUnavailable, GenerationFailed, Unsupported
from app.engine.base import (
    Finish,
    Fitted,
    GenerateRequest,
    Item,
    Reasoning,
    Status,
    Text,
    ToolCallPart,
)
from app.engine.failures import as_app_error, raised_at
from app.engine.local.backend import ModelBackend, options_of
from app.engine.local.queue import GenerationQueue, Ticket
from app.engine.text.output_parser import OutputParser

STOP_TIMEOUT_S = 30.0
IDLE_CHECKS = 4

log = structlog.get_logger(__name__)
_numbers = itertools.count(1)


class LocalEngine:
    """`slots` generations at once, `max_waiting` more in line, in order of arrival (C25)."""

    name = "local"

    def __init__(
        self,
        loader: ModelBackend,
        *,
        slots: int = 1,
        max_waiting: int = 64,
        stop_timeout_s: float = STOP_TIMEOUT_S,
        idle_unload_s: float | None = None,
    ) -> None:
        """Run the loader's model; after `idle_unload_s` without use its weights are let go."""
        self._loader = loader
        self._idle_unload_s = idle_unload_s
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

    def info(self) -> dict[str, Any]:
        """Return what is loaded and why, as the loader says it."""
        return self._loader.info()

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        """Check what can be checked without weights, and make the prompt fit the context.

        Raises:
            Unsupported: `context_length_exceeded`, or a field that cannot be honoured.
            EngineUnavailable: the model cannot serve now.
        """
        self._refuse_images(request)
        if not hasattr(self._loader, "fit"):
            return Fitted(request)
        return await asyncio.to_thread(self._loader.fit, request, may_drop=may_drop)

    def _refuse_images(self, request: GenerateRequest) -> None:
        if request.images and not getattr(self._loader, "reads_images", False):
            raise Unsupported(
                "This model reads no images: set VISION_MODEL_ID to a model of the VISION role.",
                param="messages",
            )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield the output; closing the generator stops the model within a token.

        The slot is free for the next one when the model's thread has ended, not before.

        Raises:
            Overloaded: the line is full.
            Unsupported, EngineUnavailable: before the first `Text`.
            GenerationFailed: at any time later.
        """
        self._refuse_images(request)
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

    async def maintain(self) -> None:
        """Let the model go whenever nobody used it for `idle_unload_s`; until cancelled."""
        idle_s = self._idle_unload_s
        if not idle_s:
            return
        while True:
            await asyncio.sleep(idle_s / IDLE_CHECKS)
            await asyncio.to_thread(self._loader.unload_if_idle, idle_s)

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

    def __init__(self, loader: ModelBackend, request: GenerateRequest, ticket: Ticket) -> None:
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
                # Its last steps take microseconds, and whoever looks for threads finds none.
                if self._thread.ident is not None:
                    await asyncio.to_thread(self._thread.join)
        except TimeoutError:
            log.warning("generation_still_stopping", thread=self._thread.name)

    async def take(self) -> list[Item] | None:
        """Wait, then return all that is ready, neighbours joined; None when the run is over.

        Raises:
            AppError: what ended the run, after everything before it was taken.
        """
        while not self._items and not self._ended.is_set():
            await self._wake.wait()
            self._wake.clear()
        ready: list[Item] = []
        while self._items:
            item = self._items.popleft()
            joined = _joined(ready[-1], item) if ready else None
            if joined is not None:
                ready[-1] = joined
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
        parser = OutputParser(self._request)
        pieces = 0
        source = iter(
            self._loader.stream_generation(
                self._request.messages,
                **options_of(self._request),
                stop_event=self._stop,
                on_status=self._put,
            )
        )
        end: Finish | None = None
        try:
            while not self._stop.is_set():
                try:
                    piece = next(source)
                except StopIteration as stopped:
                    own = stopped.value
                    end = own if isinstance(own, Finish) else Finish("stop", 0, pieces)
                    break
                if piece:
                    pieces += 1
                    for item in parser.feed(piece, getattr(piece, "logprobs", ())):
                        self._put(item)
        finally:
            _close(source)
        for item in parser.flush():
            self._put(item)
        end = end or Finish("cancelled", 0, pieces)
        if parser.called and end.reason == "stop":
            return replace(end, reason="tool_calls")
        return end

    def _finish(self) -> None:
        # The slot first: whoever learns of the end may rely on the slot being free.
        self._ticket.release()
        self._on_end(self)
        self._ended.set()
        self._notify()


def _joined(last: Item, item: Item) -> Item | None:
    """Return two neighbours as one, where that is the same thing said at once."""
    if isinstance(item, Text) and isinstance(last, Text):
        return Text(last.text + item.text, last.logprobs + item.logprobs)
    if isinstance(item, Reasoning) and isinstance(last, Reasoning):
        return Reasoning(last.text + item.text)
    if not isinstance(item, ToolCallPart) or not isinstance(last, ToolCallPart):
        return None
    if item.id is not None or item.index != last.index:
        return None
    return replace(last, arguments=last.arguments + item.arguments)


def _ignore(run: _Run) -> None:
    del run


def _close(source: Iterator[str]) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()
