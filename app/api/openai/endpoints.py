"""`/v1`: what any OpenAI client can use as it is."""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.chats import OpenChat, open_chat, unless_gone
from app.api.deps import Services, ServicesDep
from app.api.docs.openapi import openai_error_responses
from app.api.docs.requests import body_examples
from app.api.openai.examples import CHAT as CHAT_REQUESTS
from app.api.openai.examples import chat_responses
from app.api.openai.fold import Fold, error_of
from app.api.openai.wire import CHAT, ChatChunks
from app.api.resume import first_event, respond, resume
from app.core.errors import AppError, InvalidInput
from app.schemas.answers import ModelAnswer, ModelListAnswer
from app.schemas.openai import ChatRequest

ModelId = Annotated[str, Path(description="One of those that `/v1/models` lists")]

router = APIRouter(prefix="/v1", tags=["OpenAI-compatible chat"])


@router.get(
    "/models",
    operation_id="list_models",
    response_model=ModelListAnswer,
    responses=openai_error_responses(401, 429),
    summary="The models that can answer",
)
async def models(services: ServicesDep) -> dict[str, Any]:
    """The first one answers a request without images; none of them is loaded by asking."""
    return {"object": "list", "data": [_model(services, name) for name in services.chat.models()]}


@router.get(
    "/models/{model_id:path}",
    operation_id="get_model",
    response_model=ModelAnswer,
    responses=openai_error_responses(401, 404, 429, status_404="`model_not_found`"),
    summary="One model",
)
async def model(services: ServicesDep, model_id: ModelId) -> dict[str, Any]:
    """404 `model_not_found` for a model that is not among those of the list."""
    if model_id not in services.chat.models():
        raise AppError(
            "there is no such model here; GET /v1/models lists those there are",
            code="model_not_found",
            status=404,
            param="model",
        )
    return _model(services, model_id)


@router.post(
    "/chat/completions",
    operation_id="create_chat_completion",
    responses=chat_responses(),
    openapi_extra=body_examples(CHAT_REQUESTS),
    response_class=Response,
    summary="Chat, streamed or not",
)
async def chat_completions(request: Request, services: ServicesDep, body: ChatRequest) -> Response:
    """With `stream` every chunk has an id, and `Last-Event-ID` continues where a stream was cut.

    To resume, `session_id` is all that the body needs. Without `stream` the answer is the same
    session, folded into one object.
    """
    resumed = await resume(request, services, CHAT, body.session_id)
    if resumed is not None:
        return resumed
    if not body.messages:
        raise InvalidInput("messages: send at least one message", param="messages")
    if (refused := body.refused()) is not None:
        raise InvalidInput(refused[1], code="unsupported_parameter", param=refused[0])
    chat = await open_chat(
        request,
        services,
        body,
        kind=CHAT,
        encoder=partial(ChatChunks, include_usage=body.wants_usage),
        fingerprint=_fingerprint(body) if body.session_id else "",
        # Nobody can come back to an answer that has no id and was not streamed.
        linger_s=services.linger_s if body.stream or body.session_id else 0.0,
    )
    if not body.stream:
        return await unless_gone(request, _whole(services, chat))
    # What fails before the first byte is a status, so the response waits for the first event.
    first = await unless_gone(request, first_event(services, chat.header))
    if first is not None and (error := error_of(first)) is not None:
        raise chat.failure() or error
    return respond(services, chat.header)


def _fingerprint(body: ChatRequest) -> str:
    """Return what two requests must have in common to be one session."""
    said = body.model_copy(update={"session_id": None}).model_dump_json()
    return hashlib.sha256(f"{CHAT} {said}".encode("utf-8", "replace")).hexdigest()


async def _whole(services: Services, chat: OpenChat) -> Response:
    fold = Fold()
    async with aclosing(services.sessions.follow(chat.header)) as events:
        async for event in events:
            if (error := error_of(event)) is not None:
                raise chat.failure() or error
            fold.feed(event)
    return JSONResponse(fold.result(), headers={"X-Session-ID": chat.header.session_id})


def _model(services: Services, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": services.started_at,
        "owned_by": "precis",
    }
