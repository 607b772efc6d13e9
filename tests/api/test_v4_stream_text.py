"""`/stream`: raw text, named events, statuses before the first byte."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from app.core.errors import EngineUnavailable, GenerationFailed
from app.engine.base import Status
from tests.engines import ARTICLE, SUMMARY, SUMMARY_TEXT, Gate, ScriptedEngine, slow_script
from tests.servers import NDJSON, PROSE, STREAM, Running, frames, serving, text_of, until

BODY = {"text": ARTICLE}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(ScriptedEngine()) as running:
        yield running


def test_metadata_comes_first_and_the_result_last(server: Running) -> None:
    """Contract 1, C19."""
    found = frames(server.post(STREAM, BODY).text)
    assert found[0].event == "metadata"
    assert found[0].json["data"]["engine"] == "scripted"
    assert found[0].json["data"]["model"] == "script-1"
    assert found[-1].event == "result"
    result = found[-1].json
    assert result["summary"] == SUMMARY
    assert result["usage"]["total_tokens"] == sum(
        result["usage"][k] for k in ("prompt_tokens", "completion_tokens")
    )
    assert set(result["timings"]) == {"scrape_ms", "queue_ms", "first_token_ms", "total_ms"}
    assert (result["engine"], result["model"]) == ("scripted", "script-1")


def test_without_metadata_there_is_none(server: Running) -> None:
    """Contract 1: include_metadata."""
    for path in (STREAM, NDJSON, PROSE):
        body = server.post(path, {**BODY, "include_metadata": False}).text
        assert "metadata" not in body


def test_the_same_address_resumed_by_one_index_at_a_time_loses_nothing(server: Running) -> None:
    """Contract 3, S1.21, S1.23: resume by header, by query and by GET."""
    whole = server.post(STREAM, {**BODY, "session_id": "walk"})
    all_frames = frames(whole.text)
    for index in range(len(all_frames) - 1):
        at = f"walk:{index}"
        by_header = server.post(STREAM, {"session_id": "walk"}, headers={"Last-Event-ID": at})
        by_query = server.post(f"{STREAM}?last_event_id={at}", {"session_id": "walk"})
        by_get = server.get("/api/sessions/walk/events", headers={"Last-Event-ID": at})
        for response in (by_header, by_query, by_get):
            assert frames(response.text) == all_frames[index + 1 :]
    assert frames(server.get("/api/sessions/walk/events").text) == all_frames


def test_a_body_wins_over_the_query(server: Running) -> None:
    """C3."""
    response = server.post(
        f"{STREAM}?style=eli5&url=http://10.0.0.1/", {**BODY, "style": "skimmer"}
    )
    assert frames(response.text)[0].json["data"]["style"] == "skimmer"


def test_the_query_alone_is_enough(server: Running) -> None:
    """S0.17, S0.19, C2, C3."""
    response = server.post(f"{STREAM}?url=http://10.0.0.1/&style=eli5")
    assert response.status_code == 400
    assert response.json()["detail"].startswith("Scraping failed: ")
    assert response.json()["code"] == "blocked_url"
    assert response.json()["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("style", ["nonsense", "", "EXECUTIVE", None])
def test_an_unknown_style_is_executive_and_says_so(server: Running, style: str | None) -> None:
    """S0.21, C14."""
    found = frames(server.post(STREAM, {**BODY, "style": style}).text)
    assert found[0].json["data"]["style"] == "executive"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": "http://example.com", "text": ARTICLE},
        {"text": "too short"},
        {"text": "x" * 50_001},
        {"text": "a" + " " * 80 + "b"},
        {"url": "ftp://example.com/x"},
        {"url": "javascript:alert(1)"},
        {"url": "http://"},
        {"url": "http://exa mple.com/"},
        {"url": "http://[::1"},
        {"url": "http://example.com/" + "a" * 2_000},
        {"text": ARTICLE, "max_tokens": 127},
        {"text": ARTICLE, "max_tokens": 2049},
        {"text": ARTICLE, "session_id": "no spaces"},
        {"text": ARTICLE, "session_id": "line\nbreak"},
        {"text": ARTICLE, "session_id": "x" * 65},
        {"text": 5},
        [],
        "text",
    ],
)
def test_bad_input_is_422_before_any_work(server: Running, body: object) -> None:
    """S1.26, contract 1, C16: a clear error that names the field."""
    engine_calls = len(server.app.state.services().engine.inner.requests)
    for path in (STREAM, NDJSON):
        response = server.post(path, body)
        assert response.status_code == 422, response.text
        assert set(response.json()) == {"detail", "code", "request_id"}
    assert len(server.app.state.services().engine.inner.requests) == engine_calls


def test_a_body_that_is_not_json_is_422(server: Running) -> None:
    """C16."""
    with server.client() as client:
        response = client.post(
            STREAM, content=b"{nope", headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 422
    assert response.json()["code"] == "validation_error"


@pytest.mark.parametrize("text", ["\ud800" + ARTICLE, "\x00" + ARTICLE, "‮" + ARTICLE * 2])
def test_odd_characters_do_not_break_the_stream(server: Running, text: str) -> None:
    with server.client() as client:
        response = client.post(
            STREAM, content=json.dumps({"text": text}), headers={"Content-Type": "application/json"}
        )
    assert frames(response.text)[-1].event == "result"


def test_null_max_tokens_is_the_default(server: Running) -> None:
    """Contract 1, C4, S0.14."""
    server.post(STREAM, {"text": "null budget. " + ARTICLE, "max_tokens": None})
    assert server.app.state.services().engine.inner.requests[-1].max_tokens == 1024


def test_the_engine_is_asked_as_the_plan_says(server: Running) -> None:
    """S0.14, S0.20, S0.21: sampling, system prompt, style."""
    server.post(STREAM, {"text": "asked. " + ARTICLE, "style": "eli5"})
    request = server.app.state.services().engine.inner.requests[-1]
    assert request.temperature == 0.2
    system = request.messages[0]
    assert system.role == "system"
    for word in ("JSON", "no markdown", *SUMMARY, "positive"):
        assert word in system.content
    assert request.messages[1].may_be_cut
    assert "like I'm 5" in request.messages[1].after
    assert request.json_schema["properties"]["read_time_min"] == {"const": 1}


def test_status_events_tell_stage_position_and_progress() -> None:
    """Contract 1."""
    script = [Status("queued", position=2), Status("loading", progress=0.5), SUMMARY_TEXT]
    with serving(ScriptedEngine(script)) as server:
        found = frames(server.post(STREAM, BODY).text)
    assert [f.event for f in found[:2]] == ["metadata", "status"]
    assert [f.json for f in found if f.event == "status"] == [
        {"stage": "queued", "position": 2},
        {"stage": "loading", "progress": 0.5},
    ]


def test_white_space_and_line_breaks_of_a_model_are_made_compact() -> None:
    """Contract 1: no white space outside strings, no piece with a line break."""
    pretty = json.dumps({**SUMMARY, "main_summary": "One.\u2028Two.\x85"}, indent=2)
    raw = pretty.replace("\\u2028", "\u2028").replace("\\u0085", "\x85")
    with serving(ScriptedEngine(list(raw))) as server:
        response = server.post(STREAM, BODY)
    document = text_of(frames(response.text))
    assert json.loads(document)["main_summary"] == "One.\u2028Two.\x85"
    assert document == json.dumps(json.loads(document), separators=(",", ":"))
    assert len(response.text.splitlines()) == response.text.count("\n")


def test_an_object_that_is_not_a_summary_ends_in_an_error() -> None:
    """Pitfall: fields were never validated."""
    with serving(ScriptedEngine(['{"title":"x"}'])) as server:
        found = frames(server.post(STREAM, BODY).text)
    assert (found[-1].event, found[-1].json["code"]) == ("error", "invalid_output")
    assert found[-1].json["done"] is True


def test_an_engine_that_fails_in_the_middle_ends_in_an_error_event() -> None:
    """Rule 1: after the first byte the only failure is the terminal event."""
    with serving(ScriptedEngine(['{"title":"x', GenerationFailed("broke")])) as server:
        found = frames(server.post(STREAM, BODY).text)
    assert found[-1].json == {"error": "broke", "code": "generation_failed", "done": True}
    assert sum(f.event in ("result", "error") for f in found) == 1


def test_an_unavailable_engine_hands_over_to_the_extractive_one() -> None:
    """C19: at once, and the metadata event says why."""
    with serving(ScriptedEngine([EngineUnavailable("no weights here")])) as server:
        found = frames(server.post(STREAM, BODY).text)
    data = found[0].json["data"]
    assert (data["engine"], data["engine_reason"]) == ("extractive", "no weights here")
    assert found[-1].event == "result"
    assert json.loads(text_of(found)) == found[-1].json["summary"]


def test_a_loader_that_fails_late_corrects_the_metadata() -> None:
    """C19."""
    script = [Status("loading", progress=0.1), EngineUnavailable("broken file")]
    with serving(ScriptedEngine(script)) as server:
        found = frames(server.post(STREAM, BODY).text)
    engines = [f.json["data"]["engine"] for f in found if f.event == "metadata"]
    assert engines == ["scripted", "extractive"]
    assert found[-1].json["engine"] == "extractive"


@pytest.mark.parametrize("path", [STREAM, NDJSON, PROSE])
def test_without_a_fallback_an_unavailable_engine_is_503(path: str) -> None:
    """C19, S1.35, S4.22."""
    engine = ScriptedEngine(out_of_order="the model is missing")
    with serving(engine, fallback_engine="none") as server:
        response = server.post(path, BODY)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert response.json()["code"] == "model_unavailable"
    assert response.json()["detail"] == "the model is missing"
    assert engine.requests == []
    assert engine.prepared, "a download must begin, or the model would be missing for ever"


@pytest.mark.parametrize("path", [STREAM, NDJSON])
def test_a_full_server_is_429_before_any_work(path: str) -> None:
    """Contract 8, rule 8."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine, max_queue=0) as server, server.client() as client:
        with client.stream("POST", STREAM, json=BODY) as running:
            until(lambda: engine.running)
            response = server.post(path, {"text": "other " + ARTICLE})
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) > 0
            assert response.json()["code"] == "overloaded"
            gate.open()
            running.read()
        until(lambda: server.app.state.services().sessions.active == 0)
        assert server.post(path, {"text": "other " + ARTICLE}).status_code == 200
    assert len(engine.requests) == 2


