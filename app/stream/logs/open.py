"""Turns the URL of a log into the log."""

from __future__ import annotations

from app.core.log_url import log_kind
from app.stream.log import EventLog


def open_log(url: str) -> EventLog:
    """Return the log that a URL names: `memory:`, `sqlite:PATH` or `redis://HOST:PORT/DB`.

    Nothing is connected or created yet.

    Raises:
        ValueError: no log has such an address.
    """
    kind = log_kind(url)
    if kind == "memory":
        from app.stream.logs.memory import MemoryLog

        return MemoryLog()
    if kind == "sqlite":
        from app.stream.logs.sqlite import SqliteLog

        return SqliteLog(url.removeprefix("sqlite:"))
    from app.stream.logs.redis import RedisLog

    return RedisLog(url)
