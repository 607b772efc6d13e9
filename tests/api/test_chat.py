"""`/v1/chat/completions` over HTTP, on a scripted engine: contract 2 and the sessions under it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from app.api.deps import Services
from app.api.resume import first_event
from app.core.errors import AppError, EngineUnavailable, GenerationFailed, Overloaded, Unsupported
from app.engine.base import Fitted, Reasoning, Status, Text, TokenLogprob, ToolCallPart
from app.main import create_app
from app.stream.event import Draft
from tests.engines import Gate, ScriptedEngine
from tests.servers import Frame, Running, indexes, serving, settings, until

CHAT = "/v1/chat/completions"
WORDS = ["Ha", "lo ", "dunia", "!"]


def body(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Say hello"}], **fields}


def chat_frames(raw: str) -> list[Frame]:
    """Frames of a chat, strictly: id and data, and a last `[DONE]` without an id."""
    found = []
    for block in raw.removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            assert set(fields) <= {"id", "data"}
            found.append(Frame(fields.get("id"), "", fields["data"]))
    return found


def chunks(found: list[Frame]) -> list[dict[str, Any]]:
    return [frame.json for frame in found if frame.data != "[DONE]"]


def content(found: list[Frame]) -> str:
    deltas = [c["choices"][0]["delta"] for c in chunks(found) if c.get("choices")]
    return "".join(delta.get("content", "") for delta in deltas)


def stream(server: Running, **fields: Any) -> list[Frame]:
    response = server.post(CHAT, body(stream=True, **fields))
    assert response.status_code == 200, response.text
    return chat_frames(response.text)


def test_a_stream_has_role_text_finish_and_done() -> None:
    """S1.20, S1.21, S4.27: ids from 0, the role first, finish_reason last, `[DONE]` without id."""
    with serving(ScriptedEngine([Status("reading"), *WORDS])) as server:
        response = server.post(CHAT, body(stream=True, session_id="mine"))
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-session-id"] == "mine"
        assert response.headers["x-request-id"]
        found = chat_frames(response.text)
    assert [f.id for f in found[:-1]] == [f"mine:{i}" for i in range(len(found) - 1)]
    assert (found[-1].id, found[-1].data) == (None, "[DONE]")
    sent = chunks(found)
    assert sent[0]["choices"][0]["delta"]["role"] == "assistant"
    assert content(found) == "".join(WORDS)
    assert [c["choices"][0]["finish_reason"] for c in sent] == [None] * 5 + ["stop"]
    assert {c["object"] for c in sent} == {"chat.completion.chunk"}
    assert len({(c["id"], c["created"], c["model"], c["system_fingerprint"]) for c in sent}) == 1
    assert sent[0]["id"].startswith("chatcmpl-")
    assert all("usage" not in c for c in sent)


def test_include_usage_adds_one_chunk_without_choices() -> None:
    """Contract 2, C8."""
    with serving(ScriptedEngine(WORDS)) as server:
        sent = chunks(stream(server, stream_options={"include_usage": True}))
    assert sent[-1]["choices"] == []
    assert sent[-1]["usage"] == {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104}
    assert all(c["usage"] is None for c in sent[:-1])
    assert sent[-2]["choices"][0]["finish_reason"] == "stop"


def test_a_plain_answer_is_the_fold_of_the_same_stream() -> None:
    """S1.19, S2.14: usage, finish_reason, and the session behind it can be read again."""
    with serving(ScriptedEngine(WORDS)) as server:
        response = server.post(CHAT, body(session_id="mine"))
        answer = response.json()
        replayed = chat_frames(server.get("/api/sessions/mine/events").text)
    assert response.headers["x-session-id"] == "mine"
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"] == "".join(WORDS) == content(replayed)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == 104
    assert answer["model"] == "script-1"
    assert answer["id"] == chunks(replayed)[0]["id"]
    assert replayed[-1].data == "[DONE]"


def test_reasoning_has_a_field_of_its_own() -> None:
    """Pitfall: `<think>` text in the answer."""
    script = [Reasoning("Let me "), Reasoning("think."), *WORDS]
    with serving(ScriptedEngine(script)) as server:
        found = stream(server)
        answer = server.post(CHAT, body()).json()
    deltas = [c["choices"][0]["delta"] for c in chunks(found)]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "Let me think."
    message = answer["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Halo dunia!", "Let me think.")


CALL = [
    ToolCallPart(0, id="call_1", name="weather"),
    ToolCallPart(0, arguments='{"city":'),
    ToolCallPart(0, arguments='"Jakarta"}'),
    ToolCallPart(1, id="call_2", name="weather", arguments='{"city":"Bogor"}'),
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "clock"}},
]


def test_tool_calls_come_as_deltas_and_fold_into_a_message() -> None:
    """Contract 2: tools."""
    with serving(ScriptedEngine(CALL)) as server:
        found = stream(server, tools=TOOLS)
        answer = server.post(CHAT, body(tools=TOOLS)).json()
    calls = [
        call
        for chunk in chunks(found)
        for call in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert calls[0] == {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    assert calls[1] == {"index": 0, "function": {"arguments": '{"city":'}}
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert [(c["id"], c["type"], c["function"]) for c in message["tool_calls"]] == [
        ("call_1", "function", {"name": "weather", "arguments": '{"city":"Jakarta"}'}),
        ("call_2", "function", {"name": "weather", "arguments": '{"city":"Bogor"}'}),
    ]


@pytest.mark.parametrize(
    ("choice", "names", "how"),
    [
        (None, ["weather", "clock"], "auto"),
        ("auto", ["weather", "clock"], "auto"),
        ("none", [], "auto"),
        ("required", ["weather", "clock"], "required"),
        ({"type": "function", "function": {"name": "clock"}}, ["clock"], "required"),
    ],
)
def test_tool_choice_says_which_tools_the_engine_sees(
    choice: Any, names: list[str], how: str
) -> None:
    """Contract 2: auto, none, required, named."""
    engine = ScriptedEngine(WORDS)
    with serving(engine) as server:
        assert server.post(CHAT, body(tools=TOOLS, tool_choice=choice)).status_code == 200
    asked = engine.requests[0]
    assert [tool.name for tool in asked.tools] == names
    assert asked.tool_choice == how


def test_logprobs_are_told_token_by_token() -> None:
    """Contract 2: logprobs, top_logprobs."""
    token = TokenLogprob("Ha", b"Ha", -0.5, (("Ha", b"Ha", -0.5), ("Ho", b"Ho", -1.5)))
    engine = ScriptedEngine([Text("Ha", (token,)), Text("lo")])
    with serving(engine) as server:
        answer = server.post(CHAT, body(logprobs=True, top_logprobs=2)).json()
    assert engine.requests[0].top_logprobs == 2
    assert answer["choices"][0]["logprobs"]["content"] == [
        {
            "token": "Ha",
            "logprob": -0.5,
            "bytes": [72, 97],
            "top_logprobs": [
                {"token": "Ha", "logprob": -0.5, "bytes": [72, 97]},
                {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]},
            ],
        }
    ]


def test_every_field_reaches_the_engine() -> None:
    """S1.18, S1.40: and what is left out has the server's defaults."""
    engine = ScriptedEngine(WORDS)
    sent = body(
        max_tokens=9,
        max_completion_tokens=7,
        temperature=0,
        top_p=0.5,
        stop="END",
        seed=11,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        parallel_tool_calls=False,
        reasoning_effort="none",
        unknown_field=1,
        user="u",
        metadata={"a": "b"},
    )
    with serving(engine, max_tokens=33, temperature=0.4) as server:
        assert server.post(CHAT, sent).status_code == 200
        assert server.post(CHAT, body()).status_code == 200
    asked, plain = engine.requests
    assert (asked.max_tokens, asked.temperature, asked.top_p) == (7, 0.0, 0.5)
    assert (asked.stop, asked.seed, asked.thinking) == (("END",), 11, False)
    assert (asked.presence_penalty, asked.frequency_penalty) == (0.5, -0.5)
    assert asked.parallel_tool_calls is False
    assert (plain.max_tokens, plain.temperature, plain.thinking) == (33, 0.4, None)


