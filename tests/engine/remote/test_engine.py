"""The remote engine against a real server on loopback that does what a script says."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing
from typing import Any

import httpx
import pytest
import structlog

from app.core.errors import AppError, EngineUnavailable
from app.demo import free_port
from app.engine.base import (
    Finish,
    GenerateRequest,
    Item,
    Message,
    Reasoning,
    Status,
    Text,
    Tool,
    ToolCall,
    ToolCallPart,
)
from app.engine.remote import chunks as upstream_chunks
from app.engine.remote import engine as remote
from app.engine.remote import replicas
from app.engine.remote.engine import RemoteEngine
from bench.upstream import Drop, Raw, Refusal, Script, running_upstream

WAIT_S = 20.0
PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 8
DEAD = "http://127.0.0.1:9/v1"

Start = Callable[..., RemoteEngine]


class Stage:
    """Servers and engines of one test; `scripts` in the order of the servers."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.engines: list[RemoteEngine] = []
        self.stack = ExitStack()

    def serve(self, *scripts: Script) -> list[str]:
        running = [self.stack.enter_context(running_upstream(script)) for script in scripts]
        self.scripts += [script for _, script in running]
        return [base for base, _ in running]

    def engine(self, *servers: Script | str, **options: Any) -> RemoteEngine:
        urls = [s if isinstance(s, str) else self.serve(s)[0] for s in servers]
        made = RemoteEngine(urls, **options)
        self.engines.append(made)
        return made


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    for engine in made.engines:
        await engine.aclose()
    await asyncio.to_thread(made.stack.close)


def asked(**values: Any) -> GenerateRequest:
    return GenerateRequest(**{"messages": (Message("user", "Hi"),), "max_tokens": 50, **values})


async def run(engine: RemoteEngine, request: GenerateRequest | None = None) -> list[Item]:
    async with asyncio.timeout(WAIT_S), aclosing(engine.generate(request or asked())) as made:
        return [item async for item in made]


async def failure(engine: RemoteEngine, request: GenerateRequest | None = None) -> AppError:
    with pytest.raises(AppError) as caught:
        await run(engine, request)
    return caught.value


def text(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, Text))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  (the condition belongs to another thread)
            await asyncio.sleep(0.005)


async def test_an_answer_is_statuses_then_text_then_one_finish(stage: Stage) -> None:
    """Architecture: the engine protocol; C8: real counts."""
    engine = stage.engine(Script(["Hel", "lo"]))
    assert await run(engine) == [
        Status("reading"),
        Status("writing"),
        Text("Hel"),
        Text("lo"),
        Finish("stop", 1, 2),
    ]
    assert (engine.name, engine.model, engine.facts()) == ("remote", "fake-model", {})


async def test_without_usage_the_pieces_are_counted(stage: Stage) -> None:
    """C8."""
    made = await run(stage.engine(Script(["a", "b", "c"], usage=False)))
    assert made[-1] == Finish("stop", 0, 3)


@pytest.mark.parametrize(
    ("told", "reason"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("eos_token", "stop")],
)
async def test_the_reason_to_end_is_the_servers(stage: Stage, told: str, reason: str) -> None:
    """Contract 2; pitfall: finish_reason was always stop."""
    made = await run(stage.engine(Script(["a"], finish_reason=told)))
    assert isinstance(made[-1], Finish)
    assert made[-1].reason == reason


