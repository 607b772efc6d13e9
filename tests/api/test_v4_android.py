"""A1 to A17: what the unmodified Android client imposes, on the raw bytes of a real server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import httpx
import pytest

from app.core.errors import GenerationFailed
from app.engine.base import Status
from tests.engines import (
    ARTICLE,
    SUMMARY,
    SUMMARY_TEXT,
    Gate,
    ScriptedEngine,
    pieces_of,
    slow_script,
)
from tests.servers import NDJSON, PROSE, STREAM, Frame, Running, frames, serving, text_of, until

BODY = {"text": ARTICLE, "use_cache": False}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(ScriptedEngine()) as running:
        yield running


def ndjson(server: Running, **body: object) -> list[Frame]:
    response = server.post(NDJSON, {**BODY, **body})
    assert response.status_code == 200, response.text
    return frames(response.text)


def test_a1_an_event_is_one_data_line_and_a_blank_line(server: Running) -> None:
    """A1; contract 3: every event has an id."""
    response = server.post(NDJSON, BODY)
    assert response.headers["content-type"] == "text/event-stream"
    for block in response.text.removesuffix("\n\n").split("\n\n"):
        assert re.fullmatch(r"id: [A-Za-z0-9_-]+:\d+\ndata: \{.*\}", block)


def test_a2_no_success_event_has_a_key_error(server: Running) -> None:
    """A2: not even null."""
    for path in (NDJSON, PROSE):
        for frame in frames(server.post(path, BODY).text):
            assert "error" not in frame.json


def test_a3_a4_each_state_comes_with_done_and_tokens_used(server: Running) -> None:
    """A3, A4."""
    with_state = [frame.json for frame in ndjson(server) if "state" in frame.json]
    assert len(with_state) > 5
    for event in with_state:
        assert isinstance(event["state"], dict)
        assert isinstance(event["done"], bool)
        assert type(event["tokens_used"]) is int


def test_a5_metadata_has_no_null(server: Running) -> None:
    """A5; contract 1: a value that is not known is left out."""
    for path in (NDJSON, PROSE):
        first = frames(server.post(path, BODY).text)[0].json
        assert first["type"] == "metadata"
        assert None not in first["data"].values()
        assert first["data"]["input_type"] == "text"
        assert first["data"]["text_length"] == len(ARTICLE)


def test_a6_states_have_six_keys_of_the_right_types(server: Running) -> None:
    """A6; contract 1: scalars start null, key_points starts []."""
    states = [frame.json["state"] for frame in ndjson(server) if "state" in frame.json]
    for state in states:
        assert list(state) == list(SUMMARY)
        assert state["read_time_min"] is None or type(state["read_time_min"]) is int
        assert all(isinstance(point, str) for point in state["key_points"])
    assert states[0]["key_points"] == []
    assert states[0]["category"] is None


def test_a7_the_first_done_holds_the_complete_state(server: Running) -> None:
    """A7; pitfall: done came before the last fields."""
    done = next(f.json for f in ndjson(server) if f.json.get("done"))
    assert done["state"] == SUMMARY
    assert done["delta"] == {"op": "done"}
    assert done["latency_ms"] > 0
    assert done["tokens_used"] >= 1


def test_a7_every_field_came_as_a_delta_before_done(server: Running) -> None:
    """Contract 1: a field is sent when it is complete."""
    deltas = [f.json["delta"] for f in ndjson(server) if "delta" in f.json]
    rebuilt: dict[str, object] = {"key_points": []}
    for delta in deltas:
        if delta["op"] == "set":
            rebuilt[delta["field"]] = delta["value"]
        elif delta["op"] == "append":
            rebuilt["key_points"].append(delta["value"])  # type: ignore[attr-defined]
    assert rebuilt == SUMMARY


def done_count(found: list[Frame]) -> int:
    return sum(frame.json.get("done") is True for frame in found)


def test_a8_every_stream_ends_with_exactly_one_done(server: Running) -> None:
    """A8; pitfall: a done:true per chunk."""
    for path in (NDJSON, PROSE):
        found = frames(server.post(path, BODY).text)
        assert done_count(found) == 1
        assert found[-1].json["done"] is True


@pytest.mark.parametrize("path", [NDJSON, PROSE])
def test_a8_a_crash_in_the_middle_is_one_done_with_an_error(path: str) -> None:
    """A8, rule 2; pitfall: engine errors became finish_reason stop."""
    broken = ScriptedEngine([SUMMARY_TEXT[:40], GenerationFailed("the model broke")])
    with serving(broken) as server:
        found = frames(server.post(path, BODY).text)
    assert done_count(found) == 1
    last = found[-1].json
    assert last["error"] == "the model broke"
    assert last["tokens_used"] == 0
    if path == NDJSON:
        assert last == {
            "delta": None, "state": None, "done": True, "tokens_used": 0,
            "error": "the model broke",
        }  # fmt: skip
    else:
        assert last == {"content": "", "done": True, "tokens_used": 0, "error": "the model broke"}


@pytest.mark.parametrize("path", [NDJSON, PROSE])
def test_a8_a_timeout_is_one_done_with_an_error(path: str) -> None:
    """A8."""
    with serving(ScriptedEngine(slow_script(Gate())), generation_timeout_seconds=0.3) as server:
        found = frames(server.post(path, BODY).text)
    assert done_count(found) == 1
    assert "longer than" in found[-1].json["error"]


@pytest.mark.parametrize("path", [NDJSON, PROSE])
def test_a8_a_cancel_is_one_done_with_an_error(path: str) -> None:
    """A8, S1.25."""
    engine = ScriptedEngine(slow_script(Gate()))
    with serving(engine) as server, server.client() as client:
        with client.stream("POST", path, json={**BODY, "session_id": "mine"}) as response:
            until(lambda: engine.running)
            answer = server.post("/v1/cancel/mine").json()
            found = frames(response.read().decode())
        assert answer == {"ok": True, "session_id": "mine"}
    assert done_count(found) == 1
    assert "cancelled" in found[-1].json["error"]
    assert engine.closed_early.wait(5)


def test_a9_the_body_closes_after_the_last_event(server: Running) -> None:
    """A9: a client that reads to the end is done, on a connection that stays usable."""
    with server.client() as client:
        for _ in range(3):
            with client.stream("POST", NDJSON, json=BODY) as response:
                *_, last = list(response.iter_lines())
        assert last == ""


def test_a10_silence_is_filled_with_pings() -> None:
    """A10: a byte at least every 15 s; here the interval is shortened."""
    gate = Gate()
    with (
        serving(ScriptedEngine([gate, SUMMARY_TEXT]), heartbeat_seconds=0.1) as server,
        server.client() as client,
        client.stream("POST", NDJSON, json=BODY) as response,
    ):
        lines = response.iter_lines()
        pings = 0
        while pings < 3:
            pings += next(lines) == ": ping"
        gate.open()
        assert json.loads(list(lines)[-2].removeprefix("data: "))["done"] is True


def test_a10_the_default_heartbeat_is_under_15_seconds() -> None:
    """A10."""
    from tests.servers import settings

    assert settings().heartbeat_seconds < 15


def test_a11_health_answers_while_streams_run() -> None:
    """A11; pitfall: the model's blocking streamer was iterated on the event loop."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine, max_concurrent_generations=8) as server, server.client() as client:
        open_streams = []
        for number in range(6):
            body = {"text": f"{number} {ARTICLE}", "use_cache": False}
            stream = client.stream("POST", NDJSON, json=body)
            stream.__enter__()
            open_streams.append(stream)
        started_s = time.monotonic()
        response = server.get("/health")
        assert response.is_success
        assert time.monotonic() - started_s < 3
        assert response.json()["sessions"] == 6
        gate.open()
        for stream in open_streams:
            stream.__exit__(None, None, None)


