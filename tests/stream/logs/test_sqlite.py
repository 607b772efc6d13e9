"""The log in a file: who may read it, what it survives, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.core.errors import LogUnavailable
from app.stream.logs.sqlite import SqliteLog
from app.stream.sessions import Sessions
from tests.stream.logs.test_durable import END, WAIT_S, header, open_server, text
from tests.stream.logs.writer_program import failure, started
from tests.stream.test_session import Source, all_events


def sizes_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def modes(folder: Path) -> list[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()]


@pytest.fixture
def db_path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


async def test_a_killed_process_is_noticed_at_once_by_its_file(db_path: Path) -> None:
    """S1.28: a session that a crash cut short ends with `interrupted`."""
    url = f"sqlite:{db_path}"
    process = started(url, "idle")
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline)
    sessions = open_server(url)
    await sessions.recover()
    found = await sessions.find("", "mine")
    assert found is not None
    assert [event.data for event in await sessions.snapshot(found)] == ["a"]
    following = asyncio.create_task(all_events(sessions, found))
    # Not waited for: a process whose exit status nobody has read is dead too.
    process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        while not following.done():
            await sessions.recover()
    assert [event.data for event in await following] == ["a", {"code": "interrupted"}]
    process.wait(WAIT_S)
    process.stdout.close()
    await sessions.aclose()


async def test_only_the_servers_user_may_read_the_file(db_path: Path) -> None:
    """The file holds article text."""
    log = SqliteLog(str(db_path))
    assert modes(db_path.parent) == []
    await log.open(header())
    # What SQLite makes beside the file holds the same.
    assert modes(db_path.parent) == [0o600] * 3
    await log.aclose()


async def test_a_missing_folder_is_named_by_its_setting_and_may_come_later(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "secret-name"
    log = SqliteLog(str(folder / "sessions.db"))
    with pytest.raises(LogUnavailable, match="SESSIONS_DB_PATH") as refused:
        await log.open(header())
    assert "secret-name" not in refused.value.message
    folder.mkdir()
    assert await log.open(header()) == header()
    await log.aclose()


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all, but as long as one" * 100)


def other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE customers (name)")


def newer_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")


@pytest.fixture(params=[no_database, other_database, newer_database])
def foreign_path(request: pytest.FixtureRequest, db_path: Path) -> Iterator[Path]:
    """A file that something else made, and that stays as it is."""
    request.param(db_path)
    before = db_path.read_bytes()
    yield db_path
    assert db_path.read_bytes() == before


async def test_a_file_of_something_else_is_left_alone(foreign_path: Path) -> None:
    log = SqliteLog(str(foreign_path))
    for step in (log.open(header()), log.find("", "s1"), log.heartbeat()):
        with pytest.raises(LogUnavailable, match="SESSIONS_DB_PATH"):
            await step
    await log.aclose()


async def test_sweeping_gives_the_space_back(db_path: Path) -> None:
    """The file does not only grow."""
    log = SqliteLog(str(db_path))
    for number in range(100):
        await log.open(header(f"r{number}", f"s{number}"))
        await log.append(f"r{number}", [text("x" * 20_000), END])
    await log.aclose()
    assert sizes_bytes(db_path.parent) > 2_000_000
    log = SqliteLog(str(db_path))
    assert await log.sweep(0) == 100
    assert sizes_bytes(db_path.parent) < 200_000
    await log.aclose()


async def test_a_full_disk_ends_the_session_with_an_error_and_room_heals_it(
    db_path: Path,
) -> None:
    """No stream hangs or lies; nothing needs a restart."""
    log = SqliteLog(str(db_path), max_bytes=400_000)
    sessions = Sessions(log, endings={"k": failure}, ttl_s=0.0)
    old = Source()
    old.put(text("x" * 300_000), END)
    await all_events(sessions, await sessions.start("k", old))
    source = Source()
    started_header = await sessions.start("k", source)
    source.put(text("a"), text("y" * 300_000))
    seen = await all_events(sessions, started_header)
    assert [event.data for event in seen] == ["a", {"code": "log_unavailable"}]
    assert await sessions.sweep() == 2
    again = Source()
    again.put(text("z" * 300_000), END)
    assert len(await all_events(sessions, await sessions.start("k", again))) == 2
    await sessions.aclose()


async def test_a_file_that_many_make_at_once_is_made_once(db_path: Path) -> None:
    logs = [SqliteLog(str(db_path)) for _ in range(8)]
    opened = await asyncio.gather(*(log.open(header(f"r{n}")) for n, log in enumerate(logs)))
    assert len(set(opened)) == 1
    for log in logs:
        await log.aclose()
