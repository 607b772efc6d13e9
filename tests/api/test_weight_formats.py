"""The contracts over HTTP with a tiny real model in each weight format: none of them changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from app.schemas.summary_v4 import StructuredSummary
from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import packable_checkpoint
from tests.engines import ARTICLE
from tests.servers import NDJSON, PROSE, STREAM, Running, frames, indexes, serving, text_of, until
from tests.weight_formats import NAMES, WeightFormat

__all__ = ["packable_checkpoint"]

CHAT = "/v1/chat/completions"
USERS = 4
BODY = {"text": ARTICLE, "use_cache": False, "max_tokens": 128}
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 40}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}
TOOL = {"type": "function", "function": {"name": "place", "parameters": SCHEMA}}


@dataclass(frozen=True, slots=True)
class Held:
    """A server, and the format in which it holds its model."""

    server: Running
    weights: WeightFormat


@pytest.fixture(scope="module", params=NAMES)
def held(request: pytest.FixtureRequest, packable_checkpoint: Path) -> Iterator[Held]:
    weights = WeightFormat(request.param)
    values = weights.settings(packable_checkpoint, max_concurrent_generations=USERS)
    threads = torch.get_num_threads()
    # Threads that share such small matrices wait for each other most of the time.
    torch.set_num_threads(1)
    ModelServiceV4.unload()
    with serving(summary_engine="local", **values) as server:
        yield Held(server, weights)
    ModelServiceV4.unload()
    torch.set_num_threads(threads)


def asked(held: Held, **fields: Any) -> dict[str, Any]:
    response = held.server.post(CHAT, {**ASK, **fields})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def said(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def streamed(held: Held, **fields: Any) -> list[dict[str, Any]]:
    raw = held.server.post(CHAT, {**ASK, "stream": True, **fields}).text
    data = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(one) for one in data[:-1]]


def test_a_summary_is_whole_and_says_how_its_weights_are_held(held: Held) -> None:
    """Contract 1, C12: a prompt of many rows, an object inside its budget, one terminal event."""
    article = " ".join(f"{number}. {ARTICLE}" for number in range(12))
    found = frames(held.server.post(STREAM, {**BODY, "text": article}).text)
    about = found[0].json["data"]
    assert (about["engine"], about["weights"]) == ("local", held.weights.held)
    assert about["weights_reason"] == f"{held.weights.held} is set"
    assert [one.event for one in found if one.event in ("result", "error")] == ["result"]
    assert indexes(found) == list(range(len(found)))
    summary = StructuredSummary.model_validate_json(text_of(found))
    assert found[-1].json["summary"] == summary.model_dump(mode="json")
    usage = found[-1].json["usage"]
    # So many rows take other kernels than those of a few words.
    assert usage["prompt_tokens"] > 600
    assert 0 < usage["completion_tokens"] <= 128
    health = held.server.get("/health").json()
    assert (health["modelReady"], health["model"]["weights"]) == (True, held.weights.held)


@pytest.mark.parametrize("path", [NDJSON, PROSE])
def test_the_other_wire_forms_end_once(held: Held, path: str) -> None:
    """Contract 1: A3, A4, A7, A8."""
    found = [one.json for one in frames(held.server.post(path, BODY).text)]
    assert [one["done"] for one in found if "done" in one].count(True) == 1
    assert found[-1]["done"] is True
    assert "error" not in found[-1]
    if path == NDJSON:
        StructuredSummary.model_validate(found[-1]["state"])


def test_a_stream_that_was_cut_resumes_where_it_was(held: Held) -> None:
    """Contract 3: no gap, no duplicate, one generation, byte-equal to the whole."""
    body = {**BODY, "text": f"Again. {ARTICLE}", "session_id": f"cut-{held.weights.name}"}
    seen = b""
    with held.server.client() as client, client.stream("POST", STREAM, json=body) as response:
        for chunk in response.iter_raw():
            seen += chunk
            if b'"writing"' in seen:
                break
    first = frames(seen[: seen.rindex(b"\n\n") + 2].decode())
    rest = held.server.post(STREAM, body, headers={"Last-Event-ID": first[-1].id or ""})
    whole = frames(held.server.get(f"/api/sessions/{body['session_id']}/events").text)
    assert first + frames(rest.text) == whole
    assert indexes(whole) == list(range(len(whole)))
    assert [one.event for one in whole if one.event in ("result", "error")] == ["result"]


def test_a_cancelled_stream_ends_at_once_and_the_next_one_runs(held: Held) -> None:
    """S1.31, contract 3: within a token, with one terminal event of code `cancelled`."""
    session = f"stop-{held.weights.name}"
    body = {
        **ASK,
        "max_tokens": 1500,
        "stream": True,
        "session_id": session,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "long",
                "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 600},
            },
        },
        "stream_options": {"include_usage": True},
    }
    with held.server.client() as client, client.stream("POST", CHAT, json=body) as response:
        lines = response.iter_lines()
        assert any('"content":"' in line for line in lines)
        assert held.server.post(f"/v1/cancel/{session}").json()["ok"] is True
        rest = [line for line in lines if line.startswith("data: ")]
    assert rest[-1] == "data: [DONE]"
    usage = json.loads(rest[-2].removeprefix("data: "))["usage"]
    assert usage["completion_tokens"] < 600
    until(lambda: held.server.get("/health").json()["sessions"] == 0)
    assert frames(held.server.post(STREAM, BODY).text)[-1].event == "result"


def test_plain_and_streamed_chats_say_the_same(held: Held) -> None:
    """Contract 2, C8: text, reason and counts."""
    plain = asked(held, temperature=0)
    sent = streamed(held, temperature=0, stream_options={"include_usage": True})
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in sent if c["choices"])
    assert text == said(plain)
    assert sent[-2]["choices"][0]["finish_reason"] == plain["choices"][0]["finish_reason"]
    assert sent[-1]["usage"] == plain["usage"]
    assert 0 < plain["usage"]["completion_tokens"] <= 40


@pytest.mark.parametrize("budget", [24, 80])
def test_an_object_of_a_schema_is_always_valid(held: Held, budget: int) -> None:
    """Contract 2: also when the budget runs out."""
    for seed in range(2):
        answer = asked(held, response_format=FORM, max_tokens=budget, temperature=1.5, seed=seed)
        value = json.loads(said(answer))
        assert set(value) == {"city", "people"}
        assert isinstance(value["people"], int)
        assert answer["usage"]["completion_tokens"] <= budget


def test_a_required_call_is_valid(held: Held) -> None:
    """Contract 2: `tool_choice`."""
    answer = asked(held, tools=[TOOL], tool_choice="required", max_tokens=80)
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "place"
    assert set(json.loads(call["function"]["arguments"])) == {"city", "people"}


def test_users_at_once_get_what_each_asked_for(held: Held) -> None:
    """Contract 2: several sequences in one forward, each with a grammar of its own."""
    forms = [
        {"type": "json_schema", "json_schema": {"name": "n", "schema": {"const": {"user": user}}}}
        for user in range(USERS)
    ]
    forms[0] = FORM
    with ThreadPoolExecutor(USERS) as users:
        answers = users.map(lambda form: asked(held, response_format=form, max_tokens=60), forms)
        values = [json.loads(said(answer)) for answer in answers]
    assert set(values[0]) == {"city", "people"}
    assert values[1:] == [{"user": user} for user in range(1, USERS)]


def test_log_probabilities_are_those_of_the_chosen_tokens(held: Held) -> None:
    """Contract 2: `logprobs`: at temperature 0 the likeliest token is the one that was taken."""
    answer = asked(held, logprobs=True, top_logprobs=2, temperature=0, max_tokens=12)
    told = answer["choices"][0]["logprobs"]["content"]
    assert told
    for token in told:
        assert token["logprob"] == pytest.approx(token["top_logprobs"][0]["logprob"])
        assert token["logprob"] <= 0
