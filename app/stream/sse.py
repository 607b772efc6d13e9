"""The only place where events become Server-Sent Events.

Framing is sse-starlette's. Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from sse_starlette import EventSourceResponse, ServerSentEvent

from app.core.errors import AppError
from app.stream.event import Data, Draft, Event
from app.stream.log import Header
from app.stream.sessions import Sessions

SEND_TIMEOUT_S = 300.0
# A comment line and no blank line after it: by the standard a blank line without data dispatches
# nothing, but the official OpenAI client for Python takes it for an event once an id has come, and
# fails in its JSON parser.
HEARTBEAT = b": ping\n"
# The last frames of a run, for all that follow its live tail. Without them the server needs about
# a fifth more CPU at ten followers a session (measured by bench.streams).
KEPT_FRAMES = 32
KEPT_TAILS = 128

# Returns what is sent after the terminal event: it is no event of the log and has no id.
Trailer = Callable[[Event], Draft | None]

# Legal in JSON and in SSE, yet many line readers (Python's splitlines among them) break at them.
_LINE_SEPARATORS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_tails: dict[str, dict[int, bytes]] = {}


def compact_json(value: Any) -> str:
    """Return JSON on one line without white space, safe for readers that split lines."""
    text = _JSON.encode(value)
    if text.isascii():
        return text
    return text.translate(_LINE_SEPARATORS).encode("utf-8", "replace").decode()


def encode(data: Data) -> str:
    """Return the `data` of an event as text."""
    return data if isinstance(data, str) else compact_json(data)


def frame(event: Event | Draft, event_id: str | None) -> bytes:
    """Return the frame of an event."""
    return ServerSentEvent(
        data=encode(event.data), event=event.kind or None, id=event_id, sep="\n"
    ).encode()


def stream_response(
    sessions: Sessions,
    header: Header,
    after: int = -1,
    *,
    heartbeat_s: float = 10.0,
    trailer: Trailer | None = None,
) -> EventSourceResponse:
    """Return a response with a session's events above `after`, and heartbeats between them."""
    return EventSourceResponse(
        _chunks(sessions, header, after, trailer),
        # Starlette would add a charset parameter; the contract has none (C1).
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            "X-Session-ID": header.session_id,
        },
        sep="\n",
        ping=heartbeat_s,
        ping_message_factory=lambda: HEARTBEAT,  # type: ignore[arg-type, return-value]
        send_timeout=SEND_TIMEOUT_S,
    )


async def _chunks(
    sessions: Sessions, header: Header, after: int, trailer: Trailer | None
) -> AsyncGenerator[bytes, None]:
    """Yield all frames that are ready at a time as one piece of the body."""
    # The trailer and an error depend on the last event that the client has.
    last = await sessions.at(header, after) if after >= 0 else None
    try:
        async with aclosing(sessions.pages(header, after)) as pages:
            async for events in pages:
                last = events[-1]
                yield b"".join(_frame_once(header, event) for event in events)
        if trailer is not None and last is not None and (draft := trailer(last)) is not None:
            yield frame(draft, None)
    except AppError as error:
        # Only this reader is lost (it fell behind the ring, say): the event is not in the log, so
        # it has no id, and the last id that the client has stays its cursor.
        yield frame(sessions.ending(header, error, last), None)


def _frame_once(header: Header, event: Event) -> bytes:
    """Return the frame of an event, encoded once for all that follow the run at the same time."""
    event_id = f"{header.session_id}:{event.index}"
    if event.terminal:
        # Once a run has been read to its end, nothing of it stays here.
        _tails.pop(header.run, None)
        return frame(event, event_id)
    tail = _tails.get(header.run)
    if tail is None:
        if len(_tails) >= KEPT_TAILS:
            del _tails[next(iter(_tails))]
        tail = _tails[header.run] = {}
    made = tail.get(event.index)
    if made is None:
        if len(tail) >= KEPT_FRAMES:
            del tail[next(iter(tail))]
        made = tail[event.index] = frame(event, event_id)
    return made