async def test_the_body_carries_every_field(stage: Stage) -> None:
    """Contract 2."""
    tool = Tool("look", "Looks.", {"type": "object", "properties": {}})
    request = asked(
        messages=(
            Message("system", "Be brief."),
            Message("user", "What is it?", parts=("What is ", 0, "it?")),
            Message("assistant", "", tool_calls=(ToolCall("c1", "look", '{"at":1}'),)),
            Message("tool", "a cat", tool_call_id="c1", name="look"),
        ),
        temperature=0.7,
        top_p=0.9,
        seed=0,
        stop=("END",),
        images=(PNG,),
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        top_logprobs=2,
        tools=(tool,),
        tool_choice="required",
        parallel_tool_calls=False,
        thinking=False,
    )
    called = {"tool_calls": [{"index": 0, "id": "c2", "function": {"name": "look"}}]}
    engine = stage.engine(Script([called]), model="mine", api_key="sk-local-secret")
    await run(engine, request)
    image = {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}
    call = {"name": "look", "arguments": '{"at":1}'}
    assert stage.scripts[0].bodies == [
        {
            "model": "mine",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is "},
                        {"type": "image_url", "image_url": image},
                        {"type": "text", "text": "it?"},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "type": "function", "function": call}],
                },
                {"role": "tool", "content": "a cat", "tool_call_id": "c1"},
            ],
            "max_tokens": 50,
            "temperature": 0.7,
            "top_p": 0.9,
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": 0,
            "stop": ["END"],
            "presence_penalty": 0.5,
            "frequency_penalty": -0.5,
            "logprobs": True,
            "top_logprobs": 2,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "look",
                        "parameters": {"type": "object", "properties": {}},
                        "description": "Looks.",
                    },
                }
            ],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
    assert stage.scripts[0].headers[0]["authorization"] == "Bearer sk-local-secret"


async def test_fields_at_their_default_are_not_sent(stage: Stage) -> None:
    """A strict server refuses what it does not know."""
    await run(stage.engine(Script(["x"])))
    assert set(stage.scripts[0].bodies[0]) == {
        "model", "messages", "max_tokens", "temperature", "top_p", "stream", "stream_options",
    }  # fmt: skip


async def test_a_long_article_is_cut_at_a_sentence(stage: Stage) -> None:
    """S0.18: 10,000 characters, at a sentence's end; other messages stay whole."""
    long = "A sentence of an article that is long. " * 400
    messages = (Message("system", long), Message("user", long, may_be_cut=True))
    await run(stage.engine(Script(["x"])), asked(messages=messages))
    system, user = (turn["content"] for turn in stage.scripts[0].bodies[0]["messages"])
    assert system == long
    assert 9_900 < len(user) <= 10_000
    assert user.rstrip().endswith("long.")


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF0000WEBPVP8 ", "webp"),
    ],
)
async def test_an_image_is_sent_as_what_it_is(stage: Stage, start: bytes, kind: str) -> None:
    """S2.7, pitfall: the image was dropped without a word."""
    engine = stage.engine(Script(["x"]))
    await run(engine, asked(messages=(Message("user", "", parts=(0,)),), images=(start,)))
    (part,) = stage.scripts[0].bodies[0]["messages"][0]["content"]
    assert part["image_url"]["url"].startswith(f"data:image/{kind};base64,")


@pytest.mark.parametrize(
    ("parts", "images"), [((0,), (b"BM..",)), ((), (PNG,)), ((1,), (PNG,)), ((0,), ())]
)
async def test_an_image_that_cannot_be_sent_is_refused(
    stage: Stage, parts: tuple[int, ...], images: tuple[bytes, ...]
) -> None:
    """Pitfall: the image was dropped without a word."""
    engine = stage.engine(Script(["x"]))
    request = asked(messages=(Message("user", "", parts=parts),), images=images)
    assert (await failure(engine, request)).code == "unsupported"
    with pytest.raises(AppError):
        await engine.fit(request)
    assert stage.scripts[0].bodies == []


async def test_half_a_character_in_a_prompt_is_sent_as_a_question_mark(stage: Stage) -> None:
    await run(stage.engine(Script(["x"])), asked(messages=(Message("user", "a\ud83db"),)))
    assert stage.scripts[0].bodies[0]["messages"][0]["content"] == "a?b"


