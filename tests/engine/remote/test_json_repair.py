"""JSON from servers that hold their model to a schema, half hold it, or do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.base import Finish, GenerateRequest, Item, Message, Reasoning, Status, Text
from app.engine.remote.json_repair import JsonText
from app.engine.structured.schema_grammar import compile_grammar
from app.schemas.summary_v4 import StructuredSummary, summary_schema
from bench.upstream import SUMMARY, Refusal, Script
from tests.engine.remote.test_engine import Stage, failure, run, stage, text

__all__ = ["stage"]

SCHEMA = summary_schema(1)
SPACED = json.dumps(SUMMARY, indent=2, ensure_ascii=False)
COMPACT = json.dumps(SUMMARY, separators=(",", ":"), ensure_ascii=False)
FORMS = ("json_schema", "json_object")


def asked(**values: Any) -> GenerateRequest:
    messages = (Message("system", "Summarize."), Message("user", "An article."))
    defaults: dict[str, Any] = {"messages": messages, "max_tokens": 1024, "json_schema": SCHEMA}
    return GenerateRequest(**{**defaults, **values})


def read(pieces: list[str], *, cut: bool = False, schema: dict[str, Any] = SCHEMA) -> str:
    value = JsonText((schema,))
    return "".join([*(value.feed(piece) for piece in pieces), value.finish(cut=cut)])


def cut_up(whole: str, size: int) -> list[str]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def reasons(items: list[Item]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Finish)]


async def test_the_schema_is_sent_with_strings_that_fit_the_budget(stage: Stage) -> None:
    """Contract 1: complete within max_tokens."""
    await run(stage.engine(Script()), asked(max_tokens=128))
    form = stage.scripts[0].bodies[0]["response_format"]
    assert form["type"] == "json_schema"
    assert (form["json_schema"]["name"], form["json_schema"]["strict"]) == ("output", True)
    sent = form["json_schema"]["schema"]["properties"]["main_summary"]["maxLength"]
    assert sent < SCHEMA["properties"]["main_summary"]["maxLength"]


async def test_white_space_between_tokens_is_taken_away(stage: Stage) -> None:
    """Measured: a constrained vLLM puts line breaks between JSON tokens."""
    made = await run(stage.engine(Script()), asked())
    assert text(made) == COMPACT
    assert all("\n" not in item.text for item in made if isinstance(item, Text))
    assert reasons(made) == ["stop"]


@pytest.mark.parametrize("budget", [*range(1, 40), 60, 90, 120])
async def test_an_object_that_the_budget_cuts_is_completed(stage: Stage, budget: int) -> None:
    """Contract 1: always valid, also when the budget runs out."""
    script = Script(cut_up(SPACED, 3)[: budget * 3], finish_reason="length")
    made = await run(stage.engine(script), asked())
    StructuredSummary.model_validate_json(text(made))
    assert reasons(made) == ["length"]


@given(st.integers(0, len(COMPACT)), st.integers(1, 9))
def test_cut_anywhere_it_can_be_completed(end: int, size: int) -> None:
    """Contract 1; pitfall: objects were cut in the middle."""
    found = read(cut_up(COMPACT[:end], size), cut=True)
    StructuredSummary.model_validate_json(found)
    # The last character may have been the first of a literal or an escape.
    assert found.startswith(COMPACT[:end])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(TEXT, st.booleans(), st.integers(0, 400), st.integers(1, 7))
def test_any_text_cut_anywhere_can_be_completed(
    words: str, ascii_only: bool, end: int, size: int
) -> None:
    """Half an escape, half a pair of them, a control character: the object is valid."""
    written = json.dumps({**SUMMARY, "title": words * 2}, ensure_ascii=ascii_only, indent=1)[:end]
    StructuredSummary.model_validate_json(read(cut_up(written, size), cut=True))


@pytest.mark.parametrize(
    "end", [r"a\\", r"a\"", "a\\", r"a\u00e", r"a\ud83d", r"a\ud83d\ude0", r"\\\u"]
)
def test_half_an_escape_is_left_out_of_a_cut_text(end: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    found = json.loads(read([f'{{"a":"{end}'], cut=True, schema=schema))["a"]
    assert found == {r"a\\": "a\\", r"a\"": 'a"', r"\\\u": "\\"}.get(end, "a")


@pytest.mark.parametrize(
    "around",
    [
        "```json\n{}\n```", "```\n{}\n```\n", "Here is the summary:\n\n{}\n\nAnything else?",
        "Fill in {{title}}:\n```json\n{}```", "\ufeff {} ", "{}{{\"title\":1}}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 4, 1000])
def test_fences_and_talk_around_the_object_are_taken_away(around: str, size: int) -> None:
    """Pitfall: a model was trusted to write nothing but JSON."""
    assert read(cut_up(around.format(SPACED), size)) == COMPACT


@pytest.mark.parametrize(
    ("schema", "written", "found"),
    [
        ({"type": "array", "items": {"type": "integer"}}, "List [a]: [1,\n 2] ok", "[1,2]"),
        ({"type": "integer"}, " 12 ", "12"),
        ({"enum": ["yes", "no"]}, '```json\n"yes"', '"yes"'),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, '{"a": 1} ok', '{"a":1}'),
    ],
)
def test_a_value_need_be_no_object(schema: dict[str, Any], written: str, found: str) -> None:
    """Contract 2: any JSON schema."""
    assert read(cut_up(written, 2), schema=schema) == found


def test_text_that_never_follows_the_schema_is_left_to_the_caller() -> None:
    """Whoever asked validates: nothing is made up."""
    assert read(["I cannot do that."]) == "I cannot do that."
    assert read(["I cannot do that."], cut=True) == "I cannot do that."
    assert read(['{"name": "x"'], cut=True) == '{"name":"x"'
    assert read([]) == ""


def test_a_value_that_stops_too_soon_is_completed_as_well() -> None:
    """Contract 2: a stop sequence in the middle leaves a valid object."""
    StructuredSummary.model_validate_json(read([COMPACT[:80]]))


def test_a_schema_without_a_grammar_leaves_the_text_as_it_is() -> None:
    assert read(['{"a":"x'], cut=True, schema={"type": "object", "not": {}}) == '{"a":"x'


async def test_thoughts_never_get_into_the_object(stage: Stage) -> None:
    """Pitfall: a thinking model's `<think>` text broke the JSON."""
    steps = [{"reasoning_content": "{1}"}, "<think>{2}", "</think>\n", *cut_up(SPACED, 5)]
    made = await run(stage.engine(Script(steps)), asked())
    assert text(made) == COMPACT
    assert [item.text for item in made if isinstance(item, Reasoning)] == ["{1}", "{2}"]
    kinds = [type(item) for item in made]
    assert kinds.index(Text) == kinds.index(Status, 2) + 1