def test_response_format_becomes_the_schema_of_the_engine() -> None:
    """Contract 2: text, json_object, json_schema."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    formats = [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    ]
    engine = ScriptedEngine(WORDS)
    with serving(engine) as server:
        for form in formats:
            assert server.post(CHAT, body(response_format=form)).status_code == 200
    assert [r.json_schema for r in engine.requests] == [None, {"type": "object"}, schema]


def test_messages_reach_the_engine_with_roles_parts_and_calls() -> None:
    """S2.6, S4.19."""
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    engine = ScriptedEngine(WORDS)
    with serving(engine) as server:
        assert server.post(CHAT, {"messages": messages}).status_code == 200
    seen = engine.requests[0].messages
    assert [(m.role, m.content) for m in seen] == [
        ("system", "Be brief."),
        ("user", "a\nb"),
        ("assistant", ""),
        ("tool", "42"),
    ]
    assert seen[2].tool_calls[0].name == "f"
    assert seen[3].tool_call_id == "c1"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"n": 2}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"store": True}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_object"}, "tools": TOOLS}, "response_format"),
        ({"session_id": "b d"}, "session_id"),
        ({"session_id": "x" * 65}, "session_id"),
    ],
)
def test_what_cannot_be_honoured_is_a_400_that_names_the_field(
    fields: dict[str, Any], param: str
) -> None:
    """S1.26, S4.22, C16, pitfall: parameters that were accepted and ignored."""
    engine = ScriptedEngine(WORDS)
    with serving(engine) as server:
        response = server.post(CHAT, {**body(), **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert not engine.requests


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (EngineUnavailable("loading"), 503, "model_unavailable"),
        (Overloaded("full", retry_after_s=7), 429, "overloaded"),
        (Unsupported("no", code="unsupported_schema"), 400, "unsupported_schema"),
        (GenerationFailed("broke"), 500, "generation_failed"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_what_fails_before_the_first_byte_is_a_status(
    problem: AppError, status: int, code: str, streamed: bool
) -> None:
    """S4.22: streamed or not, with the engine's own `Retry-After` and no other."""
    with serving(ScriptedEngine([problem])) as server:
        response = server.post(CHAT, body(stream=streamed))
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    retry_after_s = problem.retry_after_s
    assert response.headers.get("retry-after") == (retry_after_s and str(retry_after_s))


