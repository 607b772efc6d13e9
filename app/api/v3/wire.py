"""The wire form of a V3 summary: prose in pieces."""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator

from app.api.summaries import SummaryRequest, metadata
from app.core.errors import AppError
from app.services.summaries.sources import Source
from app.stream.coalesce import REDRAW_INTERVAL_S, Coalescer
from app.stream.event import Draft, Event

# The name of this wire form among the kinds of sessions.
PROSE = "v3"

Drafts = AsyncGenerator[Draft, None]


async def prose_events(request: SummaryRequest, source: Source, drafts: Drafts) -> Drafts:
    """Pieces as they come; those that come faster than they can be drawn come together."""
    pieces = 0
    text: Coalescer[str] = Coalescer(operator.add, interval_s=REDRAW_INTERVAL_S)
    async for draft in drafts:
        match draft.kind, draft.data:
            case "engine", dict(writer):
                if request.include_metadata:
                    yield Draft("", metadata(request, source, writer))
            case "text", str(piece):
                pieces += 1
                for ready in text.feed(piece):
                    yield _piece(ready, pieces)
            case "finish", dict(data):
                for ready in text.flush():
                    yield _piece(ready, pieces)
                tokens = max(pieces, data["usage"]["completion_tokens"])
                last = {"content": "", "done": True, "tokens_used": tokens}
                yield Draft("", last | {"latency_ms": request.elapsed_ms()}, terminal=True)


def prose_failure(error: AppError, last: Event | None = None) -> Draft:
    """The terminal event of a V3 stream that failed."""
    data = {"content": "", "done": True, "tokens_used": 0, "error": error.message}
    return Draft("", data, terminal=True)


def _piece(content: str, tokens: int) -> Draft:
    return Draft("", {"content": content, "done": False, "tokens_used": tokens})
