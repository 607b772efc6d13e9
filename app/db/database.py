"""The connections to the marketplace's database: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.core.errors import DatabaseUnavailable

FILE_NAME = "market.db"
# How long a writer waits for another one's transaction.
BUSY_S = 15.0
POOL = {"pool_size": 8, "max_overflow": 0, "pool_timeout": 10.0}


def url_of(database_url: str | None, data_dir: str) -> str:
    """Return the address: what is set, else a file in the data folder."""
    return database_url or f"sqlite:///{Path(data_dir) / FILE_NAME}"


def sync_engine(url: str) -> Engine:
    """Return an engine for migrations and the command line; SQLite's folder is made."""
    if not is_sqlite(url):
        return create_engine(url, connect_args={"connect_timeout": 5})
    if folder := Path(make_url(url).database or "").parent:
        folder.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_S})
    _make_safe(engine)
    return engine


def is_sqlite(url: str) -> bool:
    """Say whether an address is that of a file."""
    return url.startswith("sqlite:")


def async_engine(url: str) -> AsyncEngine:
    """Return the engine of a server; nothing connects yet."""
    if not is_sqlite(url):
        return create_async_engine(
            url, connect_args={"connect_timeout": 5}, pool_pre_ping=True, **POOL
        )
    engine = create_async_engine(
        url.replace("sqlite:", "sqlite+aiosqlite:", 1), connect_args={"timeout": BUSY_S}, **POOL
    )
    _make_safe(engine.sync_engine)
    return engine


def _make_safe(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        # The driver would begin a transaction only before a write, and not before a DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "cache_size=-65536",
            "mmap_size=268435456", "temp_store=MEMORY",
        ):  # fmt: skip
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _(connection: Any) -> None:
        # A transaction that reads first and writes later could not wait for another writer.
        mode = connection.get_execution_options().get("begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")


class Database:
    """What the services read and write with.

    Raises (its methods): DatabaseUnavailable where the database cannot answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = is_sqlite(url)
        self._engine = async_engine(url)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection whose transaction sees one state of the data."""
        with _translated():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection whose transaction is kept when the block ends well."""
        with _translated():
            async with self._engine.connect() as connection:
                await connection.execution_options(begin="IMMEDIATE")
                async with connection.begin():
                    yield connection

    async def aclose(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


@contextlib.contextmanager
def _translated() -> Any:
    try:
        yield
    except (OperationalError, PoolTimeout, OSError) as failure:
        raise unavailable() from failure
    except DBAPIError as failure:
        if failure.connection_invalidated:
            raise unavailable() from failure
        raise


def unavailable() -> DatabaseUnavailable:
    """Return the error of a database that does not answer."""
    return DatabaseUnavailable(
        "the marketplace's database does not answer now; try again in a moment"
    )
