"""What `/docs` shows of a structured summary: requests that work, and their events."""

from __future__ import annotations

from typing import Any

from app.api.docs.frames import METADATA, named_endings, on_wire
from app.api.docs.requests import (
    OWN_ID,
    PAGE,
    PAGE_SUMMARY,
    SESSION_ID,
    TEXT,
    Examples,
    example,
)
from app.api.v4.wire import patch_failure, text_failure
from app.schemas.summary_v4 import EXAMPLE_TEXT
from app.stream.event import Draft
from app.stream.sse import HEARTBEAT

TEXT_STREAM: Examples = {
    "text": example("A text", **TEXT),
    "page": example(PAGE_SUMMARY, url=PAGE, style="skimmer"),
    "session": example(OWN_ID, text=EXAMPLE_TEXT, style="eli5", session_id="my-summary"),
    "fresh": example(
        "Not from the cache, and without metadata",
        text=EXAMPLE_TEXT,
        style="skimmer",
        max_tokens=512,
        include_metadata=False,
        use_cache=False,
    ),
}
PATCH_STREAM: Examples = {
    "text": example(
        "A text, as the session that the examples of Sessions name",
        text=EXAMPLE_TEXT,
        style="executive",
        session_id=SESSION_ID,
    ),
    "page": example(PAGE_SUMMARY, url=PAGE, style="skimmer"),
    "session": example(OWN_ID, text=EXAMPLE_TEXT, style="eli5", session_id="my-patches"),
    "status": example(
        "With what happens before the words",
        text=EXAMPLE_TEXT,
        style="executive",
        include_status=True,
        use_cache=False,
    ),
}

_TITLE = "The central bank cut its main interest rate by half a point on Tuesday"
_SUMMARY = {
    "title": _TITLE,
    "main_summary": "Inflation fell to 2.1 percent in May, close to the target of 2 percent.",
    "key_points": [
        "Shares rose and the currency lost 1.4 percent within an hour.",
        "The governor said that growth is too weak and that more cuts may follow this year.",
        "Savers will earn less on their deposits from July.",
    ],
    "category": "Business",
    "sentiment": "neutral",
    "read_time_min": 1,
}
_LOADING = {"stage": "loading", "progress": 0.5}
_WRITING = {"stage": "writing"}
_USAGE = {"prompt_tokens": 312, "completion_tokens": 141, "total_tokens": 453}


def _state(**known: Any) -> dict[str, Any]:
    return {name: known.get(name, [] if name == "key_points" else None) for name in _SUMMARY}


def _patch(delta: dict[str, Any], state: dict[str, Any], tokens: int, **more: Any) -> Draft:
    done = delta["op"] == "done"
    return Draft("", {"delta": delta, "state": state, "done": done, "tokens_used": tokens, **more})


_RESULT = {
    "summary": _SUMMARY,
    "usage": _USAGE,
    "timings": {"scrape_ms": 0.0, "queue_ms": 0.4, "first_token_ms": 812.5, "total_ms": 9120.1},
    "engine": "local",
    "model": "microsoft/Phi-3-mini-4k-instruct",
}


TEXT_EVENTS = named_endings(
    on_wire(
        (0, Draft("metadata", METADATA)),
        (1, Draft("status", _LOADING)),
    )
    + HEARTBEAT.decode()
    + on_wire(
        (2, Draft("status", _WRITING)),
        (3, Draft("", '{"title":"The')),
        (4, Draft("", " central")),
        (5, Draft("", " bank")),
        (140, Draft("result", _RESULT)),
    ),
    text_failure,
    "my-summary",
)

PATCH_EVENTS = named_endings(
    on_wire(
        (0, Draft("", METADATA)),
        (1, Draft("", {"type": "status", "data": _LOADING})),
        session_id="example",
    )
    + HEARTBEAT.decode()
    + on_wire(
        (2, Draft("", {"type": "status", "data": _WRITING})),
        (3, _patch({"op": "set", "field": "title", "value": _TITLE}, _state(title=_TITLE), 21)),
        (14, _patch({"op": "done"}, _SUMMARY, 141, latency_ms=9120.1)),
        session_id="example",
    ),
    patch_failure,
    "example",
)
