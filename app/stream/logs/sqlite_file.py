"""The file of the SQLite log: its tables, its permissions, its connections and transactions.

What the rows mean is not known here.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import LogUnavailable

VERSION = 1
BUSY_TIMEOUT_S = 5.0

# `attended_until` is the end of the lease; files of earlier versions have the column by that name.
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    session_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    shared INTEGER NOT NULL,
    process TEXT NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    next_index INTEGER NOT NULL DEFAULT 0,
    stopped INTEGER NOT NULL DEFAULT 0,
    attended_until REAL
);
CREATE INDEX IF NOT EXISTS runs_by_id ON runs (owner, session_id, number);
CREATE INDEX IF NOT EXISTS runs_running ON runs (owner, fingerprint) WHERE ended_at IS NULL;
CREATE INDEX IF NOT EXISTS runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS events (
    run TEXT NOT NULL,
    idx INTEGER NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    terminal INTEGER NOT NULL,
    PRIMARY KEY (run, idx)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""


def open_file(
    path: Path, *, writes: bool = True, max_bytes: int | None = None
) -> sqlite3.Connection:
    """Open the file, and make it if it is not there; `max_bytes`: how large it may grow.

    Raises:
        LogUnavailable: its folder is missing, or it is not a file of this server.
        sqlite3.Error: it cannot be used.
    """
    if not path.parent.is_dir():
        raise LogUnavailable("the folder of SESSIONS_DB_PATH does not exist; create it")
    try:
        # SQLite would make it readable to all; what it makes beside it gets the same rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as exc:
        raise LogUnavailable(
            "the server may not write where SESSIONS_DB_PATH is; correct the rights or the path"
        ) from exc
    deadline_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            db = _connect(path, writes=writes)
            break
        except sqlite3.OperationalError as exc:
            # SQLite does not itself wait for another process that makes the same file.
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline_s:
                raise
            time.sleep(0.01)
    if max_bytes is not None:
        page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {max_bytes // page_bytes}")
    return db


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Do everything inside or nothing; no other process writes meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _connect(path: Path, *, writes: bool) -> sqlite3.Connection:
    db = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        _prepare(db)
        if not writes:
            db.execute("PRAGMA query_only = ON")
    except BaseException:
        db.close()
        raise
    return db


def _prepare(db: sqlite3.Connection) -> None:
    # One statement, since another process may be making the tables.
    version, tables = db.execute(
        "SELECT user_version, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version"
    ).fetchone()
    if version > VERSION:
        raise LogUnavailable(
            "SESSIONS_DB_PATH was written by a newer version of this server; name another file"
        )
    if version == 0:
        if tables:
            raise LogUnavailable(
                "SESSIONS_DB_PATH is the database of something else; name another file"
            )
        # Only before the first table can it be said that deleted rows give their space back.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # What a client was sent survives a kill; a power cut may take the last moments.
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = NORMAL")
    if version == 0:
        db.executescript(SCHEMA)
