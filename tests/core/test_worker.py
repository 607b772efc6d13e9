"""Work that a stranger's bytes make: it ends at its deadline, and nothing else waits for it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.core.errors import ScrapeFailed
from app.core.worker import WorkerKilled, WorkerPool
from tests.servers import until

WAIT_S = 30.0


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    opened = WorkerPool("test", processes=2, cpu_s=1.0, memory_bytes=300_000_000)
    yield opened
    opened.close()


def echo(text: str, *, times: int = 1) -> str:
    return text * times


def refuse() -> None:
    raise ScrapeFailed("no article here", code="no_article")


def spin() -> None:
    while True:
        pass


def fill() -> int:
    return len(bytearray(2_000_000_000))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(pid_file: str) -> None:
    Path(pid_file).write_text(str(os.getpid()))
    while True:
        time.sleep(3600)


async def test_results_and_errors_come_back_whole(pool: WorkerPool) -> None:
    assert await pool.run(echo, "ab", times=3) == "ababab"
    with pytest.raises(ScrapeFailed) as refused:
        await pool.run(refuse)
    assert (refused.value.code, refused.value.message) == ("no_article", "no article here")
    assert refused.value.status == 400


@pytest.mark.parametrize("work", [spin, fill, die])
async def test_what_takes_too_much_is_ended(pool: WorkerPool, work: object) -> None:
    """Pitfall: a thread that reads a hostile file cannot be stopped."""
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(WorkerKilled):
            await pool.run(work)  # type: ignore[arg-type]
        assert await pool.run(echo, "next") == "next"


async def test_the_time_of_one_task_is_not_that_of_the_next(pool: WorkerPool) -> None:
    """A process that has worked for long is not ended for it."""

    async with asyncio.timeout(WAIT_S):
        for _ in range(6):
            await pool.run(_half_a_second)


def _half_a_second() -> None:
    started_s = time.process_time()
    while time.process_time() - started_s < 0.5:
        pass


async def test_who_leaves_ends_the_work(pool: WorkerPool, tmp_path: Path) -> None:
    """A page that nobody waits for any more is not read."""
    pid_file = tmp_path / "pid"
    running = asyncio.create_task(pool.run(wait_for_ever, str(pid_file)))
    await asyncio.to_thread(until, pid_file.exists)
    await asyncio.to_thread(until, lambda: pid_file.read_text() != "")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pid = int(pid_file.read_text())
    await asyncio.to_thread(until, lambda: not psutil.pid_exists(pid))


async def test_a_hostile_task_does_not_hold_up_the_others(pool: WorkerPool) -> None:
    spinning = asyncio.create_task(pool.run(spin))
    async with asyncio.timeout(WAIT_S):
        for number in range(20):
            assert await pool.run(echo, str(number)) == str(number)
        with pytest.raises(WorkerKilled):
            await spinning


def test_nothing_is_left_behind_by_a_server_that_a_signal_ends() -> None:
    """uvicorn raises the signal again, so nothing that Python does at its exit is done."""
    program = (
        "import asyncio, os, signal\n"
        "from app.core.worker import WorkerPool, close_all\n"
        "pool = WorkerPool('test', processes=1, cpu_s=2, memory_bytes=1 << 30)\n"
        "asyncio.run(pool.warm())\n"
        "close_all()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    # The resource tracker outlives it, and says what was left before it closes its standard error.
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGTERM
    assert "leaked" not in done.stderr
