"""Sessions of any kind: read one again, follow it live, cancel it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.deps import ServicesDep, checked_session_id, owner_of_request, replay, resume_point
from app.api.openapi import STREAM_EXAMPLE, sse_responses

router = APIRouter(tags=["Sessions"])


@router.get(
    "/api/sessions/{session_id}/events",
    responses=sse_responses(STREAM_EXAMPLE),
    response_class=Response,
    summary="Replay a session, then follow it live",
)
async def events(request: Request, services: ServicesDep, session_id: str) -> Response:
    """Without `Last-Event-ID` (or `?last_event_id=`) the session is replayed from its start."""
    checked_session_id(session_id)
    point = resume_point(request, session_id)
    return await replay(request, services, session_id, point[1] if point else -1)


@router.post("/v1/cancel/{session_id}", summary="Cancel a session of any kind")
async def cancel(request: Request, services: ServicesDep, session_id: str) -> dict[str, Any]:
    """Idempotent: an unknown or finished session is answered the same way."""
    await services.sessions.cancel(owner_of_request(request), checked_session_id(session_id))
    return {"ok": True, "session_id": session_id}
