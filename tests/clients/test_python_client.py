"""The official Python client, unchanged, against a real server and a real (tiny) model."""

from __future__ import annotations

import json

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.clients.conftest import KEY
from tests.servers import Running, until

ASK = [{"role": "user", "content": "Say hello"}]
MODEL = "anything"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    name: str
    people: int
    coastal: bool


def client(server: Running, **options: object) -> OpenAI:
    values = {"api_key": KEY, "max_retries": 0, "timeout": 30.0, **options}
    return OpenAI(base_url=f"{server.base}/v1", **values)  # type: ignore[arg-type]


def test_list_and_retrieve(server: Running) -> None:
    """Contract 2."""
    listed = client(server).models.list().data
    assert listed
    assert client(server).models.retrieve(listed[0].id).id == listed[0].id


def test_plain_and_streamed_say_the_same(server: Running) -> None:
    """S1.19, S1.20, C8: and `seed` makes it reproducible."""
    ask = {"model": MODEL, "messages": ASK, "seed": 7, "max_tokens": 24}
    plain = client(server).chat.completions.create(**ask)  # type: ignore[call-overload]
    with client(server).chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text == plain.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == plain.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert plain.usage is not None
    assert plain.usage.prompt_tokens > 0
    assert 0 < plain.usage.completion_tokens <= 24


def test_stop_ends_before_the_string(server: Running) -> None:
    """Contract 2: across token borders, and never part of the answer."""
    ask = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 40}
    whole = client(server).chat.completions.create(**ask).choices[0]  # type: ignore[call-overload]
    text = whole.message.content or ""
    stop = text[7:10]
    cut = client(server).chat.completions.create(**ask, stop=[stop]).choices[0]  # type: ignore[call-overload]
    assert cut.message.content == text[: text.index(stop)]
    assert cut.finish_reason == "stop"


@pytest.mark.parametrize("budget", [40, 64, 200])
def test_json_schema_is_always_valid(server: Running, budget: int) -> None:
    """Contract 2: also when the budget runs out."""
    answer = client(server).chat.completions.parse(
        model=MODEL, messages=ASK, response_format=City, max_tokens=budget, seed=budget
    )
    assert isinstance(answer.choices[0].message.parsed, City)
    free = client(server).chat.completions.create(
        model=MODEL,
        messages=ASK,
        response_format={"type": "json_object"},
        max_tokens=budget,
    )
    assert isinstance(json.loads(free.choices[0].message.content or ""), dict)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_tools_are_called_with_valid_arguments(server: Running, choice: object) -> None:
    """Contract 2: required and named; plain and streamed."""
    ask = {"model": MODEL, "messages": ASK, "tools": [TOOL], "tool_choice": choice}
    plain = client(server).chat.completions.create(**ask, max_tokens=80).choices[0]  # type: ignore[call-overload]
    assert plain.finish_reason == "tool_calls"
    call = plain.message.tool_calls[0]
    assert call.function.name == "weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    with client(server).chat.completions.stream(**ask, max_tokens=80) as stream:
        final = stream.get_final_completion().choices[0].message
    assert final.tool_calls[0].function.name == "weather"
    assert set(json.loads(final.tool_calls[0].function.arguments)) == {"city", "days"}
    turns = [*ASK, plain.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    after = client(server).chat.completions.create(
        model=MODEL, messages=turns, tools=[TOOL], tool_choice="none", max_tokens=8
    )
    assert after.choices[0].message.tool_calls is None


def test_logprobs(server: Running) -> None:
    """Contract 2: the chosen token is never likelier than the likeliest."""
    answer = client(server).chat.completions.create(
        model=MODEL, messages=ASK, logprobs=True, top_logprobs=3, max_tokens=12, temperature=0
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content
    for token in found.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert token.logprob <= 0
    text = b"".join(bytes(token.bytes or []) for token in found.content).decode(errors="replace")
    assert text == answer.choices[0].message.content


def test_errors_have_the_clients_own_classes(server: Running) -> None:
    """Contract 2, C16."""
    completions = client(server).chat.completions
    with pytest.raises(openai.BadRequestError) as bad:
        completions.create(model=MODEL, messages=ASK, n=2)
    assert bad.value.param == "n"
    with pytest.raises(openai.BadRequestError) as long:
        completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 20_000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as missing:
        client(server).models.retrieve("gpt-9")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client(server, api_key="wrong").models.list()


def test_a_failure_in_the_middle_raises(failing: Running) -> None:
    """Contract 2: the official client raises on it."""
    seen: list[str | None] = []

    def read() -> None:
        with client(failing).chat.completions.create(
            model=MODEL, messages=ASK, stream=True
        ) as stream:
            seen.extend(chunk.choices[0].delta.content for chunk in stream)

    with pytest.raises(openai.APIError, match="the model broke"):
        read()
    assert seen == ["", "Hello "]


def test_closing_the_stream_cancels(server: Running) -> None:
    """S1.30, S2.12: after CANCEL_AFTER_DISCONNECT_SECONDS, which is 0.1 here."""
    raw = client(server).chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, stream=True, max_tokens=3000, temperature=0,
        stream_options={"include_usage": True}, extra_body={"session_id": "closed-py"},
    )  # fmt: skip
    assert raw.headers["x-session-id"] == "closed-py"
    stream = raw.parse()
    for _ in range(5):
        next(stream)
    stream.close()
    until(lambda: server.get("/health").json()["sessions"] == 0)
    ended = server.get(
        "/api/sessions/closed-py/events", headers={"Authorization": f"Bearer {KEY}"}
    ).text
    usage = json.loads(ended.split("data: ")[-2])["usage"]
    assert usage["completion_tokens"] < 3000
    assert ended.endswith("data: [DONE]\n\n")


async def test_the_asynchronous_client_streams(server: Running) -> None:
    """Contract 2."""
    async with openai.AsyncOpenAI(base_url=f"{server.base}/v1", api_key=KEY) as asynchronous:
        stream = await asynchronous.chat.completions.create(
            model=MODEL, messages=ASK, stream=True, max_tokens=8
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
