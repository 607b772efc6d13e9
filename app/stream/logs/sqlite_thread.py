"""Runs steps on a SQLite connection in a thread, so that the event loop never waits for the disk.

Errors of SQLite become `LogUnavailable`. What the steps do is not known here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TypeVar

from app.core.errors import LogUnavailable

Result = TypeVar("Result")


class SqliteThread:
    """One thread and its connection, which is opened again after a failure."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._db: sqlite3.Connection | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="sqlite-log")

    async def do(self, step: Callable[[sqlite3.Connection], Result]) -> Result:
        """Run a step with the connection.

        Raises:
            LogUnavailable: the database cannot do it now.
        """
        return await self._submit(partial(self._do, step))

    async def aclose(self) -> None:
        """Close the connection after what is still to be done."""
        with suppress(LogUnavailable):
            await self._submit(self._close)
        self._executor.shutdown(wait=False)

    async def _submit(self, step: Callable[[], Result]) -> Result:
        try:
            running = self._executor.submit(step)
        except RuntimeError as exc:
            raise LogUnavailable("the server is stopping; try again in a moment") from exc
        return await asyncio.wrap_future(running)

    def _do(self, step: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            if self._db is None:
                self._db = self._connect()
            return step(self._db)
        except sqlite3.Error as exc:
            self._close()
            raise LogUnavailable(_reason(exc)) from exc

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()


def _reason(exc: sqlite3.Error) -> str:
    code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return "the disk where sessions are kept is full; make room there and try again"
    if code == sqlite3.SQLITE_NOTADB:
        return "SESSIONS_DB_PATH is not a database of sessions; name another file"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return "the server may not write where SESSIONS_DB_PATH is; correct the rights or the path"
    return "the database of sessions cannot be used now; try again soon"
