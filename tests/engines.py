"""Engines that do what a test scripts, through the public seam `create_app(settings, engine=…)`."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from app.core.errors import AppError, EngineUnavailable
from app.engine.base import Finish, Fitted, GenerateRequest, Item, Status, Text

SUMMARY = {
    "title": "Harbour bridge opens",
    "main_summary": "The bridge opened. It took four years and one budget.",
    "key_points": ["It opened on Monday", "It cost 12 million", "Two lanes are for bicycles"],
    "category": "Cities",
    "sentiment": "positive",
    "read_time_min": 1,
}
SUMMARY_TEXT = json.dumps(SUMMARY, separators=(",", ":"), ensure_ascii=False)
ARTICLE = "The harbour bridge opened on Monday after four years of work. " * 5


def pieces_of(text: str, size: int = 7) -> list[str]:
    """Cut a text into pieces of `size` characters."""
    return [text[i : i + size] for i in range(0, len(text), size)]


class Gate:
    """Opened from any thread, awaited in any loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = False
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def open(self) -> None:
        with self._lock:
            self._open = True
            for loop, waiter in self._waiters:
                loop.call_soon_threadsafe(lambda w=waiter: w.done() or w.set_result(None))
            self._waiters.clear()

    async def passed(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._open:
                return
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.append((loop, waiter))
        await waiter


class ScriptedEngine:
    """Yields its script: items as they are, gates waited for, exceptions raised."""

    name = "scripted"
    model = "script-1"

    def __init__(
        self,
        script: Sequence[str | Item | Gate | Exception] | None = None,
        *,
        out_of_order: str | None = None,
    ) -> None:
        self.script = list(pieces_of(SUMMARY_TEXT) if script is None else script)
        self.requests: list[GenerateRequest] = []
        self.running = 0
        self.prepared = False
        self.fit_error: AppError | None = None
        self.closed_early = threading.Event()
        self._out_of_order = out_of_order

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        self.requests.append(request)
        self.running += 1
        tokens = 0
        finished = False
        try:
            for step in self.script:
                if isinstance(step, Gate):
                    await step.passed()
                elif isinstance(step, Exception):
                    raise step
                elif isinstance(step, str):
                    tokens += 1
                    yield Text(step)
                else:
                    yield step
            finished = True
            yield Finish("stop", 100, tokens)
        finally:
            self.running -= 1
            if not finished:
                self.closed_early.set()

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        if self.fit_error is not None:
            raise self.fit_error
        return Fitted(request)

    def facts(self) -> dict[str, str]:
        return {}

    def info(self) -> dict[str, Any]:
        return {"model_id": self.model, "loaded": True}

    async def unavailable(self) -> EngineUnavailable | None:
        return EngineUnavailable(self._out_of_order) if self._out_of_order else None

    async def prepare(self) -> None:
        self.prepared = True

    async def load(self) -> None:
        """Nothing to load."""

    async def maintain(self) -> None:
        """Nothing is to be done."""

    async def aclose(self) -> None:
        """Nothing is held."""


def slow_script(gate: Gate, *, before: int = 5) -> list[str | Item | Gate | Exception]:
    """The usual summary, with a gate after `before` pieces."""
    pieces = pieces_of(SUMMARY_TEXT)
    return [Status("writing"), *pieces[:before], gate, *pieces[before:]]
