"""The two wire forms of a V4 summary: the object's own text, and patches of its fields."""

from __future__ import annotations

import operator
import time
from collections.abc import AsyncGenerator
from typing import Any

from app.api.summaries import SummaryRequest, metadata
from app.core.errors import AppError
from app.services.summaries.patches import SummaryPatches
from app.services.summaries.sources import Source
from app.stream.coalesce import Coalescer
from app.stream.event import Draft, Event

# The names of these wire forms among the kinds of sessions.
TEXT = "v4-text"
PATCHES = "v4-patches"

Drafts = AsyncGenerator[Draft, None]


async def text_events(request: SummaryRequest, source: Source, drafts: Drafts) -> Drafts:
    """`/stream`: unnamed events join to the JSON document, named ones are extra."""
    first_token_ms: float | None = None
    writer: dict[str, Any] = {}
    text: Coalescer[str] = Coalescer(operator.add)
    if not request.include_metadata:
        # The response begins with the first event, and the model may take long for its own.
        yield Draft("status", {"stage": "scraping", "progress": 1})
    async for draft in drafts:
        match draft.kind, draft.data:
            case "engine", dict(data):
                writer = data
                if request.include_metadata:
                    yield Draft("metadata", metadata(request, source, writer))
            case "status", data:
                yield Draft("status", data)
            case "text", str(data):
                first_token_ms = request.elapsed_ms() if first_token_ms is None else first_token_ms
                for ready in text.feed(data):
                    yield Draft("", ready)
            case "finish", dict(data):
                for ready in text.flush():
                    yield Draft("", ready)
                timings = {
                    "scrape_ms": source.scrape_ms,
                    "queue_ms": data["queue_ms"],
                    "first_token_ms": first_token_ms,
                    "total_ms": request.elapsed_ms(),
                }
                result = {"summary": data["summary"], "usage": data["usage"], "timings": timings}
                result |= {"engine": writer["engine"], "model": writer["model"]}
                yield Draft("result", result, terminal=True)


def text_failure(error: AppError, last: Event | None = None) -> Draft:
    """The terminal event of a `/stream` that failed."""
    return Draft("error", {"error": error.message, "code": error.code, "done": True}, terminal=True)


async def patch_events(request: SummaryRequest, source: Source, drafts: Drafts) -> Drafts:
    """`/stream-ndjson`: every field when it is complete, the summary also while it is typed."""
    patches = SummaryPatches()
    pieces = 0
    async for draft in drafts:
        match draft.kind, draft.data:
            case "engine", dict(writer):
                if request.include_metadata:
                    yield Draft("", metadata(request, source, writer))
            case "status", dict(status) if request.include_status:
                yield Draft("", {"type": "status", "data": status})
            case "text", str(piece):
                pieces += 1
                for delta, state in patches.feed(piece, time.monotonic()):
                    yield _patch(delta, state, pieces)
            case "finish", dict(data):
                tokens = max(pieces, data["usage"]["completion_tokens"])
                for delta, state in patches.complete(data["summary"]):
                    yield _patch(delta, state, tokens)
                last = {"delta": {"op": "done"}, "state": data["summary"], "done": True}
                last |= {"tokens_used": tokens, "latency_ms": request.elapsed_ms()}
                yield Draft("", last, terminal=True)


def patch_failure(error: AppError, last: Event | None = None) -> Draft:
    """The terminal event of a `/stream-ndjson` that failed; the only one with `error` (A2)."""
    data = {"delta": None, "state": None, "done": True, "tokens_used": 0, "error": error.message}
    return Draft("", data, terminal=True)


def _patch(delta: dict[str, Any], state: dict[str, Any], tokens: int) -> Draft:
    return Draft("", {"delta": delta, "state": state, "done": False, "tokens_used": tokens})
