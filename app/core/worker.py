"""Work on strangers' bytes, in processes that can be ended.

A thread that reads a hostile file cannot be stopped and holds the interpreter; a process can be
killed when its time or its memory is used up. Arguments and results go by value, so functions are
those of a module.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import ParamSpec, TypeVar

import structlog
from pebble import ProcessExpired, ProcessPool

from app.core.metrics import WORKER_KILLS

log = structlog.get_logger(__name__)

Given = ParamSpec("Given")
Result = TypeVar("Result")

# What libraries keep of what they read is let go with the process after so many tasks.
TASKS_PER_PROCESS = 500
# On a busy machine a second of CPU time takes several: the clock only ends what waits for ever.
WALL_PER_CPU = 8.0
# For the threads of a pool whose processes were killed.
CLOSE_S = 1.0
# Imported once, before workers are forked: a new worker is there within milliseconds. With these
# `python -m app` is among them, whose module each worker imports.
PRELOADED = (
    "uvicorn",
    "fastapi",
    "sse_starlette",
    "app.services.extraction.preloaded",
    "app.services.media.images",
)


class WorkerKilled(Exception):
    """The work used up its time or its memory, or its process died."""


class WorkerPool:
    """Processes that do one kind of work, so that kinds never wait for each other.

    `cpu_s`: CPU time of one task; `memory_bytes`: address space that a process may gain. The
    processes start with the first task.
    """

    def __init__(self, name: str, *, processes: int, cpu_s: float, memory_bytes: int) -> None:
        self.name = name
        self.cpu_s = cpu_s
        self._processes = processes
        self._memory_bytes = memory_bytes
        self._pool: ProcessPool | None = None

    async def run(
        self, function: Callable[Given, Result], *args: Given.args, **options: Given.kwargs
    ) -> Result:
        """Return what a function of a module returns, or raise what it raises.

        Cancelling ends the work at once.

        Raises:
            WorkerKilled: the task has used up its time or its memory.
        """
        future = self._open().schedule(
            _bounded, args=(function, args, options, self.cpu_s), timeout=self.cpu_s * WALL_PER_CPU
        )
        try:
            result: Result = await asyncio.wrap_future(future)
        except (ProcessExpired, FutureTimeout, MemoryError) as failure:
            WORKER_KILLS.labels(self.name).inc()
            log.warning("worker_killed", pool=self.name, cause=type(failure).__name__)
            raise WorkerKilled(self.name) from failure
        return result

    async def warm(self) -> None:
        """Start the processes, so that the first task need not wait for them."""
        await asyncio.gather(*(self.run(_nothing) for _ in range(self._processes)))

    def close(self) -> None:
        """End the processes and what they do; the pool may be used again."""
        pool, self._pool = self._pool, None
        _in_use.discard(self)
        if pool is not None:
            pool.stop()  # type: ignore[no-untyped-call]
            with suppress(FutureTimeout, RuntimeError):
                pool.join(timeout=CLOSE_S)

    def _open(self) -> ProcessPool:
        if self._pool is None or not self._pool.active:
            self._pool = ProcessPool(
                max_workers=self._processes,
                max_tasks=TASKS_PER_PROCESS,
                initializer=_limit_memory,
                initargs=[self._memory_bytes],
                context=_context(),
            )
            _in_use.add(self)
        return self._pool


_in_use: set[WorkerPool] = set()


def close_all() -> None:
    """End the processes of every pool, and give back the semaphores that they shared."""
    for pool in tuple(_in_use):
        pool.close()
    gc.collect()


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes are made: never by forking this one, whose threads hold locks."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _limit_memory(memory_bytes: int) -> None:
    """Bound the address space of this process by what it has now and so many bytes."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as statm:
            taken = int(statm.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory_bytes, hard))
    except (ImportError, OSError, ValueError):
        # Not Linux: the deadline holds all the same.
        return


def _bounded(
    function: Callable[..., Result],
    args: tuple[object, ...],
    options: dict[str, object],
    cpu_s: float,
) -> Result:
    """Call a function; the kernel kills this process when it has taken `cpu_s` of CPU time."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        until_s = int(used.ru_utime + used.ru_stime + cpu_s) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (until_s, hard))
    except (ImportError, OSError, ValueError):
        pass
    return function(*args, **options)


def _nothing() -> None:
    """Do nothing, in a process that is there from then on."""
