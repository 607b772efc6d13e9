"""One generation in a thread of its own, and the bridge from that thread to the event loop.

It iterates the model's text and knows neither the queue's order nor how a model is loaded.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace

import structlog

from app.core.errors import AppError, GenerationFailed
from app.engine.base import Finish, GenerateRequest, Item, Reasoning, Text, ToolCallPart
from app.engine.failures import as_app_error, raised_at
from app.engine.local.backend import ModelBackend
from app.engine.local.queue import Ticket
from app.engine.text.output_parser import OutputParser
from app.engine.text.pieces import TextChunk

log = structlog.get_logger(__name__)
_numbers = itertools.count(1)


class Run:
    """One generation in its thread, and the items it hands over to the event loop.

    The thread appends to a deque and wakes the loop; the loop takes all that is there at once.
    """

    def __init__(self, backend: ModelBackend, request: GenerateRequest, ticket: Ticket) -> None:
        self._backend = backend
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
        self._on_end: Callable[[Run], None] = _ignore
        self._thread = threading.Thread(
            target=self._work, name=f"generation-{next(_numbers)}", daemon=True
        )

    def start(self, *, on_end: Callable[[Run], None]) -> None:
        """Start the thread; `on_end` is called in it, last."""
        self._on_end = on_end
        try:
            self._thread.start()
        except RuntimeError as exc:
            self._finish()
            raise GenerationFailed("The server cannot start a thread: try again later.") from exc

    def cancel(self) -> None:
        """Stop the model within a token; callable from any thread."""
        self._stop.set()

    async def stop(self, timeout_s: float) -> None:
        """Stop the model, and wait until its thread has ended or the time is over."""
        self.cancel()
        ended = asyncio.Event()
        self._wakers.append((asyncio.get_running_loop(), ended))
        try:
            async with asyncio.timeout(timeout_s):
                # An event is set for every item too; only the end of the thread counts here.
                while not self._ended.is_set():
                    await ended.wait()
                    ended.clear()
                # The last steps take microseconds; nothing of the thread is left after this.
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
            # A loop that was closed waits for nothing.
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
        """Iterate the model's text to its end, or until the run is cancelled."""
        parser = OutputParser(self._request)
        pieces = 0
        source = iter(
            self._backend.stream_generation(
                self._request.messages,
                request=self._request,
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
                    logprobs = piece.logprobs if isinstance(piece, TextChunk) else ()
                    for item in parser.feed(piece, logprobs):
                        self._put(item)
        finally:
            # Any iterable of text may be the source; only a generator holds something.
            if isinstance(source, Generator):
                source.close()
        for item in parser.flush():
            self._put(item)
        end = end or Finish("cancelled", 0, pieces)
        if parser.called and end.reason == "stop":
            return replace(end, reason="tool_calls")
        return end

    def _finish(self) -> None:
        # The slot first: once the end is known, the slot is free.
        self._ticket.release()
        self._on_end(self)
        self._ended.set()
        self._notify()


def _joined(last: Item, item: Item) -> Item | None:
    """Return two neighbours as one item where they are of one kind; None otherwise."""
    if isinstance(item, Text) and isinstance(last, Text):
        return Text(last.text + item.text, last.logprobs + item.logprobs)
    if isinstance(item, Reasoning) and isinstance(last, Reasoning):
        return Reasoning(last.text + item.text)
    if not isinstance(item, ToolCallPart) or not isinstance(last, ToolCallPart):
        return None
    if item.id is not None or item.index != last.index:
        return None
    return replace(last, arguments=last.arguments + item.arguments)


def _ignore(run: Run) -> None:
    del run
