"""Is the process alive, and can its default engine serve? Neither answer loads anything."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from app.api.deps import ServicesDep
from app.api.docs.openapi import error_responses
from app.schemas.answers import HealthAnswer, ReadyAnswer

router = APIRouter(tags=["Health"])


@router.head("/health", include_in_schema=False)
@router.get(
    "/health",
    operation_id="health",
    response_model=HealthAnswer,
    response_model_exclude_unset=True,
    summary="200 while the process can answer",
)
async def health(services: ServicesDep) -> dict[str, Any]:
    """The superset object of C9; `modelReady` says whether the weights are in memory."""
    info: dict[str, Any] = services.model_info()
    return {
        "status": "ok",
        "service": "precis",
        "version": services.version,
        "ok": True,
        "modelReady": info.get("loaded", False),
        "modelId": info.get("model_id"),
        "error": info.get("error"),
        "engine": services.engine.name,
        "model": info,
        "roles": services.roles_info(),
        "market": services.market.info(),
        "sessions": services.sessions.active + services.memory_sessions.active,
        "ocr": services.cards.info(),
    }


@router.head("/ready", include_in_schema=False)
@router.get(
    "/ready",
    operation_id="ready",
    response_model=ReadyAnswer,
    responses=error_responses(503, status_503="It cannot serve yet; see Retry-After"),
    summary="200 once the default engine can serve",
)
async def ready(request: Request, services: ServicesDep) -> dict[str, Any]:
    """503 with the reason until then; a fallback engine may answer in the meantime.

    While sessions cannot be kept it is 503 too.
    """
    problem = await services.engine.unavailable()
    if problem is not None:
        raise problem
    await services.sessions.check_log()
    return {"ready": True, "engine": services.engine.name, "model": services.engine.model}