def test_the_same_request_twice_at_once_is_generated_once() -> None:
    """Contract 3: the second follows the first one's session."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine) as server, server.client() as client:
        first = client.stream("POST", STREAM, json=BODY)
        second = client.stream("POST", STREAM, json=BODY)
        patches = client.stream("POST", NDJSON, json={**BODY, "session_id": "own"})
        with first as one, second as two, patches as three:
            until(lambda: server.app.state.services().sessions.active == 2)
            assert one.headers["x-session-id"] == two.headers["x-session-id"]
            assert three.headers["x-session-id"] == "own"
            gate.open()
            assert one.read() == two.read()
            assert frames(three.read().decode())[-1].json["state"] == SUMMARY
    assert len(engine.requests) == 1


def test_cancelling_one_of_two_leaves_the_other() -> None:
    """Two sessions share a generation; it stops when nobody needs it any more."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine) as server, server.client() as client:
        mine = client.stream("POST", STREAM, json={**BODY, "session_id": "mine"})
        yours = client.stream("POST", STREAM, json={**BODY, "session_id": "yours"})
        with mine as one, yours as two:
            until(lambda: server.app.state.services().sessions.active == 2)
            server.post("/v1/cancel/mine")
            assert frames(one.read().decode())[-1].json["code"] == "cancelled"
            assert not engine.closed_early.is_set()
            gate.open()
            assert frames(two.read().decode())[-1].event == "result"
    assert len(engine.requests) == 1


