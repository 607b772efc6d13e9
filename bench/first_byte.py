"""How soon a summary begins and ends, and whether `/health` answers meanwhile.

Starts the real server, serves saved pages (`*.html` or `*.html.gz`) from a loopback origin, asks
for each page's summary over HTTP, and asks `/health` all the while. Every page is asked once with
`use_cache` off, after one warm-up request on the bundled page.

    python -m bench.first_byte --data FOLDER [--pages 5] [--rounds 5]
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from app.demo import PAGE, free_port, server

STREAM = "/api/v4/scrape-and-summarize/stream"


def saved_pages(folder: str | None, count: int) -> dict[str, bytes]:
    """Return the first pages of a folder, unpacked; the bundled page when there is no folder."""
    if not folder:
        return {PAGE.name: PAGE.read_bytes()}
    found = sorted([*Path(folder).glob("*.html.gz"), *Path(folder).glob("*.html")])[:count]
    if not found:
        raise SystemExit(f"no *.html or *.html.gz in {folder}")
    return {
        path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes())
        if path.suffix == ".gz"
        else path.read_bytes()
        for path in found
    }


def origin(pages: dict[str, bytes]) -> ThreadingHTTPServer:
    """Return a started web server for the pages."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path.lstrip("/"))
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Only the table is printed."""

    site = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    return site


def ask(client: httpx.Client, url: str) -> tuple[float, float]:
    """Return milliseconds to the first byte and to the end of one summary."""
    started_s = time.perf_counter()
    first_ms = 0.0
    body = b""
    with client.stream("POST", STREAM, json={"url": url, "use_cache": False}) as response:
        response.raise_for_status()
        for chunk in response.iter_raw():
            first_ms = first_ms or (time.perf_counter() - started_s) * 1000
            body += chunk
    assert b"event: result" in body, body[-300:]
    return first_ms, (time.perf_counter() - started_s) * 1000


class HealthProbe:
    """Asks `/health` every 10 ms in a thread of its own; `took_ms` holds the answers' times."""

    def __init__(self, base: str) -> None:
        self.took_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(base,))

    def _run(self, base: str) -> None:
        with httpx.Client(base_url=base, trust_env=False, timeout=10) as client:
            while not self._stop.wait(0.01):
                started_s = time.perf_counter()
                client.get("/health").raise_for_status()
                self.took_ms.append((time.perf_counter() - started_s) * 1000)

    def __enter__(self) -> HealthProbe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def spread(values: list[float]) -> str:
    """Return median, 95th percentile and maximum as columns."""
    ordered = sorted(values)
    p95 = ordered[max(0, int(len(ordered) * 0.95) - 1)]
    return f"{statistics.median(ordered):8.1f} {p95:8.1f} {ordered[-1]:8.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("PRECIS_ARTICLES"))
    parser.add_argument("--pages", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    pages = saved_pages(chosen.data, chosen.pages)
    site = origin({**pages, PAGE.name: PAGE.read_bytes()})
    port = site.server_address[1]
    variables = {
        "SUMMARY_ENGINE": "extractive",
        "FETCH_ALLOW_HOSTS": f"127.0.0.1:{port}",
        "LOG_LEVEL": "error",
    }
    first: list[float] = []
    total: list[float] = []
    with (
        server(free_port(), variables=variables) as running,
        httpx.Client(base_url=running.base, timeout=60, trust_env=False) as client,
    ):
        cold = ask(client, f"http://127.0.0.1:{port}/{PAGE.name}")
        with HealthProbe(running.base) as probe:
            for name in [*pages] * chosen.rounds:
                first_ms, total_ms = ask(client, f"http://127.0.0.1:{port}/{name}")
                first.append(first_ms)
                total.append(total_ms)
    site.shutdown()
    print(f"{len(pages)} pages x {chosen.rounds} rounds, extractive engine, milliseconds")
    print(f"{'':18}{'p50':>8} {'p95':>8} {'max':>8}")
    print(f"{'first byte':18}{spread(first)}")
    print(f"{'whole summary':18}{spread(total)}")
    print(f"{'/health meanwhile':18}{spread(probe.took_ms)}   ({len(probe.took_ms)} probes)")
    print(f"cold (first request of the process): first byte {cold[0]:.0f}, whole {cold[1]:.0f}")


if __name__ == "__main__":
    main()
