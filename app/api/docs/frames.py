"""How the examples of streams are made: events as they are on the wire, most of them left out.

The frames are made by the encoder that makes the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.core.errors import AppError, Cancelled, GenerationFailed
from app.schemas.summary_v4 import EXAMPLE_TEXT
from app.stream.event import Draft
from app.stream.sse import frame

Examples = dict[str, dict[str, Any]]


METADATA = {
    "type": "metadata",
    "data": {
        "input_type": "text",
        "text_length": len(EXAMPLE_TEXT),
        "style": "executive",
        "engine": "local",
        "model": "microsoft/Phi-3-mini-4k-instruct",
    },
}


def on_wire(*drafts: tuple[int | None, Draft], session_id: str = "my-summary") -> str:
    """Write events by their index; None is for what has no id."""
    return "".join(
        frame(draft, None if index is None else f"{session_id}:{index}").decode()
        for index, draft in drafts
    )


def named_endings(
    good: str,
    failure: Callable[[AppError], Draft],
    session_id: str,
    *,
    cancelled: tuple[tuple[int | None, Draft], ...] = (),
) -> Examples:
    """Name a stream and the ends it may have. `cancelled`: an end that is no failure."""
    failed = failure(GenerationFailed("the model failed; try again"))
    cancelled = cancelled or ((7, failure(Cancelled("the session was cancelled"))),)
    return {
        "complete": {"summary": "A stream, shortened", "value": good},
        "failed": {
            "summary": "The end of one that failed",
            "value": on_wire((7, failed), session_id=session_id),
        },
        "cancelled": {
            "summary": "The end of one that was cancelled",
            "value": on_wire(*cancelled, session_id=session_id),
        },
    }
