"""Writes articles: runs the flow of steps.py on one engine, and yields what its steps send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pocketflow import AsyncFlow  # type: ignore[import-untyped, unused-ignore]

from app.core.errors import EngineUnavailable, Overloaded, Unsupported
from app.engine.base import Engine, require_engine
from app.services.articles.prompts import outline_prompt
from app.services.articles.steps import OUTLINE_TOKENS, Content, Outline, Queue, Store, Style
from app.services.call_llm import call_llm, llm_request
from app.stream.event import Draft

# An engine that is full says when to come back; a job has the time.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
LONGEST_PAUSE_S = 30.0

HINT = (
    "Articles need a language model: set ENGINE_URL to a server that has one, or MODEL_REPO_ID / "
    "V4_MODEL_ID to a model on this machine."
)


class ArticleWriter:
    """Writes articles on one engine, with at most `max_calls` calls of it under way at once.

    `flow` runs on a shared store that has `topic` and `sse_queue`, any number of them at once.
    """

    def __init__(
        self, engine: Engine, *, max_calls: int = 1, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        """Begin; `pauses_s`: how long a call waits, at least, before each further try."""
        self._pauses_s = pauses_s
        self._engine = engine
        self._turns = asyncio.Semaphore(max_calls)
        outline = Outline(self._call)
        _ = outline >> Content(self._call) >> Style(self._call)
        self.flow = AsyncFlow(start=outline)

    async def accept(self, topic: str) -> None:
        """Refuse before any work what this engine cannot write; a missing model begins to load.

        Raises:
            EngineUnavailable: it cannot serve now, or is no language model.
        """
        try:
            await require_engine(self._engine)
            # Without the schema: an engine that has no grammar may still write YAML.
            await self._engine.fit(llm_request(outline_prompt(topic), max_tokens=OUTLINE_TOKENS))
        except EngineUnavailable as error:
            raise _with_hint(error) from error
        except Unsupported as error:
            raise _with_hint(EngineUnavailable(error.message)) from error

    async def write(self, topic: str) -> AsyncGenerator[Draft, None]:
        """Yield what the steps send; closing the generator stops the engine.

        Raises:
            AppError: as the engine does, or `invalid_output` for answers of no use.
        """
        queue: Queue = asyncio.Queue()
        store: Store = {"topic": topic, "sse_queue": queue}
        closed: GeneratorExit | None = None
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            flow = group.create_task(self._run(store, queue))
            try:
                while True:
                    sent = await queue.get()
                    if isinstance(sent, Exception):
                        failure = sent
                        break
                    yield sent
                    if sent.terminal:
                        break
            except GeneratorExit as leaving:
                # A group that is left by an exception raises a group of exceptions.
                closed = leaving
            finally:
                flow.cancel()
        if closed is not None:
            raise closed
        if failure is not None:
            raise failure

    async def _run(self, store: Store, queue: Queue) -> None:
        """Run the flow; its failure goes the way of everything that its steps send."""
        try:
            await self.flow.run_async(store)
        except Exception as failure:
            queue.put_nowait(failure)

    async def _call(self, prompt: str, *, max_tokens: int, **options: Any) -> str:
        """Call the model in turn; a full engine is tried again, since a job has the time."""
        for pause_s in self._pauses_s:
            try:
                return await self._call_once(prompt, max_tokens=max_tokens, **options)
            except Overloaded as full:
                await asyncio.sleep(max(pause_s, min(full.retry_after_s or 0, LONGEST_PAUSE_S)))
        return await self._call_once(prompt, max_tokens=max_tokens, **options)

    async def _call_once(self, prompt: str, *, max_tokens: int, **options: Any) -> str:
        async with self._turns:
            return await call_llm(self._engine, prompt, max_tokens=max_tokens, **options)


def _with_hint(error: EngineUnavailable) -> EngineUnavailable:
    """Return the error with how to get a model."""
    reason = error.message.rstrip()
    return error.copy(f"{reason}{'' if reason.endswith('.') else '.'} {HINT}")
