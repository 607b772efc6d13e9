"""How many followers one process carries: delivery delay, CPU, memory, `/health` meanwhile.

Starts the real server in a process of its own with an engine that writes one word every
1/RATE s, opens SESSIONS chats, follows each with FOLLOWERS/SESSIONS connections, and reads until
every stream has ended. Each word is the time at which the engine gave it away, so the delay runs
from before the append to the arrival in the client's process (one clock for both: CLOCK_MONOTONIC).

    python -m bench.streams [--followers 500] [--sessions 50] [--rate 50] [--seconds 20]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, cast

import httpx
import psutil

from app.core.errors import EngineUnavailable
from app.demo import free_port
from app.engine.base import Finish, Fitted, GenerateRequest, Item, Text

WORD = re.compile(rb'"content":"(\d{12,}) "')


# Streams that have not ended by then never will.
END_S = 120.0


class PacedEngine:
    """Writes `max_tokens` words, one every 1/rate s; a word is the time when it was given away."""

    name = "paced"
    model = "paced"

    def __init__(self, rate: float) -> None:
        self._rate = rate

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        due_s = time.monotonic()
        for _ in range(request.max_tokens):
            due_s += 1 / self._rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            yield Text(f"{time.monotonic_ns()} ")
        yield Finish("stop", 1, request.max_tokens)

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        return Fitted(request)

    def facts(self) -> dict[str, str]:
        return {}

    def info(self) -> dict[str, Any]:
        return {"model_id": self.model, "loaded": True}

    async def unavailable(self) -> EngineUnavailable | None:
        return None

    async def prepare(self) -> None:
        """Always ready."""

    async def load(self) -> None:
        """Nothing to load."""

    async def maintain(self) -> None:
        """Nothing is to be done."""

    async def aclose(self) -> None:
        """Nothing is held."""


def serve(port: int, rate: float) -> None:
    """Serve in this process, as `python -m app` does."""
    from app.__main__ import serve as serve_app
    from app.core.config import Settings
    from app.main import create_app

    settings = Settings(  # type: ignore[call-arg]
        _env_file=None, log_level="warning", max_queue=10_000, max_active_per_client=10_000
    )
    app = create_app(settings, engine=PacedEngine(rate))
    serve_app(app, host="127.0.0.1", port=port)


class Follower(asyncio.Protocol):
    """One raw connection that notes when each word arrives."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self._since_ns = 0
        self.words = 0
        self.delays_ms: list[float] = []
        self.done = False
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        # What was written before this follower came is a replay, and no delay of delivery.
        self._since_ns = self._since_ns or now_ns
        data = self._tail + data
        end = 0
        for match in WORD.finditer(data):
            self.words += 1
            given_ns = int(match[1])
            if given_ns > self._since_ns:
                self.delays_ms.append((now_ns - given_ns) / 1e6)
            end = match.end()
        self.done = self.done or b"data: [DONE]" in data
        self._tail = data[max(end, len(data) - 64) :]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


@dataclass
class Seen:
    """What the followers saw."""

    delays_ms: list[float] = field(default_factory=list)
    complete: int = 0


def request_bytes(method: str, path: str, body: bytes = b"") -> bytes:
    """Return an HTTP/1.1 request that closes the connection after the answer."""
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


async def follow_all(port: int, sessions: int, followers: int, words: int) -> Seen:
    """Open every stream, read all of them to their ends."""
    loop = asyncio.get_running_loop()
    open_: list[Follower] = []

    async def connect(request: bytes) -> None:
        _, follower = await loop.create_connection(lambda: Follower(request), "127.0.0.1", port)
        open_.append(follower)

    for number in range(sessions):
        chat = {
            "messages": [{"role": "user", "content": "write"}],
            "stream": True,
            "session_id": f"s{number}",
            "max_tokens": words,
        }
        await connect(request_bytes("POST", "/v1/chat/completions", json.dumps(chat).encode()))
    # The sessions must exist before anybody can follow them.
    await asyncio.sleep(1.0)
    await asyncio.gather(
        *(
            connect(request_bytes("GET", f"/api/sessions/s{number % sessions}/events"))
            for number in range(followers - sessions)
        )
    )
    async with asyncio.timeout(END_S):
        await asyncio.gather(*(follower.ended for follower in open_))
    seen = Seen()
    for follower in open_:
        seen.delays_ms += follower.delays_ms
        seen.complete += follower.done and follower.words == words
    return seen


def probe_health(
    base: str, stop: multiprocessing.synchronize.Event, took: multiprocessing.Queue[list[float]]
) -> None:
    """Ask `/health` every 20 ms, in a process of its own, so that only the server is timed."""
    found: list[float] = []
    with httpx.Client(base_url=base, timeout=10.0, trust_env=False) as client:
        while not stop.is_set():
            started_s = time.perf_counter()
            client.get("/health").raise_for_status()
            found.append((time.perf_counter() - started_s) * 1000)
            time.sleep(0.02)
    took.put(found)


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile of at least two values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--followers", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.rate)
        return
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "bench.streams", "--serve", str(port)]
    process = subprocess.Popen([*command, "--rate", str(options.rate)], env={**os.environ})
    try:
        wait_until_up(base)
        server = psutil.Process(process.pid)
        before_bytes = server.memory_info().rss
        stop, took = multiprocessing.Event(), multiprocessing.Queue()
        probe = multiprocessing.Process(target=probe_health, args=(base, stop, took))
        probe.start()
        words = int(options.rate * options.seconds)
        used = server.cpu_times()
        started_s = time.perf_counter()
        seen = run_loop(follow_all(port, options.sessions, options.followers, words))
        took_s = time.perf_counter() - started_s
        now = server.cpu_times()
        cpu_s = now.user + now.system - used.user - used.system
        after_bytes = server.memory_info().rss
        stop.set()
        health_ms = took.get(timeout=10)
        probe.join()
    finally:
        process.terminate()
        process.wait(20)
    delivered = options.followers * words
    print(f"followers {options.followers}, sessions {options.sessions}, {options.rate:g} words/s")
    print(f"complete streams      {seen.complete} of {options.followers}")
    print(f"events delivered      {delivered} in {took_s:.1f} s ({delivered / took_s:,.0f}/s)")
    print(
        f"delivery delay, ms    p50 {percentile(seen.delays_ms, 50):.1f}  "
        f"p99 {percentile(seen.delays_ms, 99):.1f}  max {max(seen.delays_ms):.1f}"
    )
    print(
        f"/health, ms           p50 {percentile(health_ms, 50):.1f}  "
        f"p99 {percentile(health_ms, 99):.1f}  max {max(health_ms):.1f}  ({len(health_ms)} probes)"
    )
    print(f"server CPU            {100 * cpu_s / took_s:.0f} % of one core")
    print(f"server memory         {before_bytes / 1e6:.0f} MB, then {after_bytes / 1e6:.0f} MB")


def run_loop(work):  # type: ignore[no-untyped-def]
    """Run on uvloop where there is one: the client must not be what is measured."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def wait_until_up(base: str) -> None:
    """Wait until the server answers."""
    deadline_s = time.monotonic() + 30
    while True:
        try:
            httpx.get(f"{base}/health", trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    main()