def test_a_failure_after_the_first_byte_is_an_error_and_no_done() -> None:
    """Contract 2: `data: {"error":…}`, then the body closes."""
    with serving(ScriptedEngine([*WORDS, GenerationFailed("broke")])) as server:
        found = stream(server, session_id="mine")
        again = chat_frames(server.get("/api/sessions/mine/events").text)
        past = server.get(
            "/api/sessions/mine/events", headers={"Last-Event-ID": found[-1].id or ""}
        )
        plain = server.post(CHAT, body())
    assert found[-1].json["error"]["code"] == "generation_failed"
    assert found[-1].id == f"mine:{len(found) - 1}"
    assert again == found
    assert (past.status_code, past.text) == (204, "")
    assert (plain.status_code, plain.json()["error"]["code"]) == (500, "generation_failed")


def test_a_missing_model_is_503_with_retry_after_and_begins_to_load() -> None:
    """C19: chat has no fallback."""
    engine = ScriptedEngine(WORDS, out_of_order="no network")
    with serving(engine) as server:
        response = server.post(CHAT, body())
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert engine.prepared
    assert not engine.requests


def test_a_prompt_over_the_window_says_what_was_dropped() -> None:
    """Contract 2: the `context` object, in the answer and in the first chunk."""

    class Narrow(ScriptedEngine):
        async def fit(self, request: Any, *, may_drop: bool = False) -> Fitted:
            assert may_drop
            return Fitted(request, dropped=3, prompt_tokens=90, context_tokens=128)

    with serving(Narrow(WORDS)) as server:
        sent = chunks(stream(server))
        answer = server.post(CHAT, body()).json()
    told = {
        "compressed": True,
        "dropped_messages": 3,
        "prompt_tokens": 90,
        "context_tokens": 128,
    }
    assert sent[0]["context"] == told == answer["context"]
    assert "context" not in sent[1]


def test_a_prompt_that_never_fits_is_400_before_the_first_byte() -> None:
    """Contract 2: `context_length_exceeded`."""
    engine = ScriptedEngine(WORDS)
    engine.fit_error = Unsupported("too long", code="context_length_exceeded", param="messages")
    with serving(engine) as server:
        response = server.post(CHAT, body(stream=True))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert response.json()["error"]["param"] == "messages"


