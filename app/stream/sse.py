"""The only place where events become Server-Sent Events.

Framing is sse-starlette's. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent

from app.core.errors import AppError
from app.stream.event import Data, Draft, Event
from app.stream.log import Header
from app.stream.session import Sessions

SEND_TIMEOUT_S = 300.0

# Legal in JSON and in SSE, yet many line readers (Python's splitlines among them) break at them.
_LINE_SEPARATORS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def compact_json(value: Any) -> str:
    """Return JSON on one line without white space, safe for readers that split lines."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_LINE_SEPARATORS).encode("utf-8", "replace").decode()


def encode(data: Data) -> str:
    """Return the `data` of an event as text."""
    return data if isinstance(data, str) else compact_json(data)


def frame(event: Event | Draft, event_id: str | None) -> ServerSentEvent:
    """Return the frame of an event."""
    return ServerSentEvent(data=encode(event.data), event=event.kind or None, id=event_id, sep="\n")


def stream_response(
    sessions: Sessions, header: Header, after: int = -1, *, heartbeat_s: float = 10.0
) -> EventSourceResponse:
    """Answer with a session's events above `after`, heartbeats while there are none."""

    async def frames() -> AsyncGenerator[ServerSentEvent, None]:
        async with aclosing(sessions.follow(header, after)) as events:
            try:
                async for event in events:
                    yield frame(event, f"{header.session_id}:{event.index}")
            except AppError as error:
                # Only this reader is lost (it fell behind the ring, say): the event is not in the
                # log, so it has no id, and the last id that the client has stays its cursor.
                yield frame(sessions.ending(header, error), None)

    return EventSourceResponse(
        frames(),
        # Starlette would add a charset parameter; the contract has none (C1).
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            "X-Session-ID": header.session_id,
        },
        sep="\n",
        ping=heartbeat_s,
        ping_message_factory=lambda: ServerSentEvent(comment="ping", sep="\n"),
        send_timeout=SEND_TIMEOUT_S,
    )
