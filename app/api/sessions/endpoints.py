"""Sessions of any kind: read one again, follow it live, cancel it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from app.api.deps import ServicesDep, owner_of_request
from app.api.docs.openapi import openai_error_responses, sse_responses
from app.api.docs.requests import SESSION_ID
from app.api.resume import OVER, checked_session_id, replay, resume_point
from app.api.v4.examples import PATCH_EVENTS
from app.schemas.answers import CancelAnswer

router = APIRouter(tags=["Sessions"])

SessionId = Annotated[
    str,
    Path(
        description="What `X-Session-ID` said, or the `session_id` of the request",
        openapi_examples={"example": {"summary": "The first example", "value": SESSION_ID}},
    ),
]


@router.get(
    "/api/sessions/{session_id}/events",
    operation_id="replay_session",
    responses=sse_responses(PATCH_EVENTS, 401, 404, 410, 422, 429, 503) | OVER,
    response_class=Response,
    summary="Replay a session, then follow it live",
)
async def events(request: Request, services: ServicesDep, session_id: SessionId) -> Response:
    """Without `Last-Event-ID` (or `?last_event_id=`) the session is replayed from its start.

    The events are those of the session's kind, a summary's or a chat's. The id `example` is known
    once the first example of `/api/v4/scrape-and-summarize/stream-ndjson` has been run.
    """
    checked_session_id(session_id)
    point = resume_point(request, session_id)
    return await replay(request, services, session_id, point[1] if point else -1)


@router.post(
    "/v1/cancel/{session_id}",
    operation_id="cancel_session",
    response_model=CancelAnswer,
    responses=openai_error_responses(400, 401, 429),
    summary="Cancel a session of any kind",
)
async def cancel(request: Request, services: ServicesDep, session_id: SessionId) -> dict[str, Any]:
    """Idempotent: an unknown or finished session is answered the same way.

    To see one stop, run an example of a stream and send its `X-Session-ID` here; `example` is the
    id of the first example of `/api/v4/scrape-and-summarize/stream-ndjson`.
    """
    owner = owner_of_request(request)
    await services.memory_sessions.cancel(owner, checked_session_id(session_id))
    await services.sessions.cancel(owner, session_id)
    return {"ok": True, "session_id": session_id}
