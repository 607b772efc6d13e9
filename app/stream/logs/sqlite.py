"""The log in one SQLite file: it survives the process, and processes of one host may share it.

It knows of other processes only what the file says: it polls for what they write there.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from app.core.errors import AppError, EventsGone, LogUnavailable
from app.stream.event import Event
from app.stream.log import Header, Page, not_kept
from app.stream.logs.processes import alive, enter, leave
from app.stream.logs.sqlite_file import open_file, transaction
from app.stream.logs.write_through import Append, Packed, WriteThroughLog, Written, unpack

# How soon a follower sees what another process wrote, and a session that it was stopped there.
POLL_S = 0.05
STOPS_POLL_S = 0.25
# A transaction of the sweep keeps sessions from writing for as long as it takes.
SWEPT_AT_ONCE = 64

HEADER = "run, session_id, kind, owner, fingerprint"

Row = tuple[Any, ...]
Result = TypeVar("Result")


class SqliteLog(WriteThroughLog):
    """An `EventLog` in the file at `path`, which is made on first use and keeps every event.

    One thread writes and one reads, each with its own connection, so readers never wait for a
    writer. The file holds what users sent, so only its owner may read it. `max_bytes`: how large it
    may grow; a full file refuses events until ended runs are swept.
    """

    def __init__(self, path: str, *, max_bytes: int | None = None) -> None:
        super().__init__()
        self._writing = _Thread(partial(open_file, Path(path), max_bytes=max_bytes))
        self._reading = _Thread(partial(open_file, Path(path), writes=False))
        self._process = enter()
        self._told: set[str] = set()

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
            new, self._told = stopped - self._told, stopped
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
        leave(self._process)
        await self._reading.aclose()
        await self._writing.aclose()

    async def _claim(self, header: Header, shared: bool) -> Header:
        def claim(db: sqlite3.Connection) -> Header:
            with transaction(db):
                held = _holder(db, header, shared)
                if held is not None:
                    return held
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
                return [_append(db, job.run, job.packed) for job in batch]

        return await self._writing.do(write)

    async def _fetch(self, run: str, after: int, limit: int) -> Page:
        return await self._reading.do(lambda db: _read(db, run, after, limit))

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
        return await self._reading.do(lambda db: _lost(db, self._process))

    async def _drop(self, older_than_s: float) -> int:
        limit = time.time() - older_than_s
        dropped = 0
        while True:
            runs = await self._writing.do(lambda db: _sweep(db, limit))
            dropped += runs
            if runs < SWEPT_AT_ONCE:
                break
        if dropped:
            await self._writing.do(_give_back_space)
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


class _Thread:
    """A thread with a connection of its own, which it opens again after a failure."""

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


def _holder(db: sqlite3.Connection, header: Header, shared: bool) -> Header | None:
    """Return the running run that holds the id or, if `shared`, does the same."""
    rows = db.execute(
        f"SELECT process, {HEADER} FROM runs WHERE ended_at IS NULL AND NOT stopped"  # noqa: S608
        " AND owner = ? AND (session_id = ? OR (? AND shared AND fingerprint = ?))"
        " ORDER BY session_id = ? DESC, number DESC",
        (header.owner, header.session_id, shared, header.fingerprint, header.session_id),
    )
    for process, *found in rows:
        if alive(process):
            return Header(*found)
    return None


def _append(db: sqlite3.Connection, run: str, drafts: Sequence[Packed]) -> Written | AppError:
    row = db.execute("SELECT next_index, ended_at FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        return not_kept()
    index, ended_at = row
    if ended_at is not None or not drafts:
        return Written(index - 1, taken=False)
    rows = []
    for draft in drafts:
        rows.append((run, index, draft.kind, draft.data, draft.terminal))
        index += 1
        if draft.terminal:
            ended_at = time.time()
            break
    db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
    db.execute("UPDATE runs SET next_index = ?, ended_at = ? WHERE run = ?", (index, ended_at, run))
    return Written(index - 1, taken=True)


def _read(db: sqlite3.Connection, run: str, after: int, limit: int) -> Page:
    # One statement sees one state: the end of the run and its events cannot disagree.
    rows = db.execute(
        "SELECT r.next_index, r.ended_at, e.idx, e.kind, e.data, e.terminal"
        " FROM runs r LEFT JOIN events e ON e.run = r.run AND e.idx > ?"
        " WHERE r.run = ? ORDER BY e.idx LIMIT ?",
        (after, run, limit),
    ).fetchall()
    if not rows:
        raise not_kept()
    next_index, ended_at = rows[0][:2]
    if after >= max(next_index, 1):
        raise EventsGone(
            f"there are no events after index {after}: this session has 0 to {next_index - 1}; "
            "read it again from the start"
        )
    events = [
        Event(index, kind, unpack(data), bool(terminal))
        for _, _, index, kind, data, terminal in rows
        if index is not None
    ]
    last = events[-1].index if events else after
    return Page(events, ended=ended_at is not None and last == next_index - 1)


def _lost(db: sqlite3.Connection, process: str) -> list[Header]:
    rows = db.execute(
        f"SELECT process, {HEADER} FROM runs"  # noqa: S608
        " WHERE ended_at IS NULL AND process != ?",
        (process,),
    ).fetchall()
    lives = {other: alive(other) for other in {row[0] for row in rows}}
    return [Header(*header) for other, *header in rows if not lives[other]]


def _sweep(db: sqlite3.Connection, limit: float) -> int:
    with transaction(db):
        runs = db.execute(
            "SELECT run FROM runs WHERE ended_at <= ? LIMIT ?", (limit, SWEPT_AT_ONCE)
        ).fetchall()
        db.executemany("DELETE FROM events WHERE run = ?", runs)
        db.executemany("DELETE FROM runs WHERE run = ?", runs)
    return len(runs)


def _give_back_space(db: sqlite3.Connection) -> None:
    # As a script: it frees a page at each step and gives no rows, after which `execute` stops.
    db.executescript("PRAGMA incremental_vacuum")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