async def test_a_character_in_two_chunks_comes_out_whole(stage: Stage) -> None:
    made = await run(stage.engine(Script(["a\ud83d", "\ude00b", "\ud83d"])))
    assert text(made) == "a\U0001f600b\ufffd"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_no_part_of_the_answer(stage: Stage, field: str) -> None:
    """Pitfall: a thinking model's text broke the JSON."""
    engine = stage.engine(Script([{field: "Hmm"}, "Yes"]))
    made = await run(engine)
    assert made[1:-1] == [Reasoning("Hmm"), Status("writing"), Text("Yes")]


async def test_thoughts_within_the_content_are_told_apart(stage: Stage) -> None:
    """Pitfall: a thinking model's text broke the JSON."""
    made = await run(stage.engine(Script(["<thi", "nk>Hmm", "</think>\n\n", "Yes"])))
    thoughts = "".join(item.text for item in made if isinstance(item, Reasoning))
    assert (thoughts, text(made)) == ("Hmm", "Yes")


async def test_calls_come_piece_by_piece(stage: Stage) -> None:
    """Contract 2: tools."""
    steps = [
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"at"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        # Servers of other habits: no index and no id, and arguments that are no text.
        {"tool_calls": [{"function": {"name": "look", "arguments": {"at": 2}}}]},
    ]
    made = await run(stage.engine(Script(steps)), asked(tools=(Tool("look"),)))
    calls = [item for item in made if isinstance(item, ToolCallPart)]
    assert calls[:3] == [
        ToolCallPart(0, "", id="c1", name="look"),
        ToolCallPart(0, '{"at"'),
        ToolCallPart(0, ":1}"),
    ]
    assert (calls[3].index, calls[3].name, calls[3].arguments) == (1, "look", '{"at":2}')
    assert calls[3].id
    assert isinstance(made[-1], Finish)
    assert made[-1].reason == "tool_calls"


async def test_a_call_written_as_text_is_a_call(stage: Stage) -> None:
    """Contract 2: tools, behind a server that does not parse them."""
    steps = ['<tool_call>{"name":"look",', '"arguments":{"at":1}}</tool_call>']
    made = await run(stage.engine(Script(steps)), asked(tools=(Tool("look"),)))
    calls = [item for item in made if isinstance(item, ToolCallPart)]
    assert calls[0].name == "look"
    assert json.loads("".join(call.arguments for call in calls)) == {"at": 1}
    assert isinstance(made[-1], Finish)
    assert made[-1].reason == "tool_calls"


async def test_logprobs_come_with_their_text(stage: Stage) -> None:
    """Contract 2: logprobs."""
    half = {"token": "�", "bytes": [0xC3], "logprob": -0.5, "top_logprobs": []}
    other_half = half | {"bytes": [169]}
    token = {
        "token": "Hi",
        "bytes": None,
        "logprob": -0.25,
        "top_logprobs": [{"token": "Hi", "bytes": [72, 105], "logprob": -0.25}],
    }
    steps = [
        {"choices": [{"delta": {"content": "Hi"}, "logprobs": {"content": [token]}}]},
        {"choices": [{"delta": {"content": ""}, "logprobs": {"content": [half]}}]},
        {"choices": [{"delta": {"content": "é"}, "logprobs": {"content": [other_half]}}]},
    ]
    made = await run(stage.engine(Script(steps)), asked(top_logprobs=1))
    texts = [item for item in made if isinstance(item, Text)]
    assert "".join(item.text for item in texts) == "Hié"
    found = [lp for item in texts for lp in item.logprobs]
    assert [(lp.data, lp.logprob) for lp in found] == [
        (b"Hi", -0.25), (b"\xc3", -0.5), (b"\xa9", -0.5),
    ]  # fmt: skip
    assert found[0].top == (("Hi", b"Hi", -0.25),)


async def test_closing_the_stream_cuts_the_servers_work_short(stage: Stage) -> None:
    """Rule 5: closing the generator cancels."""
    script = Script(["a", threading.Event(), "b"])
    engine = stage.engine(script)
    async with aclosing(engine.generate(asked())) as made:
        async for item in made:
            if isinstance(item, Text):
                break
    assert await asyncio.to_thread(script.left_early.wait, WAIT_S)
    assert script.running == 0


