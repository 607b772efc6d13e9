"""What happens while a page is still being fetched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.engines import ARTICLE, ScriptedEngine
from tests.servers import NDJSON, PROSE, STREAM, Running, frames, serving, until

PAGE = f"<html><head><title>Bridge</title></head><body><article><p>{ARTICLE}</p></article></body>"


class SlowSite:
    """A site whose pages come when `go` is set; counts how often it was asked."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.asked = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked += 1
                site.go.wait(20)
                body = b"" if self.path == "/empty" else PAGE.encode()
                self.send_response(404 if self.path == "/404" else 200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def slow_site(engine: ScriptedEngine, **values: Any) -> Iterator[tuple[SlowSite, Running]]:
    site = SlowSite()
    thread = threading.Thread(target=site.server.serve_forever)
    thread.start()
    try:
        with serving(engine, fetch_allow_hosts=(site.host,), **values) as server:
            yield site, server
    finally:
        site.go.set()
        site.server.shutdown()
        site.server.server_close()
        thread.join()


def asking(server: Running, path: str, body: dict[str, Any]) -> tuple[threading.Thread, list[Any]]:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(server.post(path, body)))
    thread.start()
    return thread, answers


@pytest.mark.parametrize("path", [STREAM, NDJSON, PROSE])
def test_a_cancel_while_the_page_is_fetched_ends_the_stream(path: str) -> None:
    """Contract 3: cancel, of any kind of session; the log ends with one terminal event."""
    engine = ScriptedEngine()
    with slow_site(engine) as (site, server):
        url = f"http://{site.host}/a"
        thread, answers = asking(server, path, {"url": url, "session_id": "mine"})
        until(lambda: site.asked)
        assert server.post("/v1/cancel/mine").json()["ok"] is True
        thread.join(60)
        found = frames(answers[0].text)
        assert len(found) == 1
        assert "cancelled" in found[0].json["error"]
        assert engine.requests == []
        assert frames(server.get("/api/sessions/mine/events").text) == found


def test_one_id_for_two_pages_at_once_is_409() -> None:
    """The session exists from the first moment on, also while its page is fetched."""
    with slow_site(ScriptedEngine()) as (site, server):
        first = {"url": f"http://{site.host}/a", "session_id": "mine"}
        thread, answers = asking(server, STREAM, first)
        until(lambda: site.asked)
        second = server.post(STREAM, {**first, "url": f"http://{site.host}/b"})
        assert (second.status_code, second.json()["code"]) == (409, "session_busy")
        site.go.set()
        thread.join(60)
        assert frames(answers[0].text)[-1].event == "result"


def test_two_requests_for_one_failing_page_are_both_400() -> None:
    """C2: also for the one that joined."""
    with slow_site(ScriptedEngine()) as (site, server):
        body = {"url": f"http://{site.host}/404"}
        asked = [asking(server, STREAM, body) for _ in range(2)]
        until(lambda: site.asked)
        site.go.set()
        for thread, answers in asked:
            thread.join(60)
            assert (answers[0].status_code, answers[0].json()["code"]) == (400, "http_error")
            assert answers[0].json()["detail"].startswith("Scraping failed: ")


def test_without_metadata_the_response_begins_before_the_model_does() -> None:
    """A10: the headers do not wait for the first token."""
    from tests.engines import Gate

    gate = Gate()
    engine = ScriptedEngine([gate])
    with slow_site(engine) as (site, server), server.client() as client:
        site.go.set()
        body = {"url": f"http://{site.host}/a", "include_metadata": False}
        with client.stream("POST", STREAM, json=body) as response:
            assert response.status_code == 200
            lines = response.iter_lines()
            assert next(lines).startswith("id: ")
            assert next(lines) == "event: status"
        gate.open()


def test_a_stream_is_resumed_on_its_own_path_only() -> None:
    """Contract 3: on the same path."""
    with serving(ScriptedEngine()) as server:
        server.post(NDJSON, {"text": ARTICLE, "session_id": "mine"})
        at = {"Last-Event-ID": "mine:1"}
        wrong = server.post(STREAM, {"session_id": "mine"}, headers=at)
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_session_id")
        assert server.post(NDJSON, {"session_id": "mine"}, headers=at).status_code == 200


def test_an_ended_session_is_forgotten_after_its_time() -> None:
    """Contract 3: TTL after the end."""
    with serving(ScriptedEngine(), sessions_ttl_seconds=0.3) as server:
        answer = server.post(STREAM, {"text": ARTICLE, "session_id": "mine"})
        assert answer.headers["x-session-id"] == "mine"
        assert frames(answer.text)[-1].event == "result"
        until(lambda: server.get("/api/sessions/mine/events").status_code == 404, timeout_s=3)
