"""A server process that a test kills and starts again: one port, one file of sessions."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.demo import Server, free_port, server
from bench.upstream import Script, running_upstream

# A process has to start, and the page's pauses between its tries grow to ten seconds.
RESTART_MS = 40_000


class Restarting:
    """`python -m app` with durable sessions and a model server behind it."""

    def __init__(self, folder: Path, engine_url: str) -> None:
        self._port = free_port()
        self._variables = {
            "ENGINE_URL": engine_url,
            "PERSIST_SESSIONS": "1",
            "SESSIONS_DB_PATH": str(folder / "sessions.db"),
            "LOG_LEVEL": "error",
        }
        self._stack = ExitStack()
        self.start()

    @property
    def base(self) -> str:
        return self._running.base

    def start(self) -> None:
        """Start the process, again on the same port."""
        self._running: Server = self._stack.enter_context(
            server(self._port, variables=self._variables)
        )

    def kill(self) -> None:
        """End the process as a crash does."""
        self._running.process.send_signal(signal.SIGKILL)
        self._running.process.wait(10)

    def close(self) -> None:
        self._stack.close()


@contextmanager
def restarting(folder: Path, script: Script) -> Iterator[Restarting]:
    """Run a server process whose model answers by a script."""
    with running_upstream(script) as (url, _):
        process = Restarting(folder, url)
        try:
            yield process
        finally:
            process.close()
