"""Two processes, one Redis, one of them killed in the middle: what do the clients lose?

Starts redis-server, a scripted slow model server, two `python -m app` that use both, and nginx
with `deploy/nginx.conf` if there is one (else the clients take turns by themselves). Opens STREAMS
chats, kills one process with SIGKILL while all are being written, resumes every stream that broke
on the process that is left, and compares what each client holds with a replay from the start.

    python -m bench.failover [--streams 20] [--rate 25] [--words 250]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import httpx

from app.demo import ROOT, Server, free_port, server

CHAT = "/v1/chat/completions"
KILL_AFTER_EVENTS = 60
GIVE_UP_S = 60.0


@dataclass
class Client:
    """One stream as its client holds it: (index, data) of every event, in order of arrival."""

    name: str
    events: list[tuple[int, str]] = field(default_factory=list)
    done: bool = False
    breaks: int = 0
    interrupted_at_s: float | None = None

    @property
    def last(self) -> int:
        return self.events[-1][0] if self.events else -1

    @property
    def terminals(self) -> int:
        return sum('"error":' in data or '"finish_reason":"' in data for _, data in self.events)

    @property
    def ended(self) -> bool:
        return self.done or self.terminals > 0


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a program that listens on a port."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + 20
        while not listens(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


def listens(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def balancer(ports: tuple[int, int], folder: Path) -> Iterator[str | None]:
    """Run nginx with the configuration of `deploy/`; yield its address, None without nginx."""
    program = shutil.which("nginx")
    if program is None:
        yield None
        return
    port = free_port()
    text = (ROOT / "deploy" / "nginx.conf").read_text(encoding="utf-8")
    for name, own in zip(("app1:7860", "app2:7860"), ports, strict=True):
        text = text.replace(name, f"127.0.0.1:{own}")
    text = text.replace("listen 8080", f"listen 127.0.0.1:{port}").replace("/tmp/", f"{folder}/")
    # Broken connections are what is measured here, and no news.
    text = text.replace("error_log stderr warn", f"error_log {folder}/error.log warn")
    configuration = folder / "nginx.conf"
    configuration.write_text(text, encoding="utf-8")
    with running([program, "-c", str(configuration), "-g", "daemon off;"], port):
        yield f"http://127.0.0.1:{port}"


async def read(client: Client, response: httpx.Response) -> None:
    """Take events until the stream ends, or breaks."""
    index: int | None = None
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            index = int(line.rpartition(":")[2])
        elif line.startswith("data: "):
            data = line.removeprefix("data: ")
            if data == "[DONE]":
                client.done = True
            elif index is not None:
                client.events.append((index, data))
                if '"code":"interrupted"' in data:
                    client.interrupted_at_s = time.monotonic()
            index = None


async def follow(client: Client, bases: cycle[str], words: int) -> None:
    """Open a stream, and resume it until it has ended."""
    deadline_s = time.monotonic() + GIVE_UP_S
    body = {
        "messages": [{"role": "user", "content": "write"}],
        "stream": True,
        "session_id": client.name,
        "max_tokens": words,
    }
    async with httpx.AsyncClient(timeout=httpx.Timeout(5, read=20), trust_env=False) as http:
        while not client.ended and time.monotonic() < deadline_s:
            head = {"Last-Event-ID": f"{client.name}:{client.last}"} if client.events else {}
            base = next(bases)
            try:
                async with http.stream("POST", base + CHAT, json=body, headers=head) as response:
                    if response.status_code == 200:
                        await read(client, response)
            except httpx.HTTPError:
                client.breaks += 1
            if not client.ended:
                await asyncio.sleep(0.2)


async def run(
    apps: list[Server], address: str | None, streams: int, words: int
) -> tuple[list[Client], float]:
    """Follow all streams and kill the first process in the middle; return when that was."""
    clients = [Client(f"stream-{number}") for number in range(streams)]
    bases = cycle([address] if address else [app.base for app in apps])
    killed_at_s = 0.0
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(follow(client, bases, words))
        async with asyncio.timeout(30):
            while min(len(client.events) for client in clients) < KILL_AFTER_EVENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        os.kill(apps[0].process.pid, signal.SIGKILL)
        killed_at_s = time.monotonic()
    return clients, killed_at_s


def replay(base: str, name: str) -> list[tuple[int, str]]:
    """Return the whole session as the process that is left tells it."""
    client = Client(name)

    async def read_again() -> None:
        async with (
            httpx.AsyncClient(timeout=20, trust_env=False) as http,
            http.stream("GET", f"{base}/api/sessions/{name}/events") as response,
        ):
            await read(client, response)

    asyncio.run(read_again())
    return client.events


def report(clients: list[Client], killed_at_s: float, base: str) -> bool:
    """Print the figures; return whether nothing was lost."""
    whole = {client.name: replay(base, client.name) for client in clients}
    kept = sum(client.events == whole[client.name] for client in clients)
    gaps = sum(
        {index for index, _ in whole[c.name]} != {index for index, _ in c.events} for c in clients
    )
    doubled = sum(len(c.events) != len({index for index, _ in c.events}) for c in clients)
    once = sum(client.terminals == 1 for client in clients)
    told = [c.interrupted_at_s - killed_at_s for c in clients if c.interrupted_at_s is not None]
    finished = sum(client.done for client in clients)
    print(f"streams that kept every event they had been sent   {kept} of {len(clients)}")
    print(f"streams with lost / duplicated events              {gaps} / {doubled}")
    print(f"streams that ended with exactly one terminal event {once} of {len(clients)}")
    print(f"written to their end / interrupted                 {finished} / {len(told)}")
    print(f"connections that broke                             {sum(c.breaks for c in clients)}")
    if told:
        print(f"`interrupted` told after {' ' * 26}{min(told):.1f} to {max(told):.1f} s")
    return kept == once == len(clients) and gaps == doubled == 0


def main() -> None:
    """Print one table; fail when a stream lost something."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--rate", type=float, default=25.0)
    parser.add_argument("--words", type=int, default=250)
    options = parser.parse_args()
    redis = shutil.which("redis-server")
    if redis is None:
        raise SystemExit("redis-server is not installed")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_port, model_port, ports = free_port(), free_port(), (free_port(), free_port())
        quiet = ["--save", "", "--bind", "127.0.0.1", "--dir", str(folder)]
        stack.enter_context(running([redis, "--port", str(redis_port), *quiet], redis_port))
        model = [sys.executable, "-m", "bench.upstream", "--port", str(model_port)]
        paced = ["--words-per-second", str(options.rate), "--words", str(options.words)]
        stack.enter_context(running([*model, *paced], model_port))
        variables = {
            "SESSIONS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "ENGINE_URL": f"http://127.0.0.1:{model_port}/v1",
            "LOG_LEVEL": "error",
        }
        apps = [stack.enter_context(server(port, variables=variables)) for port in ports]
        address = stack.enter_context(balancer(ports, folder))
        print(f"balanced by {'nginx' if address else 'the clients themselves'}")
        clients, killed_at_s = asyncio.run(run(apps, address, options.streams, options.words))
        fine = report(clients, killed_at_s, apps[1].base)
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
