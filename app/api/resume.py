"""A response that is a session's events: from its start, or after `Last-Event-ID`."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.api.deps import Services, owner_of_request
from app.core.errors import InvalidInput, UnknownSession
from app.schemas.summary_v4 import SESSION_ID_PATTERN
from app.stream.event import Event
from app.stream.log import Header
from app.stream.sse import stream_response

_INDEX = re.compile(r"\d{1,12}")

# How the answer of a GET that has nothing left to say is described.
OVER: dict[int | str, dict[str, Any]] = {
    204: {"description": "`Last-Event-ID` is the last event: there is no more, do not come back"}
}


def checked_session_id(session_id: str) -> str:
    """Return the id.

    Raises:
        InvalidInput: it is not 1 to 64 letters, digits, hyphens or underscores.
    """
    if not re.fullmatch(SESSION_ID_PATTERN, session_id):
        raise InvalidInput(
            "a session id has 1 to 64 letters, digits, '-' or '_'", code="invalid_session_id"
        )
    return session_id


def resume_point(request: Request, session_id: str | None) -> tuple[str, int] | None:
    """Return the session and the last index that the client has, if it names one.

    The header `Last-Event-ID` wins over the query's `last_event_id`.

    Raises:
        InvalidInput: the value is not `session_id:index`, or names another session than the body.
    """
    sent = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not sent:
        return None
    named, colon, index = sent.strip().rpartition(":")
    if not colon or not _INDEX.fullmatch(index):
        raise InvalidInput("Last-Event-ID must be session_id:index", code="invalid_last_event_id")
    if checked_session_id(named) != (session_id or named):
        raise InvalidInput(
            "Last-Event-ID names another session than session_id; send the same in both",
            code="invalid_last_event_id",
        )
    return named, int(index)


async def resume(
    request: Request, services: Services, kind: str, session_id: str | None
) -> Response | None:
    """Answer a request that resumes a session; None when it does not.

    Raises:
        InvalidInput: the session is of another kind than this path streams.
        UnknownSession: the caller has no such session.
        EventsGone: what came after that index is no longer kept.
    """
    point = resume_point(request, session_id)
    if point is None:
        return None
    return await replay(request, services, *point, kind=kind)


def respond(services: Services, header: Header, after: int = -1) -> Response:
    """Answer with a session's events after an index, then its live tail."""
    return stream_response(
        services.sessions_of(header.kind),
        header,
        after,
        heartbeat_s=services.heartbeat_s,
        trailer=services.trailers.get(header.kind),
    )


async def respond_after(
    request: Request, services: Services, header: Header, after: int
) -> Response:
    """Answer with a session's events after an index (-1 for all), then its live tail.

    A GET gets 204 where nothing is left to say: a browser's EventSource comes back by itself after
    every end of a body, that of a finished stream too, and stops only at that.

    Raises:
        EventsGone: what came after that index is no longer kept.
    """
    comes = await services.sessions_of(header.kind).check(header, after)
    if comes or request.method != "GET":
        return respond(services, header, after)
    return Response(status_code=204, headers={"X-Session-ID": header.session_id})


async def replay(
    request: Request, services: Services, session_id: str, after: int, *, kind: str | None = None
) -> Response:
    """Answer with everything of a session after an index (-1 for all), then its live tail."""
    owner = owner_of_request(request)
    header = await services.memory_sessions.find(owner, session_id)
    if header is None:
        header = await services.sessions.find(owner, session_id)
    if header is None:
        raise UnknownSession("there is no such session; start a new one")
    if kind is not None and header.kind != kind:
        raise InvalidInput(
            "this session streams on another path; resume it there, or with "
            "GET /api/sessions/{session_id}/events",
            code="invalid_session_id",
        )
    return await respond_after(request, services, header, after)


async def first_event(services: Services, header: Header) -> Event | None:
    """Wait for a session's first event, so that an early failure can be a status.

    None when there is none yet after `hold_s`: a response that has not begun carries no heartbeat,
    and a model server may take minutes before it accepts a long prompt.
    """
    async with aclosing(services.sessions_of(header.kind).follow(header)) as events:
        try:
            async with asyncio.timeout(services.hold_s):
                return await anext(events, None)
        except TimeoutError:
            return None
