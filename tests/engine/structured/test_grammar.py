"""Whatever the weights say, the output is an object of the schema, inside its budget."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Unsupported
from app.engine.base import Finish, Message
from app.engine.structured.completion import JsonCompleter
from app.engine.structured.schema_budget import fit_schema
from app.engine.structured.schema_grammar import compile_grammar, required_names
from app.schemas.summary_v4 import StructuredSummary, summary_schema
from app.services.model_loader_v4 import ModelServiceV4
from tests.weight_formats import of_this_run

PROMPT = (
    Message("system", "You write JSON only."),
    Message("user", "Rate cuts loom over the market, the central bank said. " * 4, may_be_cut=True),
)
START = '{"title":"a","main_summary":"b","key_points":["c","d","e"'


def service(folder: Path) -> type[ModelServiceV4]:
    class Service(ModelServiceV4):
        """A model of its own."""

    Service.configure(**of_this_run().loading(folder))
    return Service


@pytest.fixture(scope="module", params=["checkpoint", "fallback_checkpoint"])
def either(request: pytest.FixtureRequest) -> type[ModelServiceV4]:
    return service(request.getfixturevalue(request.param))


def generate(
    loader: type[ModelServiceV4], schema: Mapping[str, Any], **options: Any
) -> tuple[str, Finish]:
    stream = loader.stream_generation(PROMPT, json_schema=schema, **options)
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return "".join(pieces), end.value


def check_summary(text: str, finish: Finish, *, budget: int, minutes: int) -> None:
    summary = StructuredSummary.model_validate_json(text)
    assert summary.read_time_min == minutes
    assert json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) == text
    assert list(json.loads(text)) == list(StructuredSummary.model_fields)
    assert not any(ord(char) < 32 for char in text)
    assert finish.reason == "stop"
    assert 0 < finish.completion_tokens <= budget


@pytest.mark.parametrize("part", range(4))
def test_every_object_is_valid_whatever_the_weights_say(checkpoint: Path, part: int) -> None:
    """C13, S0.10, contract 1: 120 generations; the joined stream is the object, byte for byte."""
    loader = service(checkpoint)
    for number in range(part * 30, part * 30 + 30):
        dice = random.Random(number)
        budget = dice.choice([128, 128, 128, 128, 144, 160, 192, dice.randint(128, 1024)])
        minutes = dice.randint(1, 99)
        text, finish = generate(
            loader,
            summary_schema(minutes),
            max_tokens=budget,
            temperature=dice.choice([0.0, 0.2, 1.0, 2.0]),
            top_p=dice.choice([1.0, 0.9]),
            seed=number,
        )
        check_summary(text, finish, budget=budget, minutes=minutes)


def test_every_object_is_valid_with_a_tokenizer_of_phi3s_kind(fallback_checkpoint: Path) -> None:
    """C13: 40 generations on byte fallback and "▁" for spaces."""
    loader = service(fallback_checkpoint)
    for number in range(40):
        dice = random.Random(number)
        budget = dice.choice([128, 128, 140, 200])
        temperature = dice.choice([0.0, 0.2, 1.0, 2.0])
        text, finish = generate(
            loader, summary_schema(3), max_tokens=budget, temperature=temperature, seed=number
        )
        check_summary(text, finish, budget=budget, minutes=3)


def test_the_smallest_budget_gives_the_shortest_object_and_less_is_refused(
    either: type[ModelServiceV4],
) -> None:
    """C13, contract 1: whatever the budget, a whole object or a refusal before the first text."""
    with pytest.raises(Unsupported) as caught:
        generate(either, summary_schema(7), max_tokens=5)
    assert caught.value.code == "budget_too_small"
    found = re.search(r"takes (\d+) tokens", caught.value.message)
    assert found is not None
    least = int(found[1])
    for budget in (least, least + 1, least + 9, least + 20):
        for seed in range(4):
            text, finish = generate(either, summary_schema(7), max_tokens=budget, seed=seed)
            check_summary(text, finish, budget=budget, minutes=7)
    with pytest.raises(Unsupported):
        generate(either, summary_schema(7), max_tokens=least - 1)


GENERIC: list[dict[str, Any]] = [
    {"type": "object"},
    {"type": "array", "items": {"$ref": "#"}, "maxItems": 40},
    {"type": "array", "items": {"type": "integer", "minimum": 5, "maximum": 120}, "minItems": 9},
    {
        "type": "object",
        "properties": {
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
            "long": {"type": "string", "minLength": 12},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "number"}]},
        },
        "required": ["day", "code", "maybe"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "kind": {"enum": ["short", "an option that takes many, many tokens"]},
                        "note": {"type": "string", "minLength": 20},
                        "flags": {"type": "array", "items": {"type": "boolean"}, "minItems": 4},
                    },
                    "required": ["kind", "note", "flags"],
                },
            }
        },
        "required": ["rows"],
    },
    {"type": "object", "additionalProperties": {"type": "string"}},
    {
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "value": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                },
                "required": ["value", "next"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/node",
    },
    {"enum": ["tab\there", 'quote"d', "bell\u0007", "x"]},
]


@pytest.mark.parametrize("schema", GENERIC, ids=range(len(GENERIC)))
def test_any_schema_ends_inside_the_budget(
    either: type[ModelServiceV4], schema: dict[str, Any]
) -> None:
    """C13: the constraint is not made for the summary alone."""
    for seed in range(6):
        text, finish = generate(
            either, schema, max_tokens=96, seed=seed, temperature=[0.2, 1.0, 2.0][seed % 3]
        )
        value = json.loads(text)
        assert finish.completion_tokens <= 96
        if "enum" in schema:
            assert value in schema["enum"]
        for name in required_names(schema) if "rows" in str(schema) else ():
            assert name == "rows" or all(name in row for row in value["rows"])


def test_after_the_object_the_model_stops_by_itself(either: type[ModelServiceV4]) -> None:
    """C13: nothing follows the closing brace, though the budget is wide."""
    text, finish = generate(either, {"const": {"a": [1, "x"]}}, max_tokens=500)
    assert text == '{"a":[1,"x"]}'
    assert finish.reason == "stop"
    assert finish.completion_tokens < 20


@pytest.mark.parametrize(
    ("start", "rest"),
    [
        ("", '{"title":"…","main_summary":"…","key_points":["…","…","…"],"category":"…"'),
        ('{"title":"a\\', 'n","main_summary":"…"'),
        ('{"title":"a","main_summ', 'ary":"…"'),
        (START + ',"', '…"],"category":"…"'),
        (START + '],"category":"x","sentiment":"', 'neutral","read_time_min":3}'),
        (START + '],"category":"x","sentiment":"p', 'ositive","read_time_min":3}'),
        (START + '],"category":"x","sentiment":"neutral","read_time_min":3', "}"),
    ],
)
def test_the_completion_is_short_and_honest(start: str, rest: str) -> None:
    """Contract 1: the grammar closes the object inside the budget."""
    schema = summary_schema(3)
    completer = JsonCompleter(compile_grammar(schema), required=required_names(schema))
    assert completer.take(start.encode())
    completion = completer.completion().decode()
    assert completion.startswith(rest)
    StructuredSummary.model_validate_json(start + completion)


def test_a_half_finished_character_is_finished_first() -> None:
    """Contract 1: the text is UTF-8 at every cut."""
    schema = summary_schema(3)
    for cut in (b"\xe2\x80", b"\xe2", b"\xf0", b"\xc3", b"\xed"):
        completer = JsonCompleter(compile_grammar(schema), required=required_names(schema))
        start = b'{"title":"' + cut
        assert completer.take(start)
        StructuredSummary.model_validate_json((start + completer.completion()).decode("utf-8"))


@pytest.mark.parametrize(
    "text", ["\\ud800", "\\u0000", "\\b", "\x00", "\n", "\x1f", "\\u00e9", "\\ud83d\\ude00"]
)
def test_control_characters_and_surrogates_cannot_be_written(text: str) -> None:
    """C13: a lone surrogate cannot be sent as UTF-8, a NUL is no text."""
    completer = JsonCompleter(compile_grammar(summary_schema(1)))
    assert not completer.accepts(f'{{"title":"{text}"'.encode())


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "not": {}},
        {"type": "strnig"},
        {"pattern": "(", "type": "string"},
        {"$ref": 3},
    ],
)
def test_a_schema_that_cannot_be_honoured_is_refused(
    either: type[ModelServiceV4], schema: dict[str, Any]
) -> None:
    """S1.26: refused before the first text, with what is wrong."""
    with pytest.raises(Unsupported) as caught:
        generate(either, schema)
    assert caught.value.code == "unsupported_schema"


def test_a_client_cannot_switch_the_compilers_options() -> None:
    """Contract 1: compact JSON, no white space outside strings."""
    schema = {"type": "array", "items": {"type": "integer"}}
    loose = {**schema, "x-guidance": {"whitespace_flexible": True, "item_separator": " ; "}}
    assert compile_grammar(loose) == compile_grammar(schema)


def lengths(schema: Mapping[str, Any]) -> list[int]:
    fields = schema["properties"]
    points = fields["key_points"]
    named = [fields[name]["maxLength"] for name in ("title", "main_summary", "category")]
    return [*named, points["items"]["maxLength"], points["maxItems"]]


def test_a_wide_budget_leaves_the_schema_as_it_is() -> None:
    """Contract 1: with 1,024 tokens the schema's own bounds apply."""
    schema = summary_schema(3)
    assert fit_schema(schema, 1024) == schema


