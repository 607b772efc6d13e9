"""A real redis-server on a free port of loopback, which keeps what it was given when it stops."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs import program
from tests.servers import until

WAIT_S = 10.0


class RedisServer:
    """A server that can be stopped and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._program = program("redis-server")
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--save", "", "--appendonly", "yes"),
                *("--appendfsync", "always", "--daemonize", "no"),
            ],
            stdout=subprocess.DEVNULL,
        )
        until(self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server ended at once"
        return self.ask("PING") == b"+PONG\r\n"

    def stop(self) -> None:
        """Kill it; what it acknowledged is on its disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(WAIT_S)
            self._process = None

    def signal(self, number: int) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kept(self) -> list[str]:
        """Return all keys."""
        return self.ask("KEYS *").decode().split("\r\n")[2::2]

    def lives_s(self, key: str) -> int:
        """Return for how long a key stays, -1 for ever."""
        return int(self.ask(f"TTL {key}").decode().strip(":\r\n"))

    def ask(self, command: str) -> bytes:
        """Send a command and return the beginning of the raw answer, empty without one."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), WAIT_S) as connection:
                connection.sendall(command.encode() + b"\r\n")
                return connection.recv(65536)
        except OSError:
            return b""


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Run a server with an empty folder of its own."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One server for all tests that do not stop it; `redis_url` gives it empty."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of a Redis that holds nothing."""
    assert redis_server.ask("FLUSHALL") == b"+OK\r\n"
    return redis_server.url
