"""From a checked request to a session's stream: what V3 and V4 have in common.

The endpoints differ in their bodies and in their wire forms only.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from starlette.requests import Request

from app.api.deps import Services, owner_of_request
from app.api.resume import first_event
from app.core.errors import AppError, ScrapeFailed
from app.services.summaries.sources import Input, Scraper, Source, read_source
from app.services.summaries.summarizer import SummaryTask
from app.stream.event import Draft
from app.stream.log import Header

log = structlog.get_logger(__name__)

Encoder = Callable[
    ["SummaryRequest", Source, AsyncGenerator[Draft, None]], AsyncGenerator[Draft, None]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRequest:
    """A request for a summary, checked and complete."""

    given: Input
    max_tokens: int
    style: str = "executive"
    instruction: str | None = None
    temperature: float = 0.2
    top_p: float = 1.0
    include_metadata: bool = True
    include_status: bool = False
    use_cache: bool = True
    session_id: str | None = None
    started_s: float = field(default_factory=time.perf_counter)

    def fingerprint(self, kind: str) -> str:
        """Return what two requests must have in common to be one session."""
        same = replace(self, session_id=None, started_s=0.0)
        return hashlib.sha256(f"{kind} {same!r}".encode("utf-8", "replace")).hexdigest()

    def task(self, source: Source) -> SummaryTask:
        """Return what the summarizer is to do."""
        return SummaryTask(
            source=source,
            max_tokens=self.max_tokens,
            style=self.style,
            instruction=self.instruction,
            temperature=self.temperature,
            top_p=self.top_p,
            use_cache=self.use_cache,
        )

    def elapsed_ms(self) -> float:
        """Return the time since the request came."""
        return round((time.perf_counter() - self.started_s) * 1000, 2)


def metadata(
    summary_request: SummaryRequest, source: Source, writer: dict[str, Any]
) -> dict[str, Any]:
    """Return the metadata event: what is known of the input, and who writes."""
    return {"type": "metadata", "data": {**source.facts, "style": summary_request.style, **writer}}


async def open_summary(
    request: Request,
    services: Services,
    scraper: Scraper,
    kind: str,
    summary_request: SummaryRequest,
    encoder: Encoder,
) -> Header:
    """Start the session of a request, or join the one that already does it.

    Raises:
        Overloaded, EngineUnavailable, SessionBusy: before any work.
    """
    owner = owner_of_request(request)
    fingerprint = summary_request.fingerprint(kind)

    async def drafts() -> AsyncGenerator[Draft, None]:
        source = await _read(scraper, summary_request)
        async with (
            aclosing(services.summarizer.summarize(summary_request.task(source))) as plain,
            aclosing(encoder(summary_request, source, plain)) as encoded,
        ):
            async for draft in encoded:
                yield draft

    header = await services.sessions.running(owner, fingerprint, summary_request.session_id)
    if header is not None:
        return header
    async with services.sessions.reserve() as reservation:
        await services.summarizer.require_engine()
        return await services.sessions.start(
            kind,
            drafts,
            owner=owner,
            session_id=summary_request.session_id,
            fingerprint=fingerprint,
            linger_s=services.linger_s,
            reservation=reservation,
        )


async def page_was_read(services: Services, header: Header) -> None:
    """Return once the session has its first event, so that a failing page is a status (C2).

    Raises:
        ScrapeFailed: the session ended with that.
    """
    first = await first_event(services, header)
    if first is None or not first.terminal or not isinstance(first.data, dict):
        return
    if first.kind == "error":
        error = AppError.from_dict({"message": first.data["error"], "code": first.data["code"]})
        if isinstance(error, ScrapeFailed):
            raise error


async def _read(scraper: Scraper, summary_request: SummaryRequest) -> Source:
    try:
        return await read_source(
            scraper, summary_request.given, use_cache=summary_request.use_cache
        )
    except ScrapeFailed as error:
        raise error.copy(f"Scraping failed: {error.message}") from error
    except Exception as error:
        log.exception("scraper_failed")
        raise ScrapeFailed("Scraping failed: the page could not be read") from error
