"""The log in one SQLite file: it survives the process, and processes of one host may share it.

Processes see each other's events and stop requests by polling the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app.core.errors import AppError
from app.stream.log import Header, Page, not_kept
from app.stream.logs.processes import register, unregister
from app.stream.logs.sqlite_file import open_file, transaction
from app.stream.logs.sqlite_queries import (
    HEADER,
    SWEPT_AT_ONCE,
    append,
    find_holder,
    lost_runs,
    read,
    release_space,
    sweep,
)
from app.stream.logs.sqlite_thread import SqliteThread
from app.stream.logs.write_through import Append, WriteThroughLog, Written

# How often followers look for events, and a process for stop requests, that another one wrote.
POLL_S = 0.05
STOPS_POLL_S = 0.25
Row = tuple[Any, ...]


class SqliteLog(WriteThroughLog):
    """An `EventLog` in the file at `path`, which is made on first use and keeps every event.

    One thread writes and one reads, each with its own connection, so readers never wait for a
    writer. The file holds what users sent, so only its owner may read it. `max_bytes`: how large it
    may grow; a full file takes no events until ended runs are swept.
    """

    def __init__(self, path: str, *, max_bytes: int | None = None) -> None:
        super().__init__()
        self._writing = SqliteThread(partial(open_file, Path(path), max_bytes=max_bytes))
        self._reading = SqliteThread(partial(open_file, Path(path), writes=False))
        self._process = register()
        self._reported_stops: set[str] = set()

    async def find(self, owner: str, session_id: str) -> Header | None:
        row = await self._row(
            f"SELECT {HEADER} FROM runs WHERE owner = ? AND session_id = ?"  # noqa: S608
            " ORDER BY number DESC LIMIT 1",
            (owner, session_id),
        )
        return Header(*row) if row else None

    async def request_stop(self, owner: str, session_id: str) -> None:
        await self._change(
            "UPDATE runs SET stopped = 1 WHERE number ="
            " (SELECT max(number) FROM runs WHERE owner = ? AND session_id = ?)"
            " AND ended_at IS NULL",
            (owner, session_id),
        )

    async def stop_requests(self, timeout_s: float) -> list[str]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            rows = await self._rows(
                "SELECT run FROM runs WHERE ended_at IS NULL AND stopped AND process = ?",
                (self._process,),
            )
            stopped = {run for (run,) in rows}
            new, self._reported_stops = stopped - self._reported_stops, stopped
            left_s = deadline_s - time.monotonic()
            if new or left_s <= 0:
                return sorted(new)
            await asyncio.sleep(min(STOPS_POLL_S, left_s))

    async def renew_lease(self, run: str, for_s: float) -> None:
        await self._change(
            "UPDATE runs SET attended_until = max(coalesce(attended_until, 0), ?) WHERE run = ?",
            (time.time() + for_s, run),
        )

    async def lease_left_s(self, run: str) -> float:
        row = await self._row("SELECT attended_until FROM runs WHERE run = ?", (run,))
        if row is None or row[0] is None:
            return float("-inf")
        return float(row[0]) - time.time()

    async def aclose(self) -> None:
        await super().aclose()
        unregister(self._process)
        await self._reading.aclose()
        await self._writing.aclose()

    async def _claim(self, header: Header, shared: bool) -> Header:
        def claim(db: sqlite3.Connection) -> Header:
            with transaction(db):
                holder = find_holder(db, header, shared)
                if holder is not None:
                    return holder
                db.execute(
                    "INSERT INTO runs (run, session_id, kind, owner, fingerprint, shared, process,"
                    " created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(header.run, header.session_id, header.kind, header.owner),
                        *(header.fingerprint, shared, self._process, time.time()),
                    ),
                )
            return header

        return await self._writing.do(claim)

    async def _write(self, batch: Sequence[Append]) -> Sequence[Written | AppError]:
        def write(db: sqlite3.Connection) -> list[Written | AppError]:
            with transaction(db):
                return [append(db, job.run, job.packed) for job in batch]

        return await self._writing.do(write)

    async def _fetch(self, run: str, after: int, limit: int) -> Page:
        return await self._reading.do(lambda db: read(db, run, after, limit))

    async def _watch(self, run: str, after: int, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        while True:
            row = await self._row("SELECT next_index, ended_at FROM runs WHERE run = ?", (run,))
            if row is None:
                raise not_kept()
            left_s = deadline_s - time.monotonic()
            if row[0] > after + 1 or row[1] is not None or left_s <= 0:
                return
            if await self._pause(run, min(POLL_S, left_s)):
                return

    async def _heartbeat(self) -> list[Header]:
        return await self._reading.do(lambda db: lost_runs(db, self._process))

    async def _drop(self, older_than_s: float) -> int:
        limit = time.time() - older_than_s
        dropped = 0
        while True:
            runs = await self._writing.do(lambda db: sweep(db, limit))
            dropped += runs
            if runs < SWEPT_AT_ONCE:
                break
        if dropped:
            await self._writing.do(release_space)
        return dropped

    async def _rows(self, sql: str, values: Sequence[object]) -> list[Row]:
        return await self._reading.do(lambda db: db.execute(sql, values).fetchall())

    async def _row(self, sql: str, values: Sequence[object]) -> Row | None:
        rows = await self._rows(sql, values)
        return rows[0] if rows else None

    async def _change(self, sql: str, values: Sequence[object]) -> None:
        def change(db: sqlite3.Connection) -> None:
            with transaction(db):
                db.execute(sql, values)

        await self._writing.do(change)
