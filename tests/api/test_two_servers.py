"""Several of us: one behind another, two on one Redis, one after another on one file."""

from __future__ import annotations

import json
from pathlib import Path

from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import make_checkpoint
from tests.engines import ARTICLE, SUMMARY_TEXT, Gate, ScriptedEngine, slow_script
from tests.redis_server import redis_server, redis_url
from tests.servers import NDJSON, STREAM, frames, indexes, serving, text_of

__all__ = ["redis_server", "redis_url"]

CHAT = "/v1/chat/completions"
ASK = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 60}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
BODY = {"text": ARTICLE, "use_cache": False, "session_id": "mine"}


def test_one_of_us_runs_the_model_of_another(tmp_path: Path) -> None:
    """C17: summaries, chats and schemas through ENGINE_URL; the field at fault is named through."""
    folder = make_checkpoint(tmp_path / "phi3")
    ModelServiceV4.unload()
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
    try:
        with (
            serving(summary_engine="local", v4_model_id=str(folder)) as back,
            serving(summary_engine="local", engine_url=(f"{back.base}/v1",)) as front,
        ):
            summary = frames(front.post(STREAM, {"text": ARTICLE, "max_tokens": 128}).text)
            patches = frames(front.post(NDJSON, {"text": ARTICLE, "max_tokens": 128}).text)
            plain = front.post(CHAT, {**ASK, "seed": 3})
            same = back.post(CHAT, {**ASK, "seed": 3})
            held = front.post(CHAT, {**ASK, "response_format": form})
            models = front.get("/v1/models").json()["data"]
            long = front.post(CHAT, {"messages": [{"role": "user", "content": "word " * 9000}]})
    finally:
        ModelServiceV4.unload()
    assert summary[-1].event == "result"
    assert summary[-1].json["engine"] == "remote"
    assert json.loads(text_of(summary)) == summary[-1].json["summary"]
    assert patches[-1].json["done"] is True
    assert "error" not in patches[-1].json
    said, told = plain.json()["choices"][0], same.json()["choices"][0]
    assert said["message"]["content"] == told["message"]["content"]
    assert said["finish_reason"] == told["finish_reason"]
    assert plain.json()["usage"] == same.json()["usage"]
    assert set(json.loads(held.json()["choices"][0]["message"]["content"])) == {"city", "people"}
    assert [model["id"] for model in models] == [str(folder)]
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_stream_of_one_process_is_resumed_and_cancelled_on_another(redis_url: str) -> None:
    """Contract 3, S4.34: any process; one generation, no gap, no duplicate."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    idle = ScriptedEngine()
    with (
        serving(engine, sessions_url=redis_url) as one,
        serving(idle, sessions_url=redis_url) as two,
        one.client() as client,
        client.stream("POST", STREAM, json=BODY) as response,
    ):
        parts = response.iter_text()
        seen = next(parts)
        with two.client() as other, other.stream("POST", STREAM, json=BODY) as joined:
            gate.open()
            elsewhere = joined.read().decode()
        seen += "".join(parts)
        assert elsewhere == seen
        found = frames(seen)
        assert text_of(found) == SUMMARY_TEXT
        assert indexes(found) == list(range(len(found)))
        last = {"Last-Event-ID": found[3].id or ""}
        assert frames(two.post(STREAM, BODY, headers=last).text) == found[4:]
        assert not idle.requests

        engine.script = ["Hello ", Gate()]
        chat = {**ASK, "stream": True, "session_id": "talk"}
        with client.stream("POST", CHAT, json=chat) as talk:
            lines = talk.iter_lines()
            assert any('"content":"Hello "' in line for line in lines)
            assert two.post("/v1/cancel/talk").json()["ok"] is True
            rest = list(lines)
        assert any('"finish_reason":"stop"' in line for line in rest)
        assert "data: [DONE]" in rest
        assert engine.closed_early.wait(5)


def test_a_file_of_sessions_outlives_the_server(tmp_path: Path) -> None:
    """S1.24, S1.28, S2.28: replay across a restart, for a finished and for an interrupted one."""
    kept = {"persist_sessions": True, "sessions_db_path": str(tmp_path / "sessions.db")}
    gate = Gate()
    with serving(ScriptedEngine(), **kept) as server:
        whole = server.post(STREAM, BODY).text
    with serving(ScriptedEngine([gate]), **kept) as server:
        assert server.get("/api/sessions/mine/events").text == whole
        with server.client() as client:
            chat = {**ASK, "stream": True, "session_id": "cut"}
            engine: ScriptedEngine = server.app.state.services().engine.inner
            engine.script = ["Hello ", gate]
            with client.stream("POST", CHAT, json=chat) as response:
                assert any('"content":"Hello "' in line for line in response.iter_lines())
    with serving(ScriptedEngine(), **kept) as server:
        found = frames(server.get("/api/sessions/cut/events").text)
    assert found[-1].json["error"]["code"] == "interrupted"
    assert sum("error" in frame.json for frame in found) == 1
