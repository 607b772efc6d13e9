"""The addresses that name a log of events, known once: to the setting, and to what opens a log."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

LogKind = Literal["memory", "sqlite", "redis"]

_REDIS = ("redis://", "rediss://", "unix://")


def log_kind(url: str) -> LogKind:
    """Return which log an address names: `memory:`, `sqlite:PATH` or `redis://HOST:PORT/DB`.

    Raises:
        ValueError: no log has such an address. The message does not repeat it: it may hold a
            password.
    """
    if url == "memory:":
        return "memory"
    if url.startswith("sqlite:") and url != "sqlite:":
        return "sqlite"
    if url.startswith(_REDIS) and _has_a_legal_port(url):
        return "redis"
    raise ValueError("use redis://HOST:PORT/DB, sqlite:PATH or memory:")


def _has_a_legal_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
