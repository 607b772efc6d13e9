"""Settings in, parts out: which engine serves which role, and what the endpoints are handed.

Building needs no network and loads no model. Nothing runs here: see background.py and main.py.
"""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version

from app.api.deps import Services
from app.api.jobs.wire import JOB, job_failure
from app.api.ocr.wire import CARD, card_failure
from app.api.openai.wire import CHAT, chat_failure, chat_trailer
from app.api.v3.wire import PROSE, prose_failure
from app.api.v4.wire import PATCHES, TEXT, patch_failure, text_failure
from app.background import sweep_interval_s
from app.core.config import Settings
from app.engine.base import Engine
from app.engine.extractive.engine import ExtractiveEngine
from app.engine.local.engine import LocalEngine
from app.engine.local.model_service import ChatModel, ModelService
from app.engine.local.vision_model import VisionModel
from app.engine.registry import EngineRole, EngineSpec, Registry
from app.services.article_scraper import article_scraper_service
from app.services.articles.writer import ArticleWriter
from app.services.chat.request import Chat
from app.services.fetching.fetch import FetchPolicy
from app.services.market.market import Market
from app.services.media.reader import MediaReader
from app.services.model_loader_v4 import ModelServiceV4
from app.services.ocr.reader import CardReader
from app.services.summaries.summarizer import Summarizer
from app.stream.logs.memory import MemoryLog
from app.stream.logs.open import open_log
from app.stream.sessions import Sessions

# How long a response may wait for its first event; clients bear 15 s of silence.
HOLD_S = 12.0
# What an ID card says is gone a minute after its session's end, sweeping included (contract 5).
PRIVATE_TTL_S = 50.0
PRIVATE_TIMEOUT_S = 180.0
# Each holds a decoded image of up to 12 MB while it waits for its turn.
MAX_CARDS = 16

try:
    VERSION = version("precis")
except PackageNotFoundError:
    VERSION = "0.1.0"


def build(settings: Settings, engine: Engine | None = None) -> Services:
    """Return the parts of one application; `engine` stands in for those that the settings name."""
    policy = _fetch_policy(settings)
    article_scraper_service.configure(
        allow_hosts=policy.allow_hosts,
        timeout_s=policy.timeout_s,
        max_bytes=policy.max_bytes,
        max_redirects=policy.max_redirects,
        ports=policy.ports,
        user_agent=policy.user_agent,
        cache_ttl_s=settings.page_cache_ttl_seconds,
        cache_size=settings.page_cache_size,
    )
    engines = Registry(_roles(settings, engine))
    summary, chat = engines["summary"], engines["chat"]
    return Services(
        sessions=_sessions(settings),
        memory_sessions=_memory_sessions(settings),
        private_kinds=frozenset((CARD,)),
        cards=CardReader(engines.get("vision")),
        summarizer=Summarizer(
            summary,
            _fallback(settings, summary),
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
        market=_market(settings),
        engine=summary,
        engines=engines,
        model_info=summary.info,
        roles_info=lambda: {
            role: {"engine": engine.name, **engine.info()}
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


def _sessions(settings: Settings) -> Sessions:
    places = settings.max_concurrent_generations + settings.max_queue
    return Sessions(
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
        max_active=places,
        max_active_per_client=settings.max_active_per_client or max(2, places // 4),
    )


def _memory_sessions(settings: Settings) -> Sessions:
    """Return the sessions that no log but memory may keep, whatever `SESSIONS_URL` says."""
    return Sessions(
        MemoryLog(),
        endings={CARD: card_failure},
        ttl_s=min(PRIVATE_TTL_S, settings.sessions_ttl_seconds),
        timeout_s=min(PRIVATE_TIMEOUT_S, settings.generation_timeout_seconds),
        max_active=MAX_CARDS,
    )


def _market(settings: Settings) -> Market:
    return Market(
        data_dir=settings.data_dir,
        database_url=settings.database_url,
        migrate=settings.migrate,
        jwt_keys=settings.jwt_keys,
        access_token_s=settings.access_token_seconds,
        refresh_days=settings.refresh_token_days,
        login_rate=settings.login_rate_limit,
    )


def _fallback(settings: Settings, summary: Engine) -> Engine | None:
    """Return what summarizes when `summary` cannot (C19); it is no fallback for itself."""
    if settings.fallback_engine == "none" or summary.name == ExtractiveEngine.name:
        return None
    return ExtractiveEngine()


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
        user_agent=settings.fetch_user_agent,
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
    summary = {"revision": settings.v4_model_revision, "weights": settings.v4_weights}
    ModelServiceV4.configure(model_id=settings.v4_model_id, **summary, **common)
    others = {
        "device_map": settings.device_map,
        "weights": settings.torch_dtype,
        "revision": None,
    }
    chat_id = settings.model_repo_id or settings.v4_model_id
    ChatModel.configure(model_id=chat_id, setting="MODEL_REPO_ID", **others, **common)
    vision_id = settings.vision_model_id
    if vision_id == settings.v4_model_id:
        others |= summary
    VisionModel.configure(model_id=vision_id, setting="VISION_MODEL_ID", **others, **common)

    def spec(model: type[ModelService]) -> EngineSpec:
        return EngineSpec(model.model_id(), lambda: _local(settings, model))

    roles: dict[EngineRole, EngineSpec] = {}
    # First: what reads images also reads texts, and roles of one model share the first's engine.
    if _has_vision(settings):
        roles["vision"] = spec(VisionModel)
    roles["summary"] = spec(ModelServiceV4)
    roles["chat"] = spec(ChatModel)
    return roles


def _local(settings: Settings, model: type[ModelService]) -> Engine:
    return LocalEngine(
        model,
        slots=settings.max_concurrent_generations,
        # The sessions' own limit refuses before any work; one more here never has to.
        max_waiting=settings.max_queue + settings.max_concurrent_generations,
        idle_unload_s=settings.model_idle_unload_seconds or None,
        forget_interval_s=sweep_interval_s(settings.sessions_ttl_seconds),
    )
