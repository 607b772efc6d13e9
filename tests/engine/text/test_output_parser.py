"""What a model wrote, split into answer, thoughts and calls, however it was cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.engine.base import (
    GenerateRequest,
    Item,
    Message,
    Reasoning,
    Text,
    TokenLogprob,
    Tool,
    ToolCallPart,
)
from app.engine.text.output_parser import OutputParser

TOOLS = (Tool("weather"), Tool("now"))
CALL = '{"name":"weather","arguments":{"city":"Rome"}}'


def asked(**values: Any) -> GenerateRequest:
    return GenerateRequest(messages=(Message("user", "q"),), max_tokens=64, **values)


WITH_TOOLS = asked(tools=TOOLS)
PLAIN = asked()


def items_of(request: GenerateRequest, pieces: list[str]) -> list[Item]:
    parser = OutputParser(request)
    items = [item for piece in pieces for item in parser.feed(piece)]
    items += parser.flush()
    assert parser.called == any(isinstance(item, ToolCallPart) for item in items)
    return items


def joined(items: list[Item]) -> list[tuple[str, ...]]:
    """Join neighbours of one kind: ("text", …), ("thought", …), ("call", name, arguments)."""
    found: list[list[str]] = []
    for item in items:
        if isinstance(item, ToolCallPart):
            if item.id is not None:
                assert item.name is not None
                assert item.index == sum(one[0] == "call" for one in found)
                found.append(["call", item.name, ""])
            found[-1][2] += item.arguments
            continue
        assert isinstance(item, Text | Reasoning)
        assert item.text, "no item is empty"
        kind = "text" if isinstance(item, Text) else "thought"
        if found and found[-1][0] == kind:
            found[-1][1] += item.text
        else:
            found.append([kind, item.text])
    return [tuple(one) for one in found]


def read(request: GenerateRequest, text: str) -> list[tuple[str, ...]]:
    return joined(items_of(request, [text]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello", [("text", "Hello")]),
        (" \n", [("text", " \n")]),
        ("<think>hm</think>\n\nHi", [("thought", "hm"), ("text", "Hi")]),
        ("\n <think>\nhm\n</think>Hi", [("thought", "\nhm\n"), ("text", "Hi")]),
        ("<think></think>\n\n", []),
        ("<think>cut sho", [("thought", "cut sho")]),
        ("<think>a</thi", [("thought", "a</thi")]),
        ("<thin", [("text", "<thin")]),
        ("Say <think>no</think>", [("text", "Say <think>no</think>")]),
        ("<think>a</think><think>b", [("thought", "a"), ("text", "<think>b")]),
        (CALL, [("text", CALL)]),
    ],
)
def test_thoughts_are_told_from_the_answer(text: str, expected: list[tuple[str, ...]]) -> None:
    """Pitfall: a thinking model's <think> text got into the answer."""
    assert read(PLAIN, text) == expected


def test_thoughts_never_reach_an_object() -> None:
    """Pitfall: a thinking model's <think> text broke the JSON."""
    request = asked(json_schema={"type": "object"}, tools=TOOLS)
    text = '<think>{"no": 1}</think>\n' + CALL
    assert read(request, text) == [("thought", '{"no": 1}'), ("text", CALL)]


ROME = ("call", "weather", '{"city":"Rome"}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CALL, [ROME]),
        (f"\n{CALL}\n", [ROME]),
        ('{"name": "weather", "parameters": {"city": "Rome"}}', [ROME]),
        ('{"parameters": {"city": "Rome"}, "name": "weather"}', [ROME]),
        ('{"type":"function","name":"weather","arguments":{"city":"Rome"},"id":"x"}', [ROME]),
        (f"<think>I need it</think>\n{CALL}", [("thought", "I need it"), ROME]),
        (f"<tool_call>\n{CALL}\n</tool_call>", [ROME]),
        (f"<tool_call>{CALL}", [ROME]),
        (f"Wait.\n<tool_call>{CALL}</tool_call>", [("text", "Wait.\n"), ROME]),
        (
            f'<tool_call>{CALL}</tool_call>\n<tool_call>{{"name":"now"}}</tool_call>\n',
            [ROME, ("call", "now", "{}")],
        ),
        (f"<tool_call>{CALL}</tool_call>\n So.", [ROME, ("text", "\n So.")]),
        (f"{CALL} and more", [ROME, ("text", " and more")]),
        (
            '{"name":"weather","arguments":{ "a" : [1, { "b}" : "c \\" ] d" }] , "e":2 } }',
            [("call", "weather", '{"a":[1,{"b}":"c \\" ] d"}],"e":2}')],
        ),
        ('{"name":"weather","arguments":{"city":"Ro', [("call", "weather", '{"city":"Ro')]),
    ],
)
def test_a_call_becomes_its_name_and_compact_arguments(
    text: str, expected: list[tuple[str, ...]]
) -> None:
    """Contract 2: `tools`."""
    assert read(WITH_TOOLS, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"unknown","arguments":{}}',
        '{"name":"weather"}',
        '{"name":"weather","arguments":"Rome"}',
        '{"name":"weather","arguments":',
        '{"name":"wea',
        '{"title":"weather"}',
        '{"name":3}',
        '{"name" "weather"}',
        '{"type":3,"name":"weather","arguments":{}}',
        "{",
        "{}",
        "<tool_call>",
        "<tool_call>Rome</tool_call>",
        '<tool_call>{"name":"unknown","arguments":{}}</tool_call>',
        '<tool_call>[{"name":"weather","arguments":{}}]</tool_call>',
        '<tool_call>\n{"name":"weather"',
        f"The object is {CALL}.",
        "a <tool",
        '{"name":"weat\\',
        '{"name":"\\x"}',
    ],
)
def test_what_is_no_call_of_a_known_tool_is_text_and_whole(text: str) -> None:
    """Contract 2: nothing is lost."""
    assert read(WITH_TOOLS, text) == [("text", text)]


