"""The wire form of an article job (contract 4): steps with a progress that never goes back."""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from app.core.errors import AppError
from app.stream.coalesce import REDRAW_INTERVAL_S, Coalescer
from app.stream.event import Draft, Event

# The name of this wire form among the kinds of sessions.
JOB = "job"

OUTLINE, CONTENT_END, STYLE_END = 33, 66, 99

Drafts = AsyncGenerator[Draft, None]


class JobEvents:
    """The events of one job on their way out; `progress` is that of the last one."""

    def __init__(self, topic: str) -> None:
        self.progress = 0
        self._topic = topic
        self._draft_chars = 0
        self._styled_chars = 0

    async def encode(self, drafts: Drafts) -> Drafts:
        """Yield the writer's drafts as events; pieces that come faster than drawn come together."""
        yield self._event("connected", 0, {"message": "The job has begun.", "topic": self._topic})
        style: Coalescer[str] = Coalescer(operator.add, interval_s=REDRAW_INTERVAL_S)
        async with aclosing(drafts):
            async for draft in drafts:
                match draft.kind, draft.data:
                    case "outline", dict(data):
                        yield self._event("outline", OUTLINE, data)
                    case "content", dict(data):
                        yield self._section(data)
                    case "style", str(piece):
                        for ready in style.feed(piece):
                            yield self._piece(ready)
                    case "complete", dict(data):
                        for ready in style.flush():
                            yield self._piece(ready)
                        yield self._event("complete", 100, data, terminal=True)

    def ending(self, error: AppError) -> Sequence[Draft]:
        """Return what ends the job instead."""
        return [_failure(error, self.progress)]

    def _section(self, data: dict[str, Any]) -> Draft:
        self._draft_chars += len(data["section"]) + len(data["text"])
        part = data["completed_sections"] / data["total_sections"]
        return self._event("content", OUTLINE + int((CONTENT_END - OUTLINE) * part), data)

    def _piece(self, text: str) -> Draft:
        self._styled_chars += len(text)
        part = min(1.0, self._styled_chars / max(1, self._draft_chars))
        progress = CONTENT_END + int((STYLE_END - CONTENT_END) * part)
        return self._event("style", progress, {"text": text})

    def _event(
        self, step: str, progress: int, data: dict[str, Any], *, terminal: bool = False
    ) -> Draft:
        self.progress = progress
        return Draft("", {"step": step, "progress": progress, "data": data}, terminal)


def job_failure(error: AppError, last: Event | None = None) -> Draft:
    """The terminal event of a job that failed after its event `last`."""
    before = last.data if last is not None and isinstance(last.data, dict) else {}
    return _failure(error, before.get("progress", 0))


def _failure(error: AppError, progress: int) -> Draft:
    data = {"error": error.message, "code": error.code}
    return Draft("", {"step": "error", "progress": progress, "data": data}, terminal=True)
