"""How often a caller may come: counted in Redis where processes share one, else in this process."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError

from app.core.errors import Overloaded

log = structlog.get_logger(__name__)

# A Redis that does not answer holds a request up for so long, and is then left alone for a while.
REDIS_TIMEOUT_S = 1.0
REDIS_RETRY_S = 5.0


class Rates:
    """Counts callers against one limit, such as `60/minute`.

    `storage_url`: a Redis that counts for all processes; while it is away, and without one, each
    process counts for itself. `retry_s`: how long a Redis that did not answer is left alone.
    """

    def __init__(
        self, limit: str, storage_url: str | None = None, *, retry_s: float = REDIS_RETRY_S
    ) -> None:
        self._limit: RateLimitItem = parse(limit)
        self._own = MovingWindowRateLimiter(MemoryStorage())
        self._shared: MovingWindowRateLimiter | None = None
        self._retry_s = retry_s
        self._away = False
        self._retry_at_s = 0.0
        if storage_url is not None and storage_url.startswith(("redis", "unix")):
            self._shared = MovingWindowRateLimiter(_redis(storage_url))

    async def count(self, caller: str) -> None:
        """Count one request.

        Raises:
            Overloaded: the caller came too often.
        """
        if self._shared is not None and time.monotonic() >= self._retry_at_s:
            try:
                await self._count(self._shared, caller)
            except StorageError as failure:
                self._retry_at_s = time.monotonic() + self._retry_s
                if not self._away:
                    self._away = True
                    log.warning("rates_not_shared", error=type(failure.storage_error).__name__)
            else:
                self._away = False
                return
        await self._count(self._own, caller)

    async def forget(self, caller: str) -> None:
        """Begin anew with a caller who has shown that he may come."""
        await self._own.clear(self._limit, caller)
        if self._shared is not None and not self._away:
            with suppress(StorageError):
                await self._shared.clear(self._limit, caller)

    async def _count(self, limiter: MovingWindowRateLimiter, caller: str) -> None:
        if await limiter.hit(self._limit, caller):
            return
        window = await limiter.get_window_stats(self._limit, caller)
        wait_s = max(1, math.ceil(window.reset_time - time.time()))
        raise Overloaded(
            f"more than {self._limit}; wait {wait_s} s", code="rate_limited", retry_after_s=wait_s
        )


def _redis(url: str) -> Storage:
    # The library knows a socket of the file system under another scheme.
    url = f"redis+{url}" if url.startswith("unix") else url
    return RedisStorage(
        f"async+{url}",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="precis:rates",
        socket_connect_timeout=REDIS_TIMEOUT_S,
        socket_timeout=REDIS_TIMEOUT_S,
    )