def test_a_finished_summary_is_reused_unless_the_client_declines() -> None:
    """Contract 1: use_cache."""
    engine = ScriptedEngine()
    with serving(engine) as server:
        first = frames(server.post(STREAM, BODY).text)
        again = frames(server.post(STREAM, BODY).text)
        assert len(engine.requests) == 1
        assert text_of(again) == text_of(first)
        assert again[0].json["data"]["cached"] is True
        assert "cached" not in first[0].json["data"]
        server.post(STREAM, {**BODY, "style": "eli5"})
        assert len(engine.requests) == 2
        server.post(STREAM, {**BODY, "use_cache": False})
        assert len(engine.requests) == 3


def test_a_cached_stand_in_is_not_reused_once_the_engine_can_do_better() -> None:
    """C19: what the fallback wrote lasts only as long as the engine is missing."""
    engine = ScriptedEngine([EngineUnavailable("loading")], out_of_order="loading")
    with serving(engine) as server:
        assert frames(server.post(STREAM, BODY).text)[-1].json["engine"] == "extractive"
        assert frames(server.post(STREAM, BODY).text)[0].json["data"]["cached"] is True
        engine.script, engine._out_of_order = [SUMMARY_TEXT], None
        assert frames(server.post(STREAM, BODY).text)[-1].json["engine"] == "scripted"


def test_v4_can_be_switched_off() -> None:
    """S0.25: ENABLE_V4_STRUCTURED."""
    with serving(ScriptedEngine(), enable_v4_structured=False) as server:
        assert server.post(STREAM, BODY).status_code == 404
        assert server.post(PROSE, BODY).status_code == 200


def test_a_null_field_is_its_default(server: Running) -> None:
    """Clients that write every field send null for what is not set."""
    fields = ("url", "style", "max_tokens", "include_metadata", "use_cache", "session_id")
    found = frames(server.post(STREAM, {**dict.fromkeys(fields), **BODY}).text)
    assert [found[0].event, found[-1].event] == ["metadata", "result"]
