"""What runs beside the requests: sweeping what is over, loading a model ahead of its first use.

Each function runs until it is cancelled or has nothing left to do.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from app.core.errors import EngineUnavailable, LogUnavailable
from app.engine.base import Engine
from app.services.summaries.summarizer import Summarizer
from app.stream.sessions import Sessions

SWEEP_INTERVAL_S = 5.0
PRELOAD_RETRY_S = 5.0

log = structlog.get_logger(__name__)


async def sweep(*sessions: Sessions, summarizer: Summarizer, ttl_s: float) -> None:
    """Drop what ended longer ago than each kind of session is kept."""
    while True:
        await asyncio.sleep(sweep_interval_s(ttl_s))
        await summarizer.sweep()
        for kept in sessions:
            with suppress(LogUnavailable):
                await kept.sweep()


def sweep_interval_s(ttl_s: float) -> float:
    """Return how often to look for what is older than `ttl_s`."""
    return min(SWEEP_INTERVAL_S, max(0.1, ttl_s / 4))


async def preload(engine: Engine) -> None:
    """Load the engine's model, after its download if there must be one (C10)."""
    while True:
        try:
            await engine.load()
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