def test_a_call_after_a_broken_one_is_found() -> None:
    """Contract 2."""
    text = f"<tool_call>oh <tool_call>{CALL}</tool_call>"
    assert read(WITH_TOOLS, text) == [("text", "<tool_call>oh "), ROME]


def test_arguments_stream_while_they_are_written() -> None:
    """S0.4: as they come, not at the end."""
    parser = OutputParser(WITH_TOOLS)
    made: list[list[Item]] = [parser.feed(char) for char in CALL]
    first = next(items for items in made if items)
    assert isinstance(first[0], ToolCallPart)
    assert (first[0].index, first[0].name, len(first[0].id or "")) == (0, "weather", 29)
    parts = [item for items in made for item in items]
    assert len(parts) == len('{"city":"Rome"}') + 1
    assert all(isinstance(part, ToolCallPart) for part in parts)


def test_an_answer_that_only_looks_like_a_call_is_not_held_back_long() -> None:
    """S0.4."""
    parser = OutputParser(WITH_TOOLS)
    assert parser.feed('{"nam') == []
    assert parser.feed('ed": "x') != []


ALPHABET = st.sampled_from(
    [
        "<think>", "</think>", "<tool_call>", "</tool_call>", "<", "think>", "tool_call>", "/",
        '{"name":"weather","arguments":', '{"city":"Rome"}', '{"name":"now"}', "{", "}", " ", "\n",
        '"', "\\", ":", ",", "name", '"arguments":{', '"parameters"', "weather", "é", "text", CALL,
    ]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(parts=st.lists(ALPHABET, max_size=14), data=st.data(), tools=st.booleans())
@example(parts=["<tool_call>", CALL, "\n", "</tool_call>", " ", "x"], data=None, tools=True)
def test_any_cutting_gives_the_same_result(parts: list[str], data: Any, tools: bool) -> None:
    """Contract 2: what a stream says does not depend on how it was cut."""
    text = "".join(parts)
    request = WITH_TOOLS if tools else PLAIN
    whole = read(request, text)
    cuts = list(range(len(text) + 1))
    if data is not None and text:
        chosen = data.draw(st.sets(st.integers(0, len(text)), max_size=10))
        cuts = sorted({0, len(text), *chosen})
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    assert joined(items_of(request, pieces)) == whole
    if not any(one[0] == "call" for one in whole):
        said = "".join(one[1] for one in whole)
        marks = text
        for mark in ("<think>", "</think>"):
            marks = marks.replace(mark, "")
            said = said.replace(mark, "")
        assert "".join(said.split()) == "".join(marks.split())


@settings(max_examples=200, deadline=None)
@given(
    arguments=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3),
        ),
        max_size=4,
    ),
    tagged=st.booleans(),
    spaced=st.booleans(),
    size=st.integers(1, 9),
)
def test_arguments_are_the_same_value(
    arguments: dict[str, Any], tagged: bool, spaced: bool, size: int
) -> None:
    """Contract 2: the text of a JSON object, compact."""
    call = {"name": "weather", "arguments": arguments}
    text = json.dumps(call, ensure_ascii=False, indent=1 if spaced else None)
    text = f"<tool_call>\n{text}\n</tool_call>" if tagged else text
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    compact = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    assert joined(items_of(WITH_TOOLS, pieces)) == [("call", "weather", compact)]


def token(text: str) -> TokenLogprob:
    return TokenLogprob(text, text.encode(), -0.5)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_the_tokens_of_the_answer_come_once_and_those_of_thoughts_never(size: int) -> None:
    """Contract 2: `logprobs`."""
    texts = ["<think>", "hm", "</think>", "\n\n", "Hel", "lo", " <", "too", " end"]
    pieces = ["".join(texts[i : i + size]) for i in range(0, len(texts), size)]
    tokens = [tuple(map(token, texts[i : i + size])) for i in range(0, len(texts), size)]
    parser = OutputParser(WITH_TOOLS)
    items: list[Item] = []
    for piece, made in zip(pieces, tokens, strict=True):
        items += parser.feed(piece, made)
    items += parser.flush()
    answer = [item for item in items if isinstance(item, Text)]
    assert "".join(item.text for item in answer) == "Hello <too end"
    assert [one.text for item in answer for one in item.logprobs] == texts[4:]
