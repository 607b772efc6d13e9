"""V3: a plain prose summary."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.api.deps import ServicesDep
from app.api.docs.openapi import sse_responses
from app.api.docs.requests import body_examples
from app.api.resume import respond, resume
from app.api.summaries import SummaryRequest, open_summary
from app.api.v3.examples import PROSE_EVENTS, PROSE_STREAM
from app.api.v3.wire import PROSE, prose_events
from app.schemas.summary_v3 import ProseBody
from app.services.article_scraper import article_scraper_service
from app.services.summaries.prompts import DEFAULT_PROSE_PROMPT
from app.services.summaries.sources import check_input

router = APIRouter(prefix="/api/v3", tags=["V3 Prose Summarizer"])

MAX_TOKENS = 256
TEMPERATURE = 0.3
TOP_P = 0.9


@router.post(
    "/scrape-and-summarize/stream",
    operation_id="stream_prose_summary",
    responses=sse_responses(PROSE_EVENTS),
    openapi_extra=body_examples(PROSE_STREAM),
    response_class=Response,
    summary="Stream a plain prose summary",
)
async def stream(request: Request, services: ServicesDep, body: ProseBody) -> Response:
    """Each event is one JSON object with a piece of the text; the last has `done` true."""
    resumed = await resume(request, services, PROSE, body.session_id)
    if resumed is not None:
        return resumed
    summary_request = SummaryRequest(
        given=check_input(body.url, body.text, loose_url=True),
        max_tokens=body.max_tokens or MAX_TOKENS,
        instruction=body.prompt or DEFAULT_PROSE_PROMPT,
        temperature=TEMPERATURE if body.temperature is None else body.temperature,
        top_p=TOP_P if body.top_p is None else body.top_p,
        include_metadata=body.include_metadata is not False,
        use_cache=body.use_cache is not False,
        session_id=body.session_id,
    )
    header = await open_summary(
        request, services, article_scraper_service, PROSE, summary_request, prose_events
    )
    return respond(services, header)
