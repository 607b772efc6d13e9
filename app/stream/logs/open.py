"""Turns the URL of a log into the log."""

from __future__ import annotations

from app.stream.log import EventLog


def open_log(url: str) -> EventLog:
    """Return the log that a URL names: `memory:`, `sqlite:PATH` or `redis://HOST:PORT/DB`.

    Nothing is connected or created yet.

    Raises:
        ValueError: no log of that scheme exists.
    """
    scheme, _, rest = url.partition(":")
    if url == "memory:":
        from app.stream.logs.memory import MemoryLog

        return MemoryLog()
    if scheme == "sqlite" and rest:
        from app.stream.logs.sqlite import SqliteLog

        return SqliteLog(rest)
    if scheme in ("redis", "rediss", "unix"):
        from app.stream.logs.redis import RedisLog

        return RedisLog(url)
    raise ValueError(f"no event log for {scheme!r}: use memory:, sqlite:PATH or redis://HOST:PORT")
