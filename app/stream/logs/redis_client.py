"""Connects to Redis and translates its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError

from app.core.errors import LogUnavailable

CONNECT_TIMEOUT_S = 2.0


def connect(url: str, connections: int, timeout_s: float) -> Redis:
    """Return a client that waits for one of its connections when all are in use.

    No command is tried twice: whether one that got no answer was done is not known.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout_s,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
    )
    return Redis(connection_pool=pool)


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the Redis client raises as `LogUnavailable`."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise unavailable(exc) from exc


def unavailable(exc: Exception) -> LogUnavailable:
    """Return an error of the Redis client as one for users."""
    if isinstance(exc, AuthenticationError):
        return LogUnavailable("Redis refuses the password; correct it in SESSIONS_URL")
    if isinstance(exc, OutOfMemoryError):
        return LogUnavailable("Redis is full; raise its maxmemory or wait until sessions are swept")
    return LogUnavailable("Redis, where sessions are kept, does not answer now; try again soon")
