"""Summaries: one generation for all who ask for the same, from the best engine that can serve.

Yields neutral drafts, which each endpoint puts into its own wire form:

    engine  {"engine", "model", "weights"?, "engine_reason"?, "cached"?}  who writes, comes first
    status  {"stage", "position"?, "progress"?}
    text    a piece of the output, compact JSON or prose
    finish  {"summary"?, "usage", "finish_reason", "queue_ms"}  terminal
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from cachetools import TTLCache
from pydantic import ValidationError

from app.core.errors import AppError, EngineUnavailable, GenerationFailed
from app.engine.base import Engine, Finish, GenerateRequest, Status, Text, require_engine
from app.engine.text.compact_json import CompactJson
from app.engine.text.sentences import has_few_sentences, read_time_min
from app.schemas.summary_v4 import PROSE, StructuredSummary, summary_schema
from app.services.summaries.prompts import prose_prompt, summary_prompt
from app.services.summaries.sources import Source
from app.stream.event import Draft, Event
from app.stream.logs.memory import MemoryLog
from app.stream.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryTask:
    """What to write. `instruction` makes it prose; without one it is the structured object."""

    source: Source
    max_tokens: int
    style: str = "executive"
    instruction: str | None = None
    temperature: float = 0.2
    top_p: float = 1.0
    use_cache: bool = True

    def request(self) -> GenerateRequest:
        """Return what an engine is asked."""
        document = self.source.document
        if self.instruction is None:
            messages = summary_prompt(document, self.style)
            schema = summary_schema(
                read_time_min(document.text),
                short=has_few_sentences(document.text, document.language),
            )
        else:
            messages = prose_prompt(document, self.instruction)
            schema = None
        return GenerateRequest(
            messages=messages,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            json_schema=schema,
            document=document,
            style=self.style,
            prose=() if schema is None else PROSE,
        )

    def key(self, engine: Engine) -> str:
        """Return what makes two tasks the same: content, style, model, budget and sampling."""
        parts = (asdict(self.source.document), self.max_tokens, self.style, self.instruction)
        parts += (self.temperature, self.top_p, engine.name, engine.model)  # type: ignore[assignment]
        return hashlib.sha256(repr(parts).encode()).hexdigest()


class Summarizer:
    """Runs tasks on `engine`; on `fallback` when the engine is unavailable and there is one."""

    def __init__(
        self,
        engine: Engine,
        fallback: Engine | None = None,
        *,
        cache_ttl_s: float = 3600.0,
        cache_size: int = 256,
    ) -> None:
        self._engine = engine
        self._fallback = fallback
        self._finished: TTLCache[str, list[Draft]] = TTLCache(max(cache_size, 1), cache_ttl_s)
        self._keeps = cache_size > 0 and cache_ttl_s > 0
        # Generations are sessions too, without a client: whoever asks follows one, and the last
        # to leave ends it.
        self._generations = Sessions(MemoryLog(), endings={"summary": _failure}, ttl_s=60.0)

    async def require_engine(self) -> None:
        """Refuse before any work when nothing could answer (C19).

        Raises:
            EngineUnavailable: the engine cannot serve and there is no fallback.
        """
        if self._fallback is None:
            await require_engine(self._engine)

    async def summarize(self, task: SummaryTask) -> AsyncGenerator[Draft, None]:
        """Yield the drafts of a finished, a running or a new generation of this task.

        Raises:
            EngineUnavailable, Overloaded, GenerationFailed: as the engine does.
        """
        key = task.key(self._engine)
        if task.use_cache and (kept := await self._kept(key)):
            for draft in kept:
                yield draft
            return
        header = await self._generations.start(
            "summary", lambda: self._run(task, key), fingerprint=key, linger_s=0.0
        )
        try:
            async with aclosing(self._generations.follow(header)) as events:
                async for event in events:
                    if event.kind == "error":
                        assert isinstance(event.data, dict)  # noqa: S101  (see _failure)
                        raise AppError.from_dict(event.data)
                    yield Draft(event.kind, event.data, event.terminal)
        finally:
            # The caller's place stays taken until the model has really stopped.
            await self._generations.wait_stopped(header)

    async def sweep(self) -> None:
        """Forget generations that everybody has read."""
        await self._generations.sweep()

    async def aclose(self) -> None:
        """End what runs."""
        await self._generations.aclose()

    def _keep(self, key: str, drafts: list[Draft]) -> None:
        finish = drafts[-1].data
        if isinstance(finish, dict) and finish["finish_reason"] != "cancelled":
            self._finished[key] = drafts

    async def _kept(self, key: str) -> list[Draft] | None:
        kept = self._finished.get(key)
        if kept is None:
            return None
        writer = kept[0].data
        assert isinstance(writer, dict)  # noqa: S101  (_run keeps the engine draft first)
        # What the fallback wrote stands in only as long as the engine cannot do better.
        if "engine_reason" in writer and await self._engine.unavailable() is None:
            return None
        return [Draft("engine", {**writer, "cached": True}), *kept[1:]]

    async def _run(self, task: SummaryTask, key: str) -> AsyncGenerator[Draft, None]:
        request = task.request()
        reason = None
        for engine in (self._engine, self._fallback):
            if engine is None:
                break
            kept: list[Draft] = []
            try:
                async with aclosing(_generate(engine, request, reason)) as drafts:
                    async for draft in drafts:
                        if draft.kind != "status":
                            kept.append(draft)
                        if draft.terminal and self._keeps and task.use_cache:
                            self._keep(key, kept)
                        yield draft
                return
            except EngineUnavailable as error:
                if self._fallback is None or engine is self._fallback:
                    raise
                reason = error.message


async def _generate(
    engine: Engine, request: GenerateRequest, reason: str | None
) -> AsyncGenerator[Draft, None]:
    started_s = time.perf_counter()
    queue_ms: float | None = None
    compact = CompactJson() if request.json_schema is not None else None
    written: list[str] = []
    announced = False
    async with aclosing(engine.generate(request)) as items:
        async for item in items:
            if not announced:
                announced = True
                writer = {"engine": engine.name, "model": engine.model, **engine.facts()}
                if reason is not None:
                    writer["engine_reason"] = reason
                yield Draft("engine", writer)
            if queue_ms is None and not (isinstance(item, Status) and item.stage == "queued"):
                queue_ms = round((time.perf_counter() - started_s) * 1000, 2)
            match item:
                case Status():
                    known = {k: v for k, v in asdict(item).items() if v is not None}
                    yield Draft("status", known)
                case Text(text):
                    piece = compact.feed(text) if compact else text
                    if piece:
                        written.append(piece)
                        yield Draft("text", piece)
                case Finish():
                    yield Draft("finish", _finish(item, compact, written, queue_ms), terminal=True)


def _finish(
    item: Finish, compact: CompactJson | None, written: list[str], queue_ms: float | None
) -> dict[str, Any]:
    text = "".join(written)
    data: dict[str, Any] = {
        "usage": {
            "prompt_tokens": item.prompt_tokens,
            "completion_tokens": item.completion_tokens,
            "total_tokens": item.prompt_tokens + item.completion_tokens,
        },
        "finish_reason": item.reason,
        "queue_ms": queue_ms or 0.0,
    }
    if compact is not None:
        try:
            summary = StructuredSummary.model_validate_json(text)
        except ValidationError as exc:
            raise GenerationFailed(
                "the model's answer is not a complete summary; try again", code="invalid_output"
            ) from exc
        data["summary"] = summary.model_dump(mode="json")
    elif not text.strip():
        raise GenerationFailed("the model answered nothing; try again", code="invalid_output")
    return data


def _failure(error: AppError, last: Event | None) -> Draft:
    return Draft("error", error.to_dict(), terminal=True)