def test_a12_accept_json_is_accepted(server: Running) -> None:
    """A12."""
    for path in (NDJSON, STREAM, PROSE):
        response = server.post(path, BODY, headers={"Accept": "application/json"})
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"


def test_a13_a_text_that_is_only_a_url_is_that_url(server: Running) -> None:
    """A13: that is what the Android client sends."""
    response = server.post(NDJSON, {"text": "  http://127.0.0.1/story \n"})
    assert response.status_code == 200
    only = frames(response.text)
    assert len(only) == 1
    assert only[0].json["error"].startswith("Scraping failed: ")


def test_a14_a_v3_url_that_is_none_is_text(server: Running) -> None:
    """A14."""
    first = frames(server.post(PROSE, {"url": ARTICLE}).text)[0].json
    assert first["data"]["input_type"] == "text"


def test_a17_a_burst_of_pieces_is_at_most_33_events_a_second() -> None:
    """A17: more cannot be drawn."""
    with serving(ScriptedEngine(["word "] * 2000)) as server:
        started_s = time.monotonic()
        found = frames(server.post(PROSE, BODY).text)
        took_s = time.monotonic() - started_s
    content = [frame for frame in found if frame.json.get("content")]
    assert "".join(frame.json["content"] for frame in content) == "word " * 2000
    assert len(content) <= 33 * took_s + 2