async def test_the_object_is_valid_when_thinking_took_the_whole_budget(stage: Stage) -> None:
    """Contract 2: always valid."""
    script = Script([{"reasoning_content": "Hmm"}], finish_reason="length")
    made = await run(stage.engine(script), asked())
    StructuredSummary.model_validate_json(text(made))
    assert [item.stage for item in made if isinstance(item, Status)] == ["reading", "writing"]


async def test_logprobs_stay_with_the_tokens_of_the_object(stage: Stage) -> None:
    """Contract 2."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    def step(token: str) -> dict[str, Any]:
        told = {"content": [{"token": token, "logprob": -1.0, "top_logprobs": []}]}
        return {"choices": [{"delta": {"content": token}, "logprobs": told}]}

    steps = [step(token) for token in ("{", "\n  ", '"a"', ": ", "1", "\n}")]
    made = await run(stage.engine(Script(steps)), asked(json_schema=schema, top_logprobs=0))
    assert text(made) == '{"a":1}'
    tokens = [lp.text for item in made if isinstance(item, Text) for lp in item.logprobs]
    assert tokens == ["{", "\n  ", '"a"', ": ", "1", "\n}"]


@pytest.mark.parametrize("known", [FORMS[:1], FORMS, ()])
async def test_a_server_without_schemas_is_asked_in_words(
    stage: Stage, known: tuple[str, ...]
) -> None:
    """C17: any OpenAI-compatible server; contract 2: the model is told the schema."""
    refused = frozenset(FORMS[: len(known)])
    script = Script(["```json\n", *cut_up(SPACED, 9), "\n```"], refused_forms=refused)
    assert text(await run(stage.engine(script), asked())) == COMPACT
    forms = [body.get("response_format", {}).get("type") for body in script.bodies]
    assert forms == [*FORMS, None][: len(known) + 1]
    system = script.bodies[-1]["messages"][0]["content"]
    assert ("JSON schema" in system) == bool(known)
    assert "Summarize." in system


async def test_what_is_refused_in_every_form_is_told_in_the_first_words(stage: Stage) -> None:
    first = Refusal(400, {"error": {"message": "no such field"}})
    script = Script(refusals=[first], always=Refusal(400))
    error = await failure(stage.engine(script), asked())
    assert (error.code, "no such field" in error.message) == ("upstream_rejected", True)
    assert len(script.bodies) == 3


async def test_a_server_that_knows_no_thinking_is_asked_without_it(stage: Stage) -> None:
    told = {"error": {"message": "Unrecognized request argument: chat_template_kwargs"}}
    script = Script(refusals=[Refusal(400, told)])
    assert text(await run(stage.engine(script), asked(thinking=False))) == COMPACT
    first, second = script.bodies
    assert first["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in second
    assert second["response_format"]["type"] == "json_schema"


def test_the_grammar_knows_fewer_escapes_than_json() -> None:
    """Why escapes are spelled out before a text is completed."""
    from app.engine.structured.completion import JsonCompleter

    completer = JsonCompleter(compile_grammar({"type": "string"}))
    assert not completer.accepts(rb'"\u00e9')
    assert completer.accepts('"é'.encode())