def test_a_short_budget_leaves_room_for_every_field() -> None:
    """Contract 1: 128 tokens hold a title, a summary, three points and a category."""
    schema = summary_schema(3)
    title, summary, category, point, points = lengths(fit_schema(schema, 128))
    assert points == 3
    assert min(title, point) >= 20
    assert summary >= 60
    assert (title + summary + category + 3 * point) / 3.5 + 45 <= 128
    assert lengths(schema) == [120, 1200, 40, 240, 5]


def test_a_language_of_short_tokens_gets_fewer_characters() -> None:
    """Contract 1: a token of Chinese holds less than one of English."""
    english = lengths(fit_schema(summary_schema(3), 512))
    chinese = lengths(fit_schema(summary_schema(3), 512, chars_per_token=0.8))
    assert all(a < b for a, b in zip(chinese[:2], english[:2], strict=True))


INTEGER, NUMBER = {"type": "integer"}, {"type": "number"}
PAIR = {"required": ["a", "b"], "additionalProperties": False}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, **PAIR},
        {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, **PAIR},
        {"type": "array", "items": INTEGER, "minItems": 3},
        {"type": "array", "items": NUMBER, "minItems": 3},
        {"type": "array", "items": {"anyOf": [INTEGER, {"type": "null"}]}, "minItems": 3},
        {"type": "object", "additionalProperties": INTEGER, "minProperties": 2},
    ],
)
def test_a_number_ends_where_the_budget_does(
    either: type[ModelServiceV4], schema: Mapping[str, Any]
) -> None:
    """Contract 2: always valid, also when the budget runs out in the middle of a number."""
    whole = 0
    for budget in (12, 16, 20):
        for seed in range(4):
            with suppress(Unsupported):
                text, _ = generate(either, schema, max_tokens=budget, temperature=1.0, seed=seed)
                json.loads(text)
                whole += 1
    assert whole >= 4
