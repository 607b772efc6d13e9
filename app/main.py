"""Puts the application together: settings in, parts built, routers mounted.

The parts need no network and load no model to be built; `lifespan` starts what runs beside the
requests and closes everything.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.api import health, pages
from app.api.deps import Services
from app.api.docs import pages as docs
from app.api.docs.openapi import DESCRIPTION, SERVERS, TAGS, install_description, operation_id
from app.api.jobs import endpoints as jobs
from app.api.jobs.wire import JOB, job_failure
from app.api.openai import endpoints as openai
from app.api.openai.wire import CHAT, chat_failure, chat_trailer
from app.api.sessions import endpoints as sessions_api
from app.api.v3 import endpoints as v3
from app.api.v3.wire import PROSE, prose_failure
from app.api.v4 import endpoints as v4
from app.api.v4.wire import PATCHES, TEXT, patch_failure, text_failure
from app.core.config import Settings
from app.core.errors import EngineUnavailable, LogUnavailable
from app.core.logging import configure_logging
from app.core.middleware import AuthMiddleware, BodyLimit, RequestContext, ServerErrorMiddleware
from app.core.responses import install_error_handlers
from app.core.security import authenticator
from app.engine.base import Engine
from app.engine.extractive.engine import ExtractiveEngine
from app.engine.local.chat_model import ChatModel
from app.engine.local.engine import LocalEngine
from app.engine.local.vision_model import VisionModel
from app.engine.registry import EngineRole, EngineSpec, Registry
from app.services.article_scraper import article_scraper_service
from app.services.articles.writer import ArticleWriter
from app.services.chat.request import Chat
from app.services.fetching.fetch import FetchPolicy
from app.services.media.reader import MediaReader
from app.services.model_loader_v4 import ModelServiceV4
from app.services.summaries.summarizer import Summarizer
from app.stream.log import open_log
from app.stream.sessions import Sessions

log = structlog.get_logger(__name__)

SWEEP_INTERVAL_S = 5.0
PRELOAD_RETRY_S = 5.0
# How long a response may wait for its first event; clients bear 15 s of silence.
HOLD_S = 12.0

try:
    VERSION = version("precis")
except PackageNotFoundError:
    VERSION = "0.1.0"


def create_app(settings: Settings | None = None, *, engine: Engine | None = None) -> FastAPI:
    """Return the application; `engine` stands in for the one that the settings name."""
    settings = settings or Settings()
    configure_logging(settings.log_level, settings.log_format)
    built: list[Services] = []

    def services() -> Services:
        # Built on first use, since a test client may serve requests without running lifespan.
        if not built:
            built.append(_build(settings, engine))
        return built[0]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts = services()
        log.info("startup", version=VERSION, engine=parts.engine.name, model=parts.engine.model)
        with suppress(LogUnavailable):
            # Before the first request: who asks for a session that a crash cut short hears so.
            await parts.sessions.recover()
        async with asyncio.TaskGroup() as beside:
            tasks = [
                beside.create_task(_sweep(parts, settings.sessions_ttl_seconds)),
                beside.create_task(_forget(settings.sessions_ttl_seconds)),
                beside.create_task(parts.sessions.maintain()),
                beside.create_task(parts.engines.maintain()),
            ]
            if settings.preload_models and parts.engine.name == "local":
                tasks.append(beside.create_task(_preload()))
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


def _build(settings: Settings, engine: Engine | None) -> Services:
    policy = _fetch_policy(settings)
    article_scraper_service.configure(
        allow_hosts=policy.allow_hosts,
        timeout_s=policy.timeout_s,
        max_bytes=policy.max_bytes,
        max_redirects=policy.max_redirects,
        ports=policy.ports,
        cache_ttl_s=settings.page_cache_ttl_seconds,
        cache_size=settings.page_cache_size,
    )
    engines = Registry(_roles(settings, engine))
    summary, chat = engines["summary"], engines["chat"]
    fallback = None
    if settings.fallback_engine == "extractive" and summary.name != "extractive":
        fallback = ExtractiveEngine()
    return Services(
        sessions=Sessions(
            open_log(settings.log_url),
            endings={
                TEXT: text_failure,
                PATCHES: patch_failure,
                PROSE: prose_failure,
                CHAT: chat_failure,
                JOB: job_failure,
            },
            ttl_s=settings.sessions_ttl_seconds,
            timeout_s=settings.generation_timeout_seconds,
            max_active=settings.max_concurrent_generations + settings.max_queue,
        ),
        summarizer=Summarizer(
            summary,
            fallback,
            cache_ttl_s=settings.summary_cache_ttl_seconds,
            cache_size=settings.summary_cache_size,
        ),
        chat=Chat(
            chat,
            engines.get("vision"),
            MediaReader(policy, max_video_frames=settings.max_video_frames),
            compress=settings.enable_auto_compression,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
        ),
        writer=ArticleWriter(chat, max_calls=_max_calls(settings, engine)),
        engine=summary,
        engines=engines,
        model_info=_model_info(summary),
        roles_info=lambda: {
            role: {"engine": engine.name, **_model_info(engine)()}
            for role, engine in engines.roles().items()
        },
        version=VERSION,
        started_at=int(time.time()),
        trailers={CHAT: chat_trailer},
        linger_s=settings.cancel_after_disconnect_seconds or None,
        heartbeat_s=settings.heartbeat_seconds,
        # A page that cannot be fetched is a status (C2), however long that may take.
        hold_s=max(HOLD_S, settings.fetch_timeout_seconds + 2.0),
    )


def _max_calls(settings: Settings, engine: Engine | None) -> int:
    """Say how many calls of the jobs may be under way: another server has a queue of its own."""
    far = settings.max_queue if settings.engine_url and engine is None else 0
    return settings.max_concurrent_generations + far


def _fetch_policy(settings: Settings) -> FetchPolicy:
    return FetchPolicy(
        allow_hosts=frozenset(host.lower() for host in settings.fetch_allow_hosts),
        timeout_s=settings.fetch_timeout_seconds,
        max_bytes=settings.fetch_max_bytes,
        max_redirects=settings.fetch_max_redirects,
        ports=frozenset(settings.fetch_ports),
    )


def _roles(settings: Settings, engine: Engine | None) -> dict[EngineRole, EngineSpec]:
    """Say what each role runs on (C6): one given engine, other servers, or models in here."""
    if engine is not None:
        given = EngineSpec("given", lambda: engine)
        return {"summary": given, "chat": given, "vision": given}
    extractive = EngineSpec("extractive", ExtractiveEngine)
    roles: dict[EngineRole, EngineSpec]
    if settings.engine_url:
        remote = EngineSpec("remote", lambda: _remote(settings))
        roles = {"summary": remote, "chat": remote}
        if _has_vision(settings):
            roles["vision"] = remote
    else:
        roles = _local_roles(settings)
    if settings.summary_engine == "extractive":
        roles["summary"] = extractive
    return roles


def _has_vision(settings: Settings) -> bool:
    return settings.vision_model_id.lower() != "none"


def _remote(settings: Settings) -> Engine:
    # Only here is an HTTP client of other servers needed.
    from app.engine.remote.engine import RemoteEngine

    return RemoteEngine(
        settings.engine_url, model=settings.engine_model, api_key=settings.engine_api_key
    )


def _local_roles(settings: Settings) -> dict[EngineRole, EngineSpec]:
    common = {
        "trust_remote_code": settings.trust_remote_code,
        "hf_token": settings.hf_token,
        "memory_limit_bytes": settings.memory_limit_bytes,
        "quant_cache_dir": settings.quant_cache_dir,
        "native_kernels": settings.native_kernels,
        "sequences": settings.max_concurrent_generations,
        # As sessions: it is what users sent.
        "keep_s": settings.sessions_ttl_seconds,
    }
    ModelServiceV4.configure(
        model_id=settings.v4_model_id,
        revision=settings.v4_model_revision,
        weights=settings.v4_weights,
        **common,
    )
    common |= {"device_map": settings.device_map, "weights": settings.torch_dtype}
    chat_id = settings.model_repo_id or settings.v4_model_id
    ChatModel.configure(model_id=chat_id, setting="MODEL_REPO_ID", **common)
    VisionModel.configure(model_id=settings.vision_model_id, setting="VISION_MODEL_ID", **common)

    def assigned(loader: type[ModelServiceV4]) -> EngineSpec:
        return EngineSpec(loader.model_id(), lambda: _local(settings, loader))

    roles: dict[EngineRole, EngineSpec] = {"summary": assigned(ModelServiceV4)}
    if _has_vision(settings):
        roles["vision"] = assigned(VisionModel)
    roles["chat"] = assigned(ChatModel)
    return roles


def _local(settings: Settings, loader: type[ModelServiceV4]) -> Engine:
    return LocalEngine(
        loader,
        slots=settings.max_concurrent_generations,
        # The sessions' own limit refuses before any work; one more here never has to.
        max_waiting=settings.max_queue + settings.max_concurrent_generations,
        idle_unload_s=settings.model_idle_unload_seconds or None,
    )


def _model_info(engine: Engine) -> Callable[[], dict[str, Any]]:
    """Return what tells of an engine's model without asking or loading anything."""
    told: Callable[[], dict[str, Any]] | None = getattr(engine, "info", None)
    return told or (lambda: {"model_id": engine.model, "loaded": True})


