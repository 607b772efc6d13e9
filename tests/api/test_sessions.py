"""Resume and cancel over HTTP, on the memory log."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest

from app.demo import free_port
from app.demo import server as process_server
from tests.engines import ARTICLE, SUMMARY_TEXT, Gate, ScriptedEngine, slow_script
from tests.servers import NDJSON, STREAM, frames, indexes, serving, text_of, until

BODY = {"text": ARTICLE, "use_cache": False, "session_id": "mine"}


def test_a_stream_cut_at_any_point_resumes_without_gap_or_duplicate() -> None:
    """Contract 3, S1.23: text byte-equal, ids contiguous, one terminal event, one generation."""
    chance = random.Random(7)
    for _ in range(20):
        gate = Gate()
        cut = chance.randrange(1, 8)
        engine = ScriptedEngine(slow_script(gate, before=10))
        with serving(engine) as server, server.client() as client:
            seen = b""
            with client.stream("POST", STREAM, json=BODY) as response:
                for chunk in response.iter_raw():
                    seen += chunk
                    if seen.count(b"\n\n") >= cut:
                        break
            first = frames(seen[: seen.rindex(b"\n\n") + 2].decode())
            gate.open()
            rest = server.post(STREAM, BODY, headers={"Last-Event-ID": first[-1].id or ""})
            both = first + frames(rest.text)
            assert indexes(both) == list(range(len(both)))
            assert text_of(both) == SUMMARY_TEXT
            assert [f.event for f in both if f.event in ("result", "error")] == ["result"]
            assert len(engine.requests) == 1


def test_a_second_follower_sees_the_whole_stream() -> None:
    """Contract 3."""
    gate = Gate()
    with (
        serving(ScriptedEngine(slow_script(gate))) as server,
        server.client() as client,
        client.stream("POST", STREAM, json=BODY) as one,
        client.stream("GET", "/api/sessions/mine/events") as two,
    ):
        gate.open()
        assert one.read() == two.read()


def test_resuming_a_finished_session_ends_the_same_way_once() -> None:
    """Contract 3."""
    with serving(ScriptedEngine()) as server:
        whole = frames(server.post(STREAM, BODY).text)
        again = frames(server.get("/api/sessions/mine/events").text)
        assert again == whole
        last = {"Last-Event-ID": f"mine:{len(whole) - 1}"}
        response = server.post(STREAM, BODY, headers=last)
        assert (response.status_code, response.text) == (200, "")


def test_a_get_after_the_last_event_is_204_and_one_before_it_is_not() -> None:
    """Contract 3: an EventSource, which comes back after every end of a body, stops at that."""
    gate = Gate()
    with serving(ScriptedEngine(slow_script(gate))) as server, server.client() as client:
        with client.stream("POST", STREAM, json=BODY) as response:
            sent = next(response.iter_text())
            newest = {"Last-Event-ID": frames(sent)[-1].id or ""}
            with client.stream("GET", "/api/sessions/mine/events", headers=newest) as running:
                assert running.status_code == 200
                gate.open()
                found = frames(sent + running.read().decode())
        assert found[-1].event == "result"
        for place, status in ((-2, 200), (-1, 204)):
            head = {"Last-Event-ID": found[place].id or ""}
            answer = server.get("/api/sessions/mine/events", headers=head)
            assert (answer.status_code, answer.text == "") == (status, status == 204)
        assert answer.headers["x-session-id"] == "mine"


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/api/sessions/unknown/events", {}, 404, "unknown_session"),
        ("/api/sessions/b%20d/events", {}, 422, "invalid_session_id"),
        ("/api/sessions/b%0Ad/events", {}, 422, "invalid_session_id"),
        ("/api/sessions/mine%0A/events", {}, 422, "invalid_session_id"),
        ("/api/sessions/mine/events", {"Last-Event-ID": "mine"}, 422, "invalid_last_event_id"),
        ("/api/sessions/mine/events", {"Last-Event-ID": "mine:x"}, 422, "invalid_last_event_id"),
        ("/api/sessions/mine/events", {"Last-Event-ID": "mine:-1"}, 422, "invalid_last_event_id"),
        ("/api/sessions/mine/events", {"Last-Event-ID": "other:1"}, 422, "invalid_last_event_id"),
        ("/api/sessions/mine/events", {"Last-Event-ID": "mine:999"}, 410, "events_gone"),
    ],
)
def test_what_cannot_be_resumed_says_why(
    path: str, headers: dict[str, str], status: int, code: str
) -> None:
    """Contract 3; pitfall: a newline in a session id injected frames."""
    with serving(ScriptedEngine()) as server:
        server.post(STREAM, BODY)
        response = server.get(path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_resuming_an_unknown_session_never_generates() -> None:
    """Contract 3: never a second generation."""
    engine = ScriptedEngine()
    with serving(engine) as server:
        response = server.post(STREAM, BODY, headers={"Last-Event-ID": "mine:3"})
    assert response.status_code == 404
    assert engine.requests == []


def test_cancel_is_idempotent_and_leaves_the_id_usable() -> None:
    """Contract 3, S4.17."""
    with serving(ScriptedEngine()) as server:
        for _ in range(2):
            response = server.post("/v1/cancel/mine")
            assert (response.status_code, response.json()["ok"]) == (200, True)
        assert frames(server.post(STREAM, BODY).text)[-1].event == "result"
        bad = server.post("/v1/cancel/b%20d")
        assert bad.status_code == 400
        assert bad.json()["error"]["code"] == "invalid_session_id"


def test_another_keys_session_can_neither_be_read_nor_cancelled() -> None:
    """Contract 3: with API keys on it is 404 for resume and is not cancelled."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    anna, bert = {"X-API-Key": "anna-key"}, {"Authorization": "Bearer bert-key"}
    with serving(engine, api_keys=("anna-key", "bert-key")) as server, server.client() as client:
        with client.stream("POST", STREAM, json=BODY, headers=anna) as response:
            until(lambda: engine.running)
            assert server.get("/api/sessions/mine/events", headers=bert).status_code == 404
            assert server.get("/api/sessions/mine/events").status_code == 401
            assert server.post("/v1/cancel/mine", headers=bert).json()["ok"] is True
            gate.open()
            assert frames(response.read().decode())[-1].event == "result"
        assert server.get("/api/sessions/mine/events", headers=anna).status_code == 200


