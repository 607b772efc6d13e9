"""V4: a structured summary, as text or as patches."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from app.api.deps import ServicesDep
from app.api.docs.openapi import sse_responses
from app.api.docs.requests import body_examples
from app.api.resume import respond, resume
from app.api.summaries import SummaryRequest, open_summary, page_was_read
from app.api.v4.examples import PATCH_EVENTS, PATCH_STREAM, TEXT_EVENTS, TEXT_STREAM
from app.api.v4.wire import PATCHES, TEXT, patch_events, text_events
from app.schemas.summary_v4 import SummaryBody
from app.services.article_scraper import article_scraper_service
from app.services.model_loader_v4 import ModelServiceV4
from app.services.summaries.prompts import known_style
from app.services.summaries.sources import check_input

# The two seams of the plan's test: the scraper is called from here; the class is the one that the
# local engine calls, whatever name it is reached by.
__all__ = ["ModelServiceV4", "article_scraper_service", "router"]

router = APIRouter(prefix="/api/v4", tags=["V4 Structured Summarizer"])

MAX_TOKENS = 1024

Url = Annotated[str | None, Query(description="The article, when there is no JSON body")]
Style = Annotated[str | None, Query(description="skimmer, executive or eli5")]


def _summary_request(
    body: SummaryBody | None, url: str | None, style: str | None
) -> SummaryRequest:
    """Put body and query together; the body wins (C3)."""
    body = body or SummaryBody()
    if body.url is None and body.text is None:
        body = body.model_copy(update={"url": url})
    return SummaryRequest(
        given=check_input(body.url, body.text),
        max_tokens=body.max_tokens or MAX_TOKENS,
        style=known_style(body.style if body.style is not None else style),
        include_metadata=body.include_metadata is not False,
        include_status=body.include_status is True,
        use_cache=body.use_cache is not False,
        session_id=body.session_id,
    )


@router.post(
    "/scrape-and-summarize/stream",
    operation_id="stream_summary_text",
    responses=sse_responses(TEXT_EVENTS),
    openapi_extra=body_examples(TEXT_STREAM),
    response_class=Response,
    summary="Stream a structured summary as its own JSON text",
)
async def stream(
    request: Request,
    services: ServicesDep,
    body: SummaryBody | None = None,
    url: Url = None,
    style: Style = None,
) -> Response:
    """Joining the data of every unnamed event gives the JSON document; named events are extra.

    `metadata` comes first and tells the input and the model; `status` tells the stage (`queued`
    with the position, `scraping`, `loading` with the progress, `reading`, `writing`); `result`, the
    last one, has the whole summary, its usage and its timings; `error` comes in its place where the
    stream fails.
    """
    resumed = await resume(request, services, TEXT, body.session_id if body else None)
    if resumed is not None:
        return resumed
    summary_request = _summary_request(body, url, style)
    header = await open_summary(
        request, services, article_scraper_service, TEXT, summary_request, text_events
    )
    await page_was_read(services, header)
    return respond(services, header)


@router.post(
    "/scrape-and-summarize/stream-ndjson",
    operation_id="stream_summary_patches",
    responses=sse_responses(PATCH_EVENTS),
    openapi_extra=body_examples(PATCH_STREAM),
    response_class=Response,
    summary="Stream a structured summary field by field",
)
async def stream_ndjson(
    request: Request,
    services: ServicesDep,
    body: SummaryBody | None = None,
    url: Url = None,
    style: Style = None,
) -> Response:
    """Each event is one JSON object: metadata, then patches with the state so far, then done.

    With `include_status` there are also `{"type":"status","data":{"stage":…}}` events. The first
    example has the session id `example`: run it, and the examples of Sessions replay or cancel it.
    """
    resumed = await resume(request, services, PATCHES, body.session_id if body else None)
    if resumed is not None:
        return resumed
    summary_request = _summary_request(body, url, style)
    header = await open_summary(
        request, services, article_scraper_service, PATCHES, summary_request, patch_events
    )
    return respond(services, header)
