"""What the SQLite log does with its tables; each function is given a connection and is one step.

The tables are in `sqlite_file.py`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from app.core.errors import AppError, EventsGone
from app.stream.event import Event
from app.stream.log import Header, Page, not_kept
from app.stream.logs.processes import is_alive
from app.stream.logs.sqlite_file import transaction
from app.stream.logs.write_through import Packed, Written, unpack

# A transaction of the sweep keeps sessions from writing for as long as it takes.
SWEPT_AT_ONCE = 64

HEADER = "run, session_id, kind, owner, fingerprint"


def find_holder(db: sqlite3.Connection, header: Header, shared: bool) -> Header | None:
    """Return the running run that holds the id or, if `shared`, has the same fingerprint."""
    rows = db.execute(
        f"SELECT process, {HEADER} FROM runs WHERE ended_at IS NULL AND NOT stopped"  # noqa: S608
        " AND owner = ? AND (session_id = ? OR (? AND shared AND fingerprint = ?))"
        " ORDER BY session_id = ? DESC, number DESC",
        (header.owner, header.session_id, shared, header.fingerprint, header.session_id),
    )
    for process, *found in rows:
        if is_alive(process):
            return Header(*found)
    return None


def append(db: sqlite3.Connection, run: str, drafts: Sequence[Packed]) -> Written | AppError:
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


def read(db: sqlite3.Connection, run: str, after: int, limit: int) -> Page:
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


def lost_runs(db: sqlite3.Connection, process: str) -> list[Header]:
    rows = db.execute(
        f"SELECT process, {HEADER} FROM runs"  # noqa: S608
        " WHERE ended_at IS NULL AND process != ?",
        (process,),
    ).fetchall()
    lives = {other: is_alive(other) for other in {row[0] for row in rows}}
    return [Header(*header) for other, *header in rows if not lives[other]]


def sweep(db: sqlite3.Connection, limit: float) -> int:
    with transaction(db):
        runs = db.execute(
            "SELECT run FROM runs WHERE ended_at <= ? LIMIT ?", (limit, SWEPT_AT_ONCE)
        ).fetchall()
        db.executemany("DELETE FROM events WHERE run = ?", runs)
        db.executemany("DELETE FROM runs WHERE run = ?", runs)
    return len(runs)


def release_space(db: sqlite3.Connection) -> None:
    # As a script: it frees a page at each step and gives no rows, after which `execute` stops.
    db.executescript("PRAGMA incremental_vacuum")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
