"""Slow and many connections: what a client that sends no request can hold."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import pytest

from app.core import connections
from app.core.connections import BoundedProtocol
from app.demo import free_port
from app.demo import server as process_server
from tests.engines import ScriptedEngine
from tests.servers import Running, serving

WAIT_S = 10.0
REQUEST = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(connections, "HEADERS_S", 0.2)
    own = {"open_per_client": Counter(), "max_per_client": 3}
    protocol = type("Protocol", (BoundedProtocol,), own)
    with serving(ScriptedEngine(["Hi"]), http=protocol) as running:
        yield running


def connected(server: Running) -> socket.socket:
    port = int(server.base.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), WAIT_S)


def all_of(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found


@pytest.mark.parametrize(
    "sent", [b"GET / HT", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b"]
)
def test_headers_that_never_end_are_408(server: Running, sent: bytes) -> None:
    with connected(server) as connection:
        connection.sendall(sent)
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")


def test_a_connection_that_says_nothing_is_closed(server: Running) -> None:
    with connected(server) as connection:
        assert all_of(connection) == b""


def test_late_headers_of_a_second_request_are_408(server: Running) -> None:
    with connected(server) as connection:
        connection.sendall(REQUEST)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET / HTTP/1.1\r\nX-A")
        assert b"HTTP/1.1 408 " in all_of(connection)


def test_a_slow_answer_is_not_cut(server: Running) -> None:
    """Only headers are awaited; what a request then takes is another bound."""
    with connected(server) as connection:
        connection.sendall(b"POST /v1/cancel/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
        time.sleep(0.5)
        connection.sendall(b"{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_one_client_has_only_so_many_connections(server: Running) -> None:
    held = [connected(server) for _ in range(3)]
    for connection in held:
        connection.sendall(REQUEST)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    with connected(server) as refused, suppress(ConnectionError):
        assert all_of(refused) == b""
    held.pop().close()
    with connected(server) as again:
        again.sendall(REQUEST)
        assert again.recv(65536).startswith(b"HTTP/1.1 200 ")
    for connection in held:
        connection.close()


def test_who_sends_half_a_body_does_not_hold_up_the_end() -> None:
    """Half-sent bodies once delayed SIGTERM by 31 s; Docker kills after 10."""
    variables = {"SHUTDOWN_SECONDS": "2", "SUMMARY_ENGINE": "extractive"}
    with process_server(free_port(), variables=variables) as running:
        port = int(running.base.rpartition(":")[2])
        half = b"POST /v1/cancel/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
        held = [socket.create_connection(("127.0.0.1", port), WAIT_S) for _ in range(50)]
        for connection in held:
            connection.sendall(half)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(WAIT_S) == -signal.SIGTERM
        for connection in held:
            connection.close()


def test_what_never_closes_does_not_hold_up_the_end() -> None:
    """A model's thread, a Redis that hangs: what clients were sent is kept already."""
    program = (
        "import asyncio, os\n"
        "from app import main\n"
        "from app.__main__ import serve\n"
        "from app.main import create_app\n"
        "from tests.engines import ScriptedEngine\n"
        "from tests.servers import settings\n"
        "app = create_app(settings(), engine=ScriptedEngine(['Hi']))\n"
        "async def never(parts): await asyncio.Event().wait()\n"
        "main._close = never\n"
        "serve(app, port=int(os.environ['PORT']), shutdown_s=1.0)\n"
    )
    with process_server(free_port(), command=(sys.executable, "-c", program)) as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(WAIT_S) == 0
