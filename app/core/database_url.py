"""The address of the marketplace's database: which kinds there are. Never repeated in a message."""

from __future__ import annotations

from urllib.parse import urlsplit

_POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")


def database_url(value: str) -> str:
    """Return the address as SQLAlchemy reads it, without a driver for SQLite.

    Raises:
        ValueError: it is of no known kind; what it holds is not repeated, as it may be a password.
    """
    scheme, separator, rest = value.partition("://")
    if separator and scheme in _POSTGRESQL:
        try:
            parts = urlsplit(value)
            named = bool(parts.path.strip("/") or parts.query)
            _ = parts.port
        except ValueError:
            named = False
        if named:
            return f"postgresql+psycopg://{rest}"
    if separator and scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        return value
    raise ValueError("write postgresql://USER:PASSWORD@HOST:PORT/NAME or sqlite:///FILE")
