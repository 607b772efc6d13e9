"""`/ktp-ocr/`: an ID card as JSON, and the same as a stream (S2.30, contract 5)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.deps import Services, ServicesDep, owner_of_request
from app.api.docs.openapi import error_responses, sse_responses
from app.api.ocr.examples import CARD_EVENTS, request_body
from app.api.ocr.upload import read_upload
from app.api.ocr.wire import CARD, card_answer
from app.api.resume import respond, resume
from app.core.errors import GenerationFailed
from app.schemas.ktp import Card, CardDetails
from app.stream.event import Draft, Event
from app.stream.log import Header

router = APIRouter(tags=["ocr"])

_TEXTS = {
    "status_400": "`invalid_image`: there is no JPEG, PNG or WebP image in the form",
    "status_413": "`image_too_large`, `body_too_large`: over 10 MB or 40 megapixels",
    "status_422": "`not_a_ktp`: no KTP is to be seen; `invalid_session_id`",
    "status_503": "`ocr_unavailable`: what reads cards is not installed; the message says how",
}
Details = Annotated[bool, Query(description="1: with confidences, boxes, warnings and the engine")]


@router.post(
    "/ktp-ocr/",
    operation_id="read_card",
    response_model=Card | CardDetails,
    responses=error_responses(400, 401, 413, 422, 429, 503, **_TEXTS)
    | {504: {"description": "`timeout`: reading took too long"}},
    openapi_extra=request_body(),
    summary="Read an Indonesian ID card (KTP)",
)
@router.post("/ktp-ocr", include_in_schema=False)
async def read_card(request: Request, services: ServicesDep, details: Details = False) -> Response:
    """Every value is a string, empty where it could not be read; a NIK has 16 digits or is empty.

    `X-Precis-Engine` says who read it, `X-Precis-Warnings` what is doubtful. The image and its
    values are kept in memory only, and for a minute at most.
    """
    header = await _start(request, services)
    last: Event | None = None
    sessions = services.sessions_of(CARD)
    try:
        async with aclosing(sessions.follow(header)) as events:
            async for event in events:
                last = event
    finally:
        if last is None or not last.terminal:
            # The client has left: nobody will come for this one.
            await sessions.cancel(header.owner, header.session_id)
    if last is None or not last.terminal:
        raise GenerationFailed("the card could not be read; try again")
    answer: JSONResponse = card_answer(last, details=details)
    answer.headers["X-Session-ID"] = header.session_id
    return answer


@router.post(
    "/ktp-ocr/stream",
    operation_id="stream_card",
    responses=sse_responses(CARD_EVENTS, 400, 401, 404, 409, 410, 413, 422, 429, 503, **_TEXTS),
    openapi_extra=request_body(),
    response_class=Response,
    summary="Read an ID card as a stream",
)
async def stream_card(request: Request, services: ServicesDep) -> Response:
    """`status` tells the stage; `result`, the last one, is what `?details=1` answers with.

    The session is held in memory, whatever log is set, for a minute at most.
    """
    resumed = await resume(request, services, CARD, None)
    if resumed is not None:
        return resumed
    return respond(services, await _start(request, services))


async def _start(request: Request, services: Services) -> Header:
    """Start the session of a card.

    Raises:
        InvalidInput, EngineUnavailable, Overloaded, SessionBusy: before any work.
    """
    upload = await read_upload(request)
    owner = owner_of_request(request)
    same = hashlib.sha256(upload.data).hexdigest() if upload.session_id else ""
    sessions = services.sessions_of(CARD)
    async with sessions.reserve() as reservation:
        photo = await services.cards.check(upload.data)
        await services.cards.require()

        async def drafts() -> AsyncGenerator[Draft, None]:
            async with aclosing(services.cards.read(photo)) as plain:
                async for draft in plain:
                    yield draft

        return await sessions.start(
            CARD,
            drafts,
            owner=owner,
            session_id=upload.session_id,
            fingerprint=same,
            linger_s=services.linger_s,
            reservation=reservation,
        )
