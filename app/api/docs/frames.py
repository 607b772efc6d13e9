"""What streams answer with, for `/docs`: events as they are on the wire, most of a stream left out.

The frames are made by the encoder that makes the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.api.openai.wire import chat_failure
from app.api.v3.wire import prose_failure
from app.api.v4.wire import patch_failure, text_failure
from app.core.errors import AppError, Cancelled, GenerationFailed
from app.schemas.summary_v4 import EXAMPLE_TEXT
from app.stream.event import Draft
from app.stream.sse import frame

Examples = dict[str, dict[str, Any]]

HEARTBEAT = ": ping\n"

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
_METADATA = {
    "type": "metadata",
    "data": {
        "input_type": "text",
        "text_length": len(EXAMPLE_TEXT),
        "style": "executive",
        "engine": "local",
        "model": "microsoft/Phi-3-mini-4k-instruct",
    },
}
_LOADING = {"stage": "loading", "progress": 0.5}
_WRITING = {"stage": "writing"}
_USAGE = {"prompt_tokens": 312, "completion_tokens": 141, "total_tokens": 453}


def _wire(*drafts: tuple[int | None, Draft], session_id: str = "my-summary") -> str:
    """Write events by their index; None is for what has no id."""
    return "".join(
        frame(draft, None if index is None else f"{session_id}:{index}").decode()
        for index, draft in drafts
    )


def _examples(
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
            "value": _wire((7, failed), session_id=session_id),
        },
        "cancelled": {
            "summary": "The end of one that was cancelled",
            "value": _wire(*cancelled, session_id=session_id),
        },
    }


def _state(**known: Any) -> dict[str, Any]:
    return {name: known.get(name, [] if name == "key_points" else None) for name in _SUMMARY}


def _patch(delta: dict[str, Any], state: dict[str, Any], tokens: int, **more: Any) -> Draft:
    done = delta["op"] == "done"
    return Draft("", {"delta": delta, "state": state, "done": done, "tokens_used": tokens, **more})


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> Draft:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return Draft("", {**_CHAT, "choices": [choice]})


_CHAT = {
    "id": "chatcmpl-5d1c9f1c0a4be2a87c34d10b9f22",
    "object": "chat.completion.chunk",
    "created": 1764000000,
    "model": "microsoft/Phi-3-mini-4k-instruct",
    "system_fingerprint": "fp_9d1b1a3c55e0",
}

_RESULT = {
    "summary": _SUMMARY,
    "usage": _USAGE,
    "timings": {"scrape_ms": 0.0, "queue_ms": 0.4, "first_token_ms": 812.5, "total_ms": 9120.1},
    "engine": "local",
    "model": "microsoft/Phi-3-mini-4k-instruct",
}

TEXT_EVENTS = _examples(
    _wire(
        (0, Draft("metadata", _METADATA)),
        (1, Draft("status", _LOADING)),
    )
    + HEARTBEAT
    + _wire(
        (2, Draft("status", _WRITING)),
        (3, Draft("", '{"title":"The')),
        (4, Draft("", " central")),
        (5, Draft("", " bank")),
        (140, Draft("result", _RESULT)),
    ),
    text_failure,
    "my-summary",
)

PATCH_EVENTS = _examples(
    _wire(
        (0, Draft("", _METADATA)),
        (1, Draft("", {"type": "status", "data": _LOADING})),
        session_id="example",
    )
    + HEARTBEAT
    + _wire(
        (2, Draft("", {"type": "status", "data": _WRITING})),
        (3, _patch({"op": "set", "field": "title", "value": _TITLE}, _state(title=_TITLE), 21)),
        (14, _patch({"op": "done"}, _SUMMARY, 141, latency_ms=9120.1)),
        session_id="example",
    ),
    patch_failure,
    "example",
)

PROSE_EVENTS = _examples(
    _wire(
        (0, Draft("", _METADATA)),
        (1, Draft("", {"content": "The central", "done": False, "tokens_used": 2})),
        (2, Draft("", {"content": " bank cut", "done": False, "tokens_used": 4})),
        (40, Draft("", {"content": "", "done": True, "tokens_used": 58, "latency_ms": 4210.5})),
        session_id="my-prose",
    ),
    prose_failure,
    "my-prose",
)

CHAT_EVENTS = _examples(
    _wire(
        (0, _chunk({"role": "assistant", "content": ""})),
        (1, _chunk({"content": "Halo"})),
        (2, _chunk({}, "stop")),
        (None, Draft("", "[DONE]")),
        session_id="my-chat",
    ),
    chat_failure,
    "my-chat",
    # To OpenAI's clients, a cancelled answer is one that stopped.
    cancelled=((7, _chunk({}, "stop")), (None, Draft("", "[DONE]"))),
)
CHAT_ANSWER = {
    **_CHAT,
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Halo", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14},
}