def test_the_typed_summary_is_sent_at_most_ten_times_a_second() -> None:
    """Contract 1: while main_summary is being written, at most 10 sets a second."""
    with serving(ScriptedEngine(list(SUMMARY_TEXT))) as server:
        started_s = time.monotonic()
        found = frames(server.post(NDJSON, BODY).text)
        took_s = time.monotonic() - started_s
    typed = [f for f in found if (f.json.get("delta") or {}).get("field") == "main_summary"]
    assert 1 <= len(typed) <= 10 * took_s + 2
    assert typed[-1].json["delta"]["value"] == SUMMARY["main_summary"]


def test_a_scrape_that_fails_is_a_200_with_one_terminal_error(server: Running) -> None:
    """C2: the Android client never looks at the status."""
    for path in (NDJSON, PROSE):
        response = server.post(path, {"url": "http://10.0.0.1/"})
        assert response.status_code == 200
        assert done_count(frames(response.text)) == 1


def test_ndjson_has_unnamed_events_only() -> None:
    """Contract 1."""
    script = [Status("queued", position=2), Status("loading", progress=0.5), SUMMARY_TEXT]
    with serving(ScriptedEngine(script)) as server:
        assert {f.event for f in ndjson(server)} == {""}


def test_the_wire_of_stream_joins_to_the_document(server: Running) -> None:
    """S0.4, contract 1: a client that reads only unnamed events loses nothing."""
    assert text_of(frames(server.post(STREAM, BODY).text)) == SUMMARY_TEXT


def test_headers_of_every_stream(server: Running) -> None:
    """Contracts' head, C1."""
    for path in (NDJSON, STREAM, PROSE):
        response: httpx.Response = server.post(path, BODY)
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-request-id"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", response.headers["x-session-id"])


def test_status_comes_only_to_who_asks_for_it() -> None:
    """Contract 1: the unmodified client sees metadata, patches and done, and nothing else."""
    script = [Status("queued", position=2), Status("writing"), *pieces_of(SUMMARY_TEXT)]
    with serving(ScriptedEngine(script)) as running:
        plain = ndjson(running)
        told = ndjson(running, include_status=True)
    assert [frame for frame in plain if frame.json.get("type") == "status"] == []
    stages = [frame.json["data"] for frame in told if frame.json.get("type") == "status"]
    assert stages == [{"stage": "queued", "position": 2}, {"stage": "writing"}]
    assert not any(frame.event for frame in told)