def test_an_id_that_runs_another_request_is_409() -> None:
    engine = ScriptedEngine(slow_script(Gate()))
    with (
        serving(engine) as server,
        server.client() as client,
        client.stream("POST", STREAM, json=BODY),
    ):
        until(lambda: engine.running)
        other = server.post(STREAM, {**BODY, "style": "eli5"})
        assert (other.status_code, other.json()["code"]) == (409, "session_busy")
        server.post("/v1/cancel/mine")


def test_a_lost_client_is_cancelled_after_the_configured_time() -> None:
    """S1.30, S4.14: CANCEL_AFTER_DISCONNECT_SECONDS."""
    engine = ScriptedEngine(slow_script(Gate()))
    with serving(engine, cancel_after_disconnect_seconds=0.1) as server, server.client() as client:
        with client.stream("POST", STREAM, json=BODY):
            until(lambda: engine.running)
        assert engine.closed_early.wait(5)
        assert frames(server.get("/api/sessions/mine/events").text)[-1].json["code"] == "cancelled"


def test_a_lost_client_loses_nothing_of_what_was_written_meanwhile() -> None:
    """Pitfall: after a disconnect nothing was buffered."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine) as server, server.client() as client:
        with client.stream("POST", NDJSON, json=BODY):
            until(lambda: engine.running)
        gate.open()
        until(lambda: not engine.running)
        assert frames(server.get("/api/sessions/mine/events").text)[-1].json["done"] is True


def test_a_reader_that_never_reads_holds_nobody_up() -> None:
    """Rule 8, with a real socket whose buffers are full."""
    big = ScriptedEngine(["x" * 4096] * 1500)
    with serving(big) as server:
        where = urlsplit(server.base)
        with socket.create_connection((where.hostname, where.port)) as asleep:
            asleep.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            body = f'{{"text":"{ARTICLE}","session_id":"mine"}}'.encode()
            asleep.sendall(
                b"POST /api/v3/scrape-and-summarize/stream HTTP/1.1\r\nHost: x\r\n"
                b"Content-Type: application/json\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            until(lambda: server.app.state.services().sessions.active == 0 and big.requests)
            whole = frames(server.get("/api/sessions/mine/events").text)
            assert whole[-1].json["done"] is True
            assert server.get("/health").status_code == 200


def test_eight_streams_leave_no_thread_behind() -> None:
    """Must hold: one cancelled, one disconnected, the rest read; one terminal event each."""
    with serving(ScriptedEngine()) as warm:
        warm.post(STREAM, BODY)
    before = set(threading.enumerate())
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine) as server, server.client() as client:
        streams = [
            client.stream("POST", STREAM, json={"text": f"{n} {ARTICLE}", "session_id": f"s{n}"})
            for n in range(8)
        ]
        responses = [stream.__enter__() for stream in streams]
        until(lambda: engine.running == 8)
        server.post("/v1/cancel/s0")
        streams[1].__exit__(None, None, None)
        gate.open()
        ends = [frames(r.read().decode())[-1].event for n, r in enumerate(responses) if n != 1]
        ends.append(frames(server.get("/api/sessions/s1/events").text)[-1].event)
        assert ends == ["error", *["result"] * 7]
        for n, stream in enumerate(streams):
            if n != 1:
                stream.__exit__(None, None, None)
        until(lambda: server.app.state.services().sessions.active == 0)
        assert engine.running == 0
    until(lambda: not set(threading.enumerate()) - before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopping_server_tells_its_streams_and_exits(number: signal.Signals) -> None:
    """Architecture: sessions are closed before uvicorn waits for connections (measured)."""
    program = (
        "import uvicorn\n"
        "from app.__main__ import Server\n"
        "from app.main import create_app\n"
        "from tests.engines import Gate, ScriptedEngine, slow_script\n"
        "from tests.servers import settings\n"
        "import os\n"
        "app = create_app(settings(), engine=ScriptedEngine(slow_script(Gate())))\n"
        "port = int(os.environ['PORT'])\n"
        "Server(uvicorn.Config(app, port=port, log_config=None), app).run()\n"
    )
    with process_server(free_port(), command=(sys.executable, "-c", program)) as running:
        import httpx

        with httpx.stream(
            "POST", f"{running.base}{STREAM}", json=BODY, timeout=20, trust_env=False
        ) as response:
            lines = response.iter_lines()
            while not next(lines).startswith("event: status"):
                pass
            running.process.send_signal(number)
            rest = "\n".join(lines)
        assert '"code":"interrupted"' in rest
        assert rest.count('"done":true') == 1
        try:
            running.process.wait(10)
        except subprocess.TimeoutExpired:
            pytest.fail("the server did not exit")
