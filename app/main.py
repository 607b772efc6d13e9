"""Puts the application together: parts built, routers mounted; `app` is what servers serve.

`lifespan` starts what runs beside the requests and closes everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app import background
from app.api import health, metrics, pages
from app.api.deps import Services
from app.api.docs import pages as docs
from app.api.docs.openapi import DESCRIPTION, SERVERS, TAGS, install_description, operation_id
from app.api.jobs import endpoints as jobs
from app.api.market import routers as market
from app.api.ocr import endpoints as ocr
from app.api.ocr.upload import MAX_FORM_BYTES
from app.api.openai import endpoints as openai
from app.api.sessions import endpoints as sessions_api
from app.api.v3 import endpoints as v3
from app.api.v4 import endpoints as v4
from app.core.config import Settings
from app.core.errors import LogUnavailable
from app.core.logging import configure_logging
from app.core.middleware import AuthMiddleware, BodyLimit, RequestContext, ServerErrorMiddleware
from app.core.responses import install_error_handlers
from app.core.security import authenticator
from app.engine.base import Engine
from app.services.article_scraper import PAGES, article_scraper_service
from app.wiring import VERSION, build

log = structlog.get_logger(__name__)


def create_app(settings: Settings, *, engine: Engine | None = None) -> FastAPI:
    """Return the application; `engine` stands in for the one that the settings name."""
    configure_logging(settings.log_level, settings.log_format)
    built: list[Services] = []

    def services() -> Services:
        # Built on first use, since a test client may serve requests without running lifespan.
        if not built:
            built.append(build(settings, engine))
        return built[0]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts = services()
        log.info("startup", version=VERSION, engine=parts.engine.name, model=parts.engine.model)
        with suppress(LogUnavailable):
            # Before the first request: a session that a crash cut short ends with `interrupted`.
            await parts.sessions.recover()
        async with asyncio.TaskGroup() as beside:
            tasks = [beside.create_task(work) for work in _beside(parts, settings)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await _close(parts)
                built.clear()
                log.info("shutdown")

    app = FastAPI(
        title="Precis",
        version=VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        servers=SERVERS,
        generate_unique_id_function=operation_id,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    install_error_handlers(app)
    install_description(app, lambda: services().chat.models()[0])
    _mount(app, settings)
    return app


def _beside(parts: Services, settings: Settings) -> list[Coroutine[None, None, None]]:
    """Return what runs beside the requests."""
    work = [
        background.sweep(
            parts.sessions,
            parts.memory_sessions,
            summarizer=parts.summarizer,
            ttl_s=settings.sessions_ttl_seconds,
        ),
        parts.sessions.maintain(),
        parts.engines.maintain(),
        background.warm(PAGES),
        background.watch_loop(),
    ]
    if parts.market.is_there():
        work.append(background.open_market(parts.market))
    if settings.preload_models:
        work.append(background.preload(parts.engine))
    return work


def _mount(app: FastAPI, settings: Settings) -> None:
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(docs.router)
    docs.mount_assets(app)
    app.include_router(pages.router)
    pages.mount_assets(app)
    app.include_router(openai.router)
    app.include_router(sessions_api.router)
    app.include_router(jobs.router)
    for router in market.ROUTERS:
        app.include_router(router)
    app.include_router(ocr.router)
    app.include_router(v3.router)
    if settings.enable_v4_structured:
        app.include_router(v4.router)
    # The last one added is the first that a request passes.
    app.add_middleware(ServerErrorMiddleware)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        # Chats hold images as base64.
        larger={
            "/v1/chat/completions": settings.max_media_body_bytes,
            **dict.fromkeys(("/ktp-ocr", "/ktp-ocr/", "/ktp-ocr/stream"), MAX_FORM_BYTES),
        },
    )
    app.add_middleware(
        AuthMiddleware,
        admit=authenticator(
            settings.api_keys, settings.rate_limit, storage_url=settings.sessions_url
        ),
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=[
            "Location",
            "X-Request-ID",
            "X-Session-ID",
            "X-Precis-Engine",
            "X-Precis-Warnings",
            "Retry-After",
        ],
    )
    app.add_middleware(RequestContext)


async def _close(parts: Services) -> None:
    await parts.sessions.aclose()
    await parts.memory_sessions.aclose()
    await parts.cards.aclose()
    await parts.summarizer.aclose()
    await parts.engines.aclose()
    await parts.market.aclose()
    await article_scraper_service.aclose()


settings = Settings()
app = create_app(settings)
