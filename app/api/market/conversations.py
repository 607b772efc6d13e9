"""Conversations with the assistant: their owner's only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from app.api.market.deps import (
    Cursor,
    Limit,
    PartsDep,
    UserDep,
    Words,
    market_errors,
    signed_in,
)
from app.schemas.market import ConversationList, DoneAnswer, WholeConversation

router = APIRouter(tags=["Conversations"])

ConversationId = Annotated[
    str, Path(max_length=64, openapi_examples={"id": {"value": "example"}}), Words
]


@router.get(
    "/api/conversations",
    operation_id="list_conversations",
    response_model=ConversationList,
    responses=market_errors(401),
    openapi_extra=signed_in("user"),
    summary="The caller's conversations",
)
async def list_conversations(
    user: UserDep, parts: PartsDep, limit: Limit = 20, cursor: Cursor = None
) -> ConversationList:
    """The newest first, page by page.

    curl -N http://127.0.0.1:7860/api/conversations -H "Authorization: Bearer $ACCESS_TOKEN"
    """
    return await parts.conversations.list(user, limit=limit, cursor=cursor)


@router.get(
    "/api/conversations/{conversation_id}",
    operation_id="get_conversation",
    response_model=WholeConversation,
    responses=market_errors(401, 404),
    openapi_extra=signed_in("user"),
    summary="A conversation with its messages",
)
async def get_conversation(
    user: UserDep, parts: PartsDep, conversation_id: ConversationId
) -> WholeConversation:
    """Another user's is as one that is not there.

    curl -N http://127.0.0.1:7860/api/conversations/$CONVERSATION -H "Authorization: Bearer $ACCESS_TOKEN"
    """  # noqa: E501
    return await parts.conversations.whole(user, conversation_id)


@router.delete(
    "/api/conversations/{conversation_id}",
    operation_id="delete_conversation",
    response_model=DoneAnswer,
    responses=market_errors(401, 404),
    openapi_extra=signed_in("user"),
    summary="Erase a conversation",
)
async def delete_conversation(
    user: UserDep, parts: PartsDep, conversation_id: ConversationId
) -> DoneAnswer:
    """With all its messages.

    curl -N -X DELETE http://127.0.0.1:7860/api/conversations/$CONVERSATION -H "Authorization: Bearer $ACCESS_TOKEN"
    """  # noqa: E501
    await parts.conversations.delete(user, conversation_id)
    return DoneAnswer()
