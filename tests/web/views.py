"""What a person does in each view, and the sites that they paste links to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Locator, Page, expect

from tests.engines import SUMMARY
from tests.servers import Running

WAIT_MS = 15_000
# By then the page has seen what happened, and has been painted.
TWO_FRAMES = "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"


def summarize(page: Page, source: str) -> Locator:
    """Ask for a summary; return its card."""
    page.get_by_label("Link or text").fill(source)
    page.get_by_role("button", name="Summarize", exact=True).click()
    return page.locator("#card")


def send_message(page: Page, message: str) -> Locator:
    """Send a message; return the answer to it."""
    page.get_by_label("Message", exact=True).fill(message)
    page.get_by_role("button", name="Send", exact=True).click()
    return page.locator("article.message[data-role=assistant]").last


def write(page: Page, topic: str) -> Locator:
    """Start an article; return its job."""
    page.get_by_label("Topic", exact=True).fill(topic)
    page.get_by_role("button", name="Write", exact=True).click()
    return page.locator("#job")


def expect_state(part: Locator, state: str, *, timeout_ms: float = WAIT_MS) -> None:
    """Wait until a card, a message or a job is in a state."""
    expect(part).to_have_attribute("data-state", state, timeout=timeout_ms)


def expect_summary(page: Page, summary: dict[str, object] = SUMMARY) -> None:
    """Wait until the card shows a whole summary, field for field."""
    points = summary["key_points"]
    assert isinstance(points, list)
    expect(page.locator("#card-title")).to_have_text(str(summary["title"]))
    expect(page.locator("#card-summary")).to_have_text(str(summary["main_summary"]))
    expect(page.locator("#card-points > li")).to_have_text(points)
    expect(page.locator("#card-category")).to_have_text(str(summary["category"]))
    expect(page.locator("#card-sentiment")).to_have_text(str(summary["sentiment"]))
    expect(page.locator("#card-reading")).to_contain_text(str(summary["read_time_min"]))


def parameter(page: Page, name: str) -> str:
    """Return a parameter of the page's address."""
    return parse_qs(urlsplit(page.url).query)[name][0]


def expect_heartbeats(server: Running, session: str, count: int = 3) -> None:
    """Follow a session beside the page until so many heartbeats have come."""
    with (
        server.client() as client,
        client.stream("GET", f"/api/sessions/{session}/events") as response,
    ):
        for line in response.iter_lines():
            count -= line == ": ping"
            if not count:
                return
    raise AssertionError("the stream ended before its heartbeats")


def wide_by(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    root = "document.documentElement"
    return int(page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))


class Site:
    """A web site of one page; `answers` are used up, the last one stays: (status, HTML)."""

    def __init__(self, authority: str, answers: Sequence[tuple[int, str]]) -> None:
        self.authority = authority
        self.answers = list(answers)
        self.url = f"http://{authority}/story"


@contextmanager
def site(*answers: tuple[int, str]) -> Iterator[Site]:
    """Serve a site on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, html = one.answers.pop(0) if len(one.answers) > 1 else one.answers[0]
            body = html.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        one = Site(f"localhost:{server.server_address[1]}", answers)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="site")
        thread.start()
        try:
            yield one
        finally:
            server.shutdown()
            thread.join(5)