async def test_the_connection_is_closed_when_closing_returns(stage: Stage) -> None:
    """Rule 5: not whenever the garbage collector comes by."""

    class Body(httpx.AsyncByteStream):
        closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
            await asyncio.sleep(WAIT_S)

        async def aclose(self) -> None:
            self.closed = True

    body = Body()
    kind = {"content-type": "text/event-stream"}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, headers=kind, stream=body))
    engine = stage.engine(DEAD, model="m", transport=transport)
    async with aclosing(engine.generate(asked())) as made:
        async for item in made:
            if isinstance(item, Text):
                break
    assert body.closed


async def test_cancelling_while_the_server_reads_reaches_it(stage: Stage) -> None:
    """Rule 5: also before the first piece."""
    script = Script([threading.Event()])
    engine = stage.engine(script)
    task = asyncio.ensure_future(run(engine))
    await until(lambda: script.running == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(script.left_early.wait, WAIT_S)


BROKEN: dict[str, Script] = {
    "ends without a reason": Script(["a"], finish_reason=None),
    "ends without anything": Script(["a"], finish_reason=None, done=False, usage=False),
    "is cut": Script(["a", Drop()]),
    "holds an error": Script(["a", {"error": {"message": "engine died", "code": 500}}, "b"]),
    "is no JSON": Script(["a", Raw(b"data: {oops\n\n")]),
    "is filtered": Script(["a"], finish_reason="content_filter"),
    "is aborted": Script(["a"], finish_reason="abort"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_answer_is_a_failure_and_never_a_stop(stage: Stage, how: str) -> None:
    """Pitfall: engine errors became `finish_reason: stop`. Not retried after the first text."""
    broken = BROKEN[how]
    spare = Script(["never"])
    engine = stage.engine(broken, spare)
    seen: list[Item] = []

    async def read() -> None:
        async with aclosing(engine.generate(asked())) as made:
            async for item in made:
                seen.append(item)

    with pytest.raises(AppError) as caught:
        await asyncio.wait_for(read(), WAIT_S)
    assert (caught.value.code, caught.value.status) == ("upstream_failed", 500)
    assert text(seen) == "a"
    assert not any(isinstance(item, Finish) for item in seen)
    assert spare.bodies == []


async def test_silence_in_the_middle_is_a_failure(stage: Stage) -> None:
    """Pitfall: a hang."""
    engine = stage.engine(Script(["a", threading.Event()]), read_timeout_s=0.2)
    assert (await failure(engine)).code == "upstream_failed"


async def test_one_endless_line_does_not_fill_the_memory(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract 6 in spirit: what another server sends is bounded."""
    monkeypatch.setattr(upstream_chunks, "MAX_EVENT_CHARS", 10_000)
    script = Script(["a", *[Raw(b"x" * 5_000)] * 3, threading.Event()])
    assert (await failure(stage.engine(script))).code == "upstream_failed"
    fine = Script(["y" * 9_000] * 10)
    assert len(text(await run(stage.engine(fine)))) == 90_000


async def test_a_missing_count_does_not_spoil_a_whole_answer(stage: Stage) -> None:
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    made = await run(stage.engine(Script(["a", end, Drop()])))
    assert made[-1] == Finish("stop", 0, 1)


CONTEXT = (
    {"error": {"code": "context_length_exceeded", "message": ""}},
    {"object": "error", "message": "This model's maximum context length is 9 tokens."},
    {"error": {"type": "exceed_context_size_error", "message": "too big"}},
)
DETAIL = {"detail": [{"loc": ["body"], "msg": "bad", "input": "x"}]}
REFUSALS: list[tuple[Refusal, str, int]] = [
    (Refusal(401), "upstream_unauthorized", 503),
    (Refusal(403), "upstream_unauthorized", 503),
    (Refusal(404, {"error": {"message": "no such model"}}), "upstream_model_missing", 503),
    (Refusal(302, "", {"location": "http://127.0.0.1:9/"}), "upstream_unavailable", 503),
    (Refusal(500), "upstream_unavailable", 503),
    (Refusal(503), "upstream_unavailable", 503),
    (Refusal(429), "overloaded", 429),
    (Refusal(400), "upstream_rejected", 400),
    (Refusal(422, DETAIL), "upstream_rejected", 400),
    *[(Refusal(400, body), "context_length_exceeded", 400) for body in CONTEXT],
]


@pytest.mark.parametrize(("refusal", "code", "status"), REFUSALS)
async def test_each_refusal_has_its_code(
    stage: Stage, refusal: Refusal, code: str, status: int
) -> None:
    """S1.35, C19: one code for each cause, before the first item."""
    engine = stage.engine(Script(always=refusal), model="m")
    error = await failure(engine)
    assert (error.code, error.status) == (code, status)
    assert error.retry_after_s if status in (429, 503) else True


async def test_messages_name_the_setting_to_change(stage: Stage) -> None:
    """Errors: the message names the fix."""
    wrong_key = await failure(stage.engine(Script(api_key="right"), api_key="wrong"))
    assert "ENGINE_API_KEY" in wrong_key.message
    no_model = await failure(stage.engine(Script(models=())))
    assert (no_model.code, "ENGINE_MODEL" in no_model.message) == ("upstream_model_missing", True)
    nobody = await failure(stage.engine(DEAD))
    assert (nobody.code, "ENGINE_URL" in nobody.message) == ("upstream_unavailable", True)
    assert "127.0.0.1" not in nobody.message


async def test_a_servers_own_words_are_cut_and_cleaned(stage: Stage) -> None:
    """Errors: never a path, a traceback or a secret."""
    message = "bad\nseed at /usr/lib/vllm/x.py http://10.0.0.1/v1 sk-12345678 " + "z" * 900
    message += " Traceback (most recent call last)"
    engine = stage.engine(Script(always=Refusal(400, {"error": {"message": message}})))
    told = (await failure(engine)).message
    assert "bad seed at … … …" in told
    assert len(told) < 350
    details = [{"loc": ["body", "messages"], "msg": "too short", "input": "the private prompt"}]
    engine = stage.engine(Script(always=Refusal(422, {"detail": details})))
    told = (await failure(engine)).message
    assert "body.messages: too short" in told
    assert "private" not in told
    message = "1 validation error: {'msg': 'too short', 'input': 'the private prompt'}"
    engine = stage.engine(Script(always=Refusal(400, {"error": {"message": message}})))
    told = (await failure(engine)).message
    assert "too short" in told
    assert "private" not in told


@pytest.mark.parametrize("value", ["7", "Thu, 01 Jan 2099 00:00:00 GMT", "soon", "-3"])
async def test_retry_after_is_passed_on(stage: Stage, value: str) -> None:
    """C19: an answer that says when to come back."""
    refusal = Refusal(429, None, {"retry-after": value})
    error = await failure(stage.engine(Script(always=refusal)))
    expected = {"7": 7, "Thu, 01 Jan 2099 00:00:00 GMT": 3600, "soon": 5, "-3": 1}
    assert error.retry_after_s == expected[value]


@pytest.mark.parametrize("first", [Refusal(500), Refusal(503), Refusal(429), None])
async def test_another_replica_answers_when_the_first_fails(
    stage: Stage, first: Refusal | None
) -> None:
    """C17: several servers behind one engine; nothing is said twice."""
    bad = Script(always=first) if first else Script([Drop()])
    engine = stage.engine(bad, Script(["good"]))
    made = await run(engine)
    assert made == [Status("reading"), Status("writing"), Text("good"), Finish("stop", 1, 1)]
    assert len(bad.bodies) == 1


async def test_a_replica_that_is_gone_or_silent_is_not_asked_again(stage: Stage) -> None:
    """C17: marked down at once."""
    silent = Script([threading.Event()])
    engine = stage.engine(DEAD, silent, Script(["good"]), model="m", read_timeout_s=0.2)
    assert [text(await run(engine)) for _ in range(4)] == ["good"] * 4
    assert len(silent.bodies) == 1


async def test_one_busy_server_says_more_than_a_dead_one(stage: Stage) -> None:
    engine = stage.engine(DEAD, Script(always=Refusal(429)), model="m")
    assert (await failure(engine)).code == "overloaded"


@pytest.mark.parametrize("first", [Refusal(500), Refusal(503)])
async def test_an_only_server_is_asked_once_more(stage: Stage, first: Refusal) -> None:
    script = Script(["good"], refusals=[first])
    assert text(await run(stage.engine(script))) == "good"
    script = Script(["good"], refusals=[first, first])
    assert (await failure(stage.engine(script))).code == "upstream_unavailable"
    assert len(script.bodies) == 2


async def test_a_silent_only_server_gets_no_second_load(stage: Stage) -> None:
    script = Script([threading.Event()])
    engine = stage.engine(script, read_timeout_s=0.2)
    assert (await failure(engine)).code == "upstream_unavailable"
    assert len(script.bodies) == 1


async def test_a_refusal_is_not_carried_to_other_replicas(stage: Stage) -> None:
    other = Script(["good"])
    engine = stage.engine(Script(always=Refusal(400)), other)
    assert (await failure(engine)).code == "upstream_rejected"
    assert other.bodies == []


async def test_requests_go_where_the_least_is_running(stage: Stage) -> None:
    """C17: least outstanding, round robin between equals."""
    gate = threading.Event()
    scripts = [Script(["a", gate]) for _ in range(3)]
    engine = stage.engine(*scripts)
    tasks = [asyncio.ensure_future(run(engine)) for _ in range(6)]
    await until(lambda: [script.running for script in scripts] == [2, 2, 2])
    gate.set()
    await asyncio.wait_for(asyncio.gather(*tasks), WAIT_S)
    for _ in range(6):
        await run(engine)
    assert [len(script.bodies) for script in scripts] == [4, 4, 4]


async def test_a_server_that_comes_back_is_used_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C17: the health check brings it back; logs tell both, without credentials."""
    monkeypatch.setattr(replicas, "PROBE_INTERVAL_S", 0.02)
    script = Script(["good"], models_refusal=Refusal(503))
    base = stage.serve(script)[0].replace("http://", "http://user:secret@")
    engine = stage.engine(base)
    with structlog.testing.capture_logs() as logs:
        watch = asyncio.ensure_future(engine.maintain())
        try:
            await until(lambda: any(line["event"] == "replica_down" for line in logs))
            with pytest.raises(EngineUnavailable):
                await engine.fit(asked())
            script.models_refusal = None
            await until(lambda: any(line["event"] == "replica_up" for line in logs))
            await engine.fit(asked())
            assert text(await run(engine)) == "good"
        finally:
            watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch
    assert len(logs) == 2
    assert "secret" not in repr(logs)


async def test_without_a_watch_a_server_is_tried_again_after_a_while(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "DOWN_S", 0.0)
    engine = stage.engine(Script(["good"], refusals=[Refusal(503), Refusal(503)]), model="m")
    await failure(engine)
    assert text(await run(engine)) == "good"


async def test_asking_whether_it_can_serve_asks_no_more_than_needed(stage: Stage) -> None:
    """Pitfall: health probes cost; one probe serves all who ask within two seconds."""
    script = Script()
    engine = stage.engine(DEAD, script)
    found = await asyncio.gather(*(engine.unavailable() for _ in range(5)))
    assert found == [None] * 5
    assert script.probes == 1
    assert engine.model == "fake-model"


async def test_an_answering_replica_need_not_wait_for_a_hanging_one(stage: Stage) -> None:
    engine = stage.engine(Script(models_delay_s=30.0), Script())
    started_s = time.monotonic()
    assert await engine.unavailable() is None
    assert time.monotonic() - started_s < replicas.PROBE_TIMEOUT_S / 2


async def test_it_is_unavailable_when_nobody_answers(stage: Stage) -> None:
    """C19."""
    engine = stage.engine(DEAD, f"http://127.0.0.1:{free_port()}/v1")
    problem = await engine.unavailable()
    assert problem is not None
    assert (problem.code, problem.retry_after_s) == ("upstream_unavailable", 5)
    with pytest.raises(EngineUnavailable):
        await engine.fit(asked())
    refused = await stage.engine(Script(api_key="k")).unavailable()
    assert refused is not None
    assert refused.code == "upstream_unauthorized"


async def test_a_hanging_health_check_ends(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "PROBE_TIMEOUT_S", 0.1)
    problem = await stage.engine(Script(models_delay_s=30.0)).unavailable()
    assert problem is not None
    assert problem.code == "upstream_unavailable"


async def test_a_server_without_a_list_of_models_serves_a_named_one(stage: Stage) -> None:
    engine = stage.engine(Script(["good"], models_refusal=Refusal(404)), model="named")
    assert engine.model == "named"
    assert await engine.unavailable() is None
    assert text(await run(engine)) == "good"
    assert stage.scripts[0].bodies[0]["model"] == "named"


async def test_fitting_counts_nothing_and_asks_nobody(stage: Stage) -> None:
    engine = stage.engine(Script())
    request = asked()
    fitted = await engine.fit(request, may_drop=True)
    assert (fitted.request, fitted.dropped, fitted.prompt_tokens) == (request, 0, None)
    assert stage.scripts[0].probes == 0
    await engine.prepare()


@pytest.mark.parametrize("urls", [[], ["ftp://host/v1"], ["localhost:8000"], ["http:///v1"]])
def test_an_address_that_is_none_is_refused_at_start(urls: list[str]) -> None:
    with pytest.raises(ValueError, match="model server"):
        RemoteEngine(urls)


async def test_any_form_of_base_address_leads_to_the_endpoint(stage: Stage) -> None:
    """With and without a trailing slash, with a query; the same one twice is one replica."""
    base = stage.serve(Script(["x"]))[0]
    asked_for: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked_for.append(str(request.url))
        return httpx.Response(503)

    for url in (base, base + "/", base + "?api-version=1"):
        await failure(stage.engine(url, url, model="m", transport=httpx.MockTransport(answer)))
    plain = f"{base}/chat/completions"
    assert asked_for == [plain, plain, plain, plain, *[f"{plain}?api-version=1"] * 2]


async def test_proxies_of_the_environment_are_not_used(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", DEAD)
    monkeypatch.setenv("ALL_PROXY", DEAD)
    assert text(await run(stage.engine(Script(["good"])))) == "good"


async def test_a_body_that_is_no_stream_is_told(stage: Stage) -> None:
    engine = stage.engine(Script(content_type="text/html"))
    assert (await failure(engine)).code == "upstream_unavailable"


async def test_connections_are_used_again(stage: Stage) -> None:
    """A connection for each request would cost a round trip or two each time."""
    opened: list[object] = []

    class Counting(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            opened.append(response.extensions["network_stream"])
            return response

    engine = stage.engine(Script(["x"]), model="m", transport=Counting())
    for _ in range(3):
        await run(engine)
    assert len({id(getattr(stream, "_stream", stream)) for stream in opened}) == 1


def test_an_idle_connection_is_dropped_before_the_server_closes_it() -> None:
    """A request sent into a connection that is being closed fails (uvicorn closes after 5 s)."""
    assert remote.KEEPALIVE_S < 5


async def test_what_health_tells_of_servers_that_are_down() -> None:
    """C9: known without asking; nothing is claimed to be ready that is known to be down."""
    engine = RemoteEngine([f"http://127.0.0.1:{free_port()}/v1"])
    try:
        assert await engine.unavailable() is not None
        assert engine.info()["loaded"] is False
        assert "ENGINE_URL" in engine.info()["error"]
    finally:
        await engine.aclose()
