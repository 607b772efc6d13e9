"""Repeats a step for ever beside the requests, whatever becomes of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from app.core.errors import LogUnavailable

log = structlog.get_logger(__name__)


async def repeat_forever(
    step: Callable[[], Awaitable[None]], pause_s: float, *, away_s: float
) -> None:
    """Repeat a step; a log that is away is reported once, and asked again after `away_s`."""
    away = False
    while True:
        try:
            await step()
            if away:
                log.info("event_log_is_back")
            away = False
        except LogUnavailable:
            if not away:
                log.warning("event_log_is_away")
            away = True
        except Exception:
            log.exception("tending_failed")
            away = True
        await asyncio.sleep(away_s if away else pause_s)
