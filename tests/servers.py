"""A real uvicorn on loopback, and clients that read the bytes it sends."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import uvicorn.server
from fastapi import FastAPI

from app.__main__ import Server
from app.core.config import Settings
from app.engine.base import Engine
from app.main import create_app
from tests.weight_formats import of_this_run

WAIT_S = 20.0
_data = tempfile.TemporaryDirectory(prefix="precis-data-")
STREAM = "/api/v4/scrape-and-summarize/stream"
NDJSON = "/api/v4/scrape-and-summarize/stream-ndjson"
PROSE = "/api/v3/scrape-and-summarize/stream"


def settings(**values: Any) -> Settings:
    """Settings of a test: nothing from the environment, the extractive engine."""
    defaults: dict[str, Any] = {"summary_engine": "extractive", "log_level": "warning"}
    if "data_dir" not in values:
        # Each server has a marketplace of its own, made when it is first asked for.
        defaults["data_dir"] = str(Path(_data.name) / uuid.uuid4().hex)
    if "v4_model_id" in values:
        values = of_this_run().settings(values.pop("v4_model_id"), **values)
    return Settings(_env_file=None, **{**defaults, **values})


@dataclass
class Running:
    """A server that runs; `app` is the application inside it."""

    base: str
    app: FastAPI
    loop: asyncio.AbstractEventLoop

    def tasks(self) -> set[str]:
        """Return what the tasks of the server's event loop run."""

        async def named() -> set[str]:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            return {f"{task.get_name()} {task.get_coro()!r}" for task in others}

        return asyncio.run_coroutine_threadsafe(named(), self.loop).result(WAIT_S)

    def client(self, **options: Any) -> httpx.Client:
        # Loopback without TLS: reading the authorities' certificates takes 20 ms a client.
        options = {"timeout": WAIT_S, "trust_env": False, "verify": False, **options}
        return httpx.Client(base_url=self.base, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **options)


class _Prompt:
    """asyncio for uvicorn, which looks every tenth of a second whether it is to stop or has."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(min(delay_s, 0.005))


uvicorn.server.asyncio = _Prompt()  # type: ignore[assignment]


@contextmanager
def serving(
    engine: Engine | None = None, *, http: Any = "auto", **values: Any
) -> Iterator[Running]:
    """Serve an application on a free port in a thread of its own; `http`: uvicorn's protocol."""
    app = create_app(settings(**values), engine=engine)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="on",
        timeout_graceful_shutdown=15, proxy_headers=False, http=http,
    )  # fmt: skip
    server = Server(config, app)
    loop = asyncio.new_event_loop()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(server.serve())

    thread = threading.Thread(target=run, name="test-server")
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}", app, loop)
    finally:
        server.should_exit = True
        thread.join(WAIT_S)
        assert not thread.is_alive(), "the server did not stop"


def until(condition: Any, timeout_s: float = WAIT_S) -> None:
    """Wait until a condition of another thread holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition never came true"
        time.sleep(0.005)


@dataclass
class Frame:
    """One event as it was sent."""

    id: str | None
    event: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def stage(self) -> str | None:
        """The stage of a status event."""
        return self.json["stage"] if self.event == "status" else None


def frames(raw: str) -> list[Frame]:
    """Parse a whole SSE body strictly: `id`, `event` and one `data: ` line, in blocks.

    A heartbeat is one comment line without a blank line, so it stands before an event.
    """
    assert raw.endswith("\n\n"), "the last event is not closed by a blank line"
    found = []
    for block in raw.removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        assert lines, "a comment is followed by a blank line"
        fields = dict(line.split(": ", 1) for line in lines)
        assert len(fields) == len(lines), f"a field came twice in one event: {block!r}"
        assert set(fields) <= {"id", "event", "data"}
        found.append(Frame(fields.get("id"), fields.get("event", ""), fields["data"]))
    return found


def text_of(found: list[Frame]) -> str:
    """Join the data of unnamed events."""
    return "".join(frame.data for frame in found if not frame.event)


def indexes(found: list[Frame]) -> list[int]:
    """Return the index part of each id."""
    return [int((frame.id or "").rpartition(":")[2]) for frame in found]
