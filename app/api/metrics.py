"""What an operator watches, for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from app.api.deps import ServicesDep
from app.core.metrics import ACTIVE_SESSIONS, exposition

router = APIRouter(tags=["Health"])


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: ServicesDep) -> Response:
    """Counters, histograms and gauges in Prometheus' text format; with API keys, it needs one."""
    ACTIVE_SESSIONS.set(services.sessions.active)
    return Response(exposition(), media_type=CONTENT_TYPE_LATEST)
