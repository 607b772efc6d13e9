"""What runs beside the requests: sweeping what is over, loading a model ahead of its first use.

Each function runs until it is cancelled or has nothing left to do.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from app.core.errors import DatabaseUnavailable, EngineUnavailable, LogUnavailable
from app.core.metrics import LOOP_LAG
from app.core.worker import WorkerPool
from app.engine.base import Engine
from app.services.market.market import Market
from app.services.summaries.summarizer import Summarizer
from app.stream.sessions import Sessions

SWEEP_INTERVAL_S = 5.0
PRELOAD_RETRY_S = 5.0
LAG_INTERVAL_S = 0.5

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


async def warm(workers: WorkerPool) -> None:
    """Start the processes that read pages, so that the first page need not wait for them."""
    try:
        await workers.warm()
    except Exception as failure:
        # They are started again with the first page.
        log.warning("workers_not_started", error=type(failure).__name__)


async def watch_loop() -> None:
    """Measure how late the event loop wakes up, which is how long something held it."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LAG_INTERVAL_S
        await asyncio.sleep(LAG_INTERVAL_S)
        LOOP_LAG.observe(max(0.0, loop.time() - due_s))


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


async def open_market(market: Market) -> None:
    """Open a database that is there already, so that its tables are brought up to date."""
    # Without it only the marketplace is away; who asks for it tries again, and is told.
    with suppress(DatabaseUnavailable):
        await market.parts()
