"""What an admin sees and decides."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.docs.requests import body_examples, example
from app.api.market.deps import AdminDep, ItemId, PartsDep, market_errors, signed_in
from app.schemas.market import AccessBody, QueriesAnswer, UserAnswer

router = APIRouter(tags=["Administration"])


@router.get(
    "/api/admin/queries",
    operation_id="get_queries",
    response_model=QueriesAnswer,
    responses=market_errors(401, 403),
    openapi_extra=signed_in("admin"),
    summary="What people ask for",
)
async def get_queries(
    _: AdminDep,
    parts: PartsDep,
    days: Annotated[int, Query(ge=1, le=366)] = 30,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> QueriesAnswer:
    """The most frequent questions to the assistant, those without hits, and counts by day.

    curl -N http://127.0.0.1:7860/api/admin/queries -H "Authorization: Bearer $ADMIN_TOKEN"
    """
    return await parts.conversations.queries(days=days, limit=limit)


@router.put(
    "/api/admin/users/{user_id}",
    operation_id="decide_access",
    response_model=UserAnswer,
    responses=market_errors(401, 403, 404),
    openapi_extra=signed_in("admin")
    | body_examples({"chat": example("May talk to the assistant", ai_access_enabled=True)}),
    summary="Decide what an account may do",
)
async def decide_access(
    _: AdminDep, parts: PartsDep, user_id: ItemId, body: AccessBody
) -> UserAnswer:
    """What is left out stays; it counts at once.

    curl -N -X PUT http://127.0.0.1:7860/api/admin/users/1 -H "Authorization: Bearer $ADMIN_TOKEN" -H 'Content-Type: application/json' -d '{"ai_access_enabled":true}'
    """  # noqa: E501
    changed = await parts.accounts.decide(
        user_id, ai_access_enabled=body.ai_access_enabled, role=body.role
    )
    return changed.answer()