def test_a_cut_stream_resumes_on_the_same_path() -> None:
    """S1.22, S1.23, S2.21: by header and by query; the body needs no more than the session id."""
    gate = Gate()
    engine = ScriptedEngine([*WORDS[:2], gate, *WORDS[2:]])
    with serving(engine) as server, server.client() as client:
        seen = ""
        sent = body(stream=True, session_id="mine")
        with client.stream("POST", CHAT, json=sent) as response:
            for text in response.iter_text():
                seen += text
                if seen.count("\n\n") >= 2:
                    break
        first = chat_frames(seen[: seen.rindex("\n\n") + 2])
        gate.open()
        last = first[-1].id or ""
        by_header = server.post(CHAT, sent, headers={"Last-Event-ID": last})
        by_query = server.post(f"{CHAT}?last_event_id={last}", {"session_id": "mine"})
        by_get = server.get(f"/api/sessions/mine/events?last_event_id={last}")
    assert by_header.text == by_query.text == by_get.text
    whole = first + chat_frames(by_header.text)
    assert content(whole) == "".join(WORDS)
    assert indexes(whole[:-1]) == list(range(len(whole) - 1))
    assert whole[-1].data == "[DONE]"
    assert len(engine.requests) == 1


def test_a_finished_stream_resumed_at_its_end_is_over() -> None:
    """S2.28, contract 3: a resume returns a finished stream; a GET that reconnects stops."""
    with serving(ScriptedEngine(WORDS)) as server:
        found = stream(server, session_id="mine")
        past = server.post(
            CHAT, body(session_id="mine"), headers={"Last-Event-ID": found[-2].id or ""}
        )
        at_end = {"Last-Event-ID": found[-2].id or ""}
        by_get = server.get("/api/sessions/mine/events", headers=at_end)
    assert past.text == "data: [DONE]\n\n"
    assert (by_get.status_code, by_get.content) == (204, b"")


def test_cancel_ends_the_stream_with_a_finish_chunk_and_done() -> None:
    """S1.25, S1.32, S2.23: and the id can be used afresh."""
    gate = Gate()
    engine = ScriptedEngine([*WORDS[:2], gate, *WORDS[2:]])
    with serving(engine) as server, server.client() as client:
        sent = body(stream=True, session_id="mine", stream_options={"include_usage": True})
        with client.stream("POST", CHAT, json=sent) as response:
            seen, texts = "", response.iter_text()
            while content(chat_frames(seen)) != "Halo ":
                seen += next(texts)
            cancelled = server.post("/v1/cancel/mine")
            assert cancelled.json() == {"ok": True, "session_id": "mine"}
            seen += "".join(texts)
        assert engine.closed_early.wait(5)
        found = chat_frames(seen)
        assert chunks(found)[-2]["choices"][0]["finish_reason"] == "stop"
        assert [chunk.get("cancelled") for chunk in chunks(found)[:-1]][-2:] == [None, True]
        assert chunks(found)[-1]["usage"]["completion_tokens"] == 2
        assert found[-1].data == "[DONE]"
        gate.open()
        engine.script = list(WORDS)
        assert content(stream(server, session_id="mine")) == "".join(WORDS)


def test_a_plain_client_that_goes_away_stops_the_model() -> None:
    """Rule 5: nobody can come back to an answer that has no id."""
    engine = ScriptedEngine([*WORDS[:2], Gate()])
    with serving(engine) as server:
        with server.client() as client, pytest.raises(Exception, match="timed out"):
            client.post(CHAT, json=body(), timeout=0.3)
        assert engine.closed_early.wait(5)
        until(lambda: engine.running == 0)


async def test_a_slow_model_server_does_not_keep_the_client_in_silence() -> None:
    """A10: the response, and with it the heartbeat, begins before the first event if it must."""
    gate = Gate()
    parts: Services = create_app(settings(), engine=ScriptedEngine([])).state.services()

    async def drafts() -> AsyncGenerator[Draft, None]:
        await gate.passed()
        yield Draft("", {"choices": []}, terminal=True)

    header = await parts.sessions.start("chat", drafts)
    assert await first_event(replace(parts, hold_s=0.01), header) is None
    gate.open()
    first = await first_event(parts, header)
    assert first is not None
    assert first.terminal
    await parts.sessions.aclose()


def test_identical_chats_without_an_id_are_answered_each_by_itself() -> None:
    """A chat is sampled: two people who say the same get an answer each."""
    engine = ScriptedEngine(WORDS)
    with serving(engine) as server:
        ids = {stream(server)[0].id for _ in range(2)}
    assert len(ids) == 2
    assert len(engine.requests) == 2


