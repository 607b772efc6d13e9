"""The state of a job: the fold of its events. Knows no session and no request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from app.core.errors import Cancelled
from app.schemas.jobs import JobState
from app.stream.event import Event


def fold(job_id: str, events: Iterable[Event]) -> JobState:
    """Return where a job stands after these events."""
    state = JobState(job_id=job_id)
    for event in events:
        if isinstance(event.data, dict):
            state = state.model_copy(update=_changes(event.data))
    return state


def _changes(event: dict[str, Any]) -> dict[str, Any]:
    """Return what an event says of the state."""
    data = event["data"]
    now: dict[str, Any] = {"step": event["step"], "progress": event["progress"]}
    match event["step"]:
        case "connected":
            return now | {"topic": data["topic"]}
        case "outline":
            return now | {"sections": data["sections"], "total_sections": len(data["sections"])}
        case "content":
            return now | {"completed_sections": data["completed_sections"]}
        case "complete":
            return now | {"status": "complete", "final_article": data["final_article"]}
        case "error":
            status = "cancelled" if data["code"] == Cancelled.code else "error"
            return now | {"status": status, "error": data["error"], "code": data["code"]}
    return now
