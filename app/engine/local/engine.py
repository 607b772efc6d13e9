"""The engine that runs a model in this process: a queue in front, a thread for each generation.

It knows the model as a `ModelBackend`, and neither torch nor transformers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from app.core.errors import EngineUnavailable
from app.engine.base import Fitted, GenerateRequest, Item, Status
from app.engine.local.backend import ModelBackend
from app.engine.local.preflight import check_images
from app.engine.local.queue import GenerationQueue
from app.engine.local.run import Run

STOP_TIMEOUT_S = 30.0
IDLE_CHECKS = 4


class LocalEngine:
    """`slots` generations at once, `max_waiting` more in line, clients in turn (C25, C34)."""

    name = "local"

    def __init__(
        self,
        backend: ModelBackend,
        *,
        slots: int = 1,
        max_waiting: int = 64,
        stop_timeout_s: float = STOP_TIMEOUT_S,
        idle_unload_s: float | None = None,
        forget_interval_s: float | None = None,
    ) -> None:
        """Load nothing yet.

        `idle_unload_s`: after so long without use the weights are let go; None for never.
        `forget_interval_s`: how often what is kept of ended requests is looked through for what
        has expired; None for never.
        """
        self._backend = backend
        self._idle_unload_s = idle_unload_s
        self._forget_interval_s = forget_interval_s
        self._stop_timeout_s = stop_timeout_s
        self._queue = GenerationQueue(slots, max_waiting)
        self._runs: set[Run] = set()

    @property
    def model(self) -> str:
        """Which model this is."""
        return self._backend.model_id()

    def facts(self) -> dict[str, str]:
        """Return the weight format and why it was chosen, once that is known (C12)."""
        info = self._backend.info()
        facts = {"weights": info.get("weights"), "weights_reason": info.get("reason")}
        return {name: value for name, value in facts.items() if value}

    def info(self) -> dict[str, Any]:
        """Return what is loaded and why."""
        return self._backend.info()

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        """Check what can be checked without weights, and make the prompt fit the context.

        Raises:
            Unsupported: `context_length_exceeded`, or a field that cannot be honoured.
            EngineUnavailable: the model cannot serve now.
        """
        return await asyncio.to_thread(self._backend.fit, request, may_drop=may_drop)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield the output; closing the generator stops the model within a token.

        The slot is free for the next one when the model's thread has ended, not before.

        Raises:
            Overloaded: the line is full.
            Unsupported, EngineUnavailable: before the first `Text`.
            GenerationFailed: at any time later.
        """
        check_images(request, reads_images=self._backend.reads_images)
        ticket = self._queue.enter()
        run: Run | None = None
        try:
            while (position := await ticket.next_position()) is not None:
                yield Status("queued", position=position)
            run = Run(self._backend, request, ticket)
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
        return await asyncio.to_thread(self._backend.unavailable)

    async def prepare(self) -> None:
        """Start the download of a model that is missing; do not wait for it."""
        await asyncio.to_thread(self._backend.prepare)

    async def load(self) -> None:
        """Load the weights, unless they are loaded.

        Raises:
            EngineUnavailable: the model cannot be loaded, or is being downloaded.
        """
        await asyncio.to_thread(self._backend.get_model)

    async def maintain(self) -> None:
        """Let go what is kept for too long, the unused model too; until cancelled."""
        async with asyncio.TaskGroup() as group:
            if self._forget_interval_s:
                group.create_task(self._forget_expired(self._forget_interval_s))
            if self._idle_unload_s:
                group.create_task(self._unload_when_idle(self._idle_unload_s))

    async def _forget_expired(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            # In a thread: giving a gigabyte back takes tenths of a second.
            await asyncio.to_thread(self._backend.forget_expired)

    async def _unload_when_idle(self, idle_s: float) -> None:
        while True:
            await asyncio.sleep(idle_s / IDLE_CHECKS)
            await asyncio.to_thread(self._backend.unload_if_idle, idle_s)

    async def aclose(self) -> None:
        """Stop every generation and wait, not for ever, until their threads have ended."""
        runs = tuple(self._runs)
        for run in runs:
            run.cancel()
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(run.stop(self._stop_timeout_s))