def test_an_id_that_runs_another_chat_is_409() -> None:
    """Contract 3; the same chat again is joined."""
    gate = Gate()
    engine = ScriptedEngine([*WORDS, gate])
    with serving(engine) as server, server.client() as client:
        sent = body(stream=True, session_id="mine")
        with client.stream("POST", CHAT, json=sent) as one:
            other = server.post(CHAT, body(stream=True, session_id="mine", max_tokens=5))
            assert (other.status_code, other.json()["error"]["code"]) == (409, "session_busy")
            with client.stream("POST", CHAT, json=sent) as two:
                gate.open()
                assert one.read() == two.read()
    assert len(engine.requests) == 1


def test_a_long_answer_fits_the_ring_and_can_be_replayed_from_its_start() -> None:
    """S4.26: 2,048 events hold an answer of 10,000 tokens."""
    engine = ScriptedEngine([f"{number} " for number in range(10_000)])
    with serving(engine) as server:
        text = content(stream(server, session_id="mine", max_tokens=10_000))
        replayed = server.get("/api/sessions/mine/events")
    assert replayed.status_code == 200
    assert content(chat_frames(replayed.text)) == text
    assert text == "".join(f"{number} " for number in range(10_000))


def test_models_lists_what_can_answer() -> None:
    """Contract 2: GET /v1/models and /v1/models/{id}."""
    with serving(ScriptedEngine(WORDS)) as server:
        listed = server.get("/v1/models").json()
        one = server.get("/v1/models/script-1")
        none = server.get("/v1/models/gpt-9/x")
    assert listed["object"] == "list"
    assert [m["id"] for m in listed["data"]] == ["script-1"]
    assert one.json() == listed["data"][0]
    assert one.json()["object"] == "model"
    assert isinstance(one.json()["created"], int)
    assert (none.status_code, none.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    "source",
    ["/etc/passwd", "file:///etc/passwd", "./secret.png", "~/x.png", "C:\\x.png"],
)
def test_a_local_path_is_never_an_image(source: str) -> None:
    """Contract 2, pitfall: a hole in a predecessor."""
    engine = ScriptedEngine(WORDS)
    parts = [
        {"type": "text", "text": "what is this?"},
        {"type": "image_url", "image_url": {"url": source}},
    ]
    with serving(engine) as server:
        response = server.post(CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[0].content[1]"
    assert not engine.requests


def test_bodies_of_v1_errors_are_openais_also_outside_of_the_endpoint() -> None:
    """C16: 401, 404 of an unknown session, 413, broken JSON."""
    with serving(ScriptedEngine(WORDS), api_keys=("k",), max_media_body_bytes=3_000_000) as server:
        head = {"Authorization": "Bearer k"}
        answers = [
            (server.post(CHAT, body()), 401, "unauthorized"),
            (
                server.post(CHAT, body(), headers={**head, "Last-Event-ID": "nope:3"}),
                404,
                "unknown_session",
            ),
            (
                server.post(CHAT, body(user="x" * 3_100_000), headers=head),
                413,
                "body_too_large",
            ),
        ]
        with server.client() as client:
            broken = client.post(
                CHAT, content=b"{", headers={**head, "Content-Type": "application/json"}
            )
        answers.append((broken, 400, "validation_error"))
    for response, status, code in answers:
        assert response.status_code == status, response.text
        assert set(response.json()) == {"error"}
        assert response.json()["error"]["code"] == code
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_no_prompt_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    """S2.24, S1.34."""
    secret = "zebra-crossing-4711"
    with serving(ScriptedEngine([secret]), log_level="debug") as server:
        server.post(CHAT, body(messages=[{"role": "user", "content": secret}]))
        server.post(CHAT, body(messages=[{"role": "user", "content": secret}], n=2))
    printed = capfd.readouterr()
    assert secret not in printed.out + printed.err


def test_half_a_character_in_the_body_is_replaced() -> None:
    """C16: JSON can spell a lone surrogate, which no tokenizer and no socket takes."""
    engine = ScriptedEngine(WORDS)
    raw = (
        b'{"session_id":"mine","messages":[{"role":"user","content":"a\\ud83db"}],'
        b'"tools":[{"type":"function","function":{"name":"f","description":"\\ud83d"}}]}'
    )
    with serving(engine) as server, server.client() as client:
        response = client.post(CHAT, content=raw, headers={"Content-Type": "application/json"})
        broken = client.post(CHAT, content=b"{", headers={"Content-Type": "application/json"})
    assert response.status_code == 200
    assert engine.requests[0].messages[0].content == "a?b"
    assert broken.json()["error"]["param"] is None