def _mount(app: FastAPI, settings: Settings) -> None:
    app.include_router(health.router)
    app.include_router(docs.router)
    docs.mount_assets(app)
    app.include_router(pages.router)
    pages.mount_assets(app)
    app.include_router(openai.router)
    app.include_router(sessions_api.router)
    app.include_router(jobs.router)
    app.include_router(v3.router)
    if settings.enable_v4_structured:
        app.include_router(v4.router)
    # The last one added is the first that a request passes.
    app.add_middleware(ServerErrorMiddleware)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        # Chats hold images as base64.
        larger={"/v1/chat/completions": settings.max_media_body_bytes},
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
        expose_headers=["Location", "X-Request-ID", "X-Session-ID", "Retry-After"],
    )
    app.add_middleware(RequestContext)


async def _sweep(parts: Services, ttl_s: float) -> None:
    while True:
        await asyncio.sleep(_sweep_interval_s(ttl_s))
        await parts.summarizer.sweep()
        with suppress(LogUnavailable):
            await parts.sessions.sweep()


async def _forget(ttl_s: float) -> None:
    """Let go what models keep of prompts whose time is over, also when nobody asks any more."""
    while True:
        await asyncio.sleep(_sweep_interval_s(ttl_s))
        for loader in (ModelServiceV4, ChatModel, VisionModel):
            if gone := loader.forget_expired():
                # In a thread: giving a gigabyte back takes tenths of a second.
                await asyncio.to_thread(gone.clear)


def _sweep_interval_s(ttl_s: float) -> float:
    return min(SWEEP_INTERVAL_S, max(0.1, ttl_s / 4))


async def _preload() -> None:
    """Load the model, after its download if there must be one (C10)."""
    while True:
        try:
            await asyncio.to_thread(ModelServiceV4.get_model)
            return
        except EngineUnavailable as error:
            if error.code != "model_downloading":
                log.warning("preload_failed", code=error.code, reason=error.message)
                return
        except Exception:
            # Nothing beside the requests may take the server down with it.
            log.exception("preload_failed")
            return
        await asyncio.sleep(PRELOAD_RETRY_S)


async def _close(parts: Services) -> None:
    await parts.sessions.aclose()
    await parts.summarizer.aclose()
    await parts.engines.aclose()
    await article_scraper_service.aclose()


app = create_app()
