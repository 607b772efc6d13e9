"""A server that answers in words where a call is required is asked once more, with a schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from app.core.errors import GenerationFailed
from app.engine.base import Finish, GenerateRequest, Item, Message, Text, Tool, ToolCallPart
from app.engine.remote.engine import RemoteEngine
from bench.upstream import Script, Step, running_upstream

LOOK = Tool(
    "look",
    parameters={"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
)
WAIT = Tool("wait", parameters={"type": "object", "properties": {}, "additionalProperties": False})


async def answer(
    steps: Sequence[Step], tools: tuple[Tool, ...] = (LOOK,), **values: Any
) -> tuple[list[Item], Script]:
    request = GenerateRequest(
        messages=(Message("user", "Hi"),),
        max_tokens=50,
        tools=tools,
        **{"tool_choice": "required", **values},
    )
    with running_upstream(Script(steps)) as (base, script):
        engine = RemoteEngine([base])
        try:
            async with aclosing(engine.generate(request)) as items:
                return [item async for item in items], script
        finally:
            await engine.aclose()


def calls(items: list[Item]) -> list[tuple[str | None, Any]]:
    parts = [item for item in items if isinstance(item, ToolCallPart)]
    written: dict[int, str] = {}
    for part in parts:
        written[part.index] = written.get(part.index, "") + part.arguments
    names = {part.index: part.name for part in parts if part.name}
    return [(names[index], json.loads(text)) for index, text in written.items()]


@pytest.mark.parametrize(
    ("tools", "text", "expected"),
    [
        ((LOOK,), '{"at":"home"}', ("look", {"at": "home"})),
        ((WAIT,), "{}", ("wait", {})),
        ((WAIT, LOOK), '{"name":"look","arguments":{"at":"home"}}', ("look", {"at": "home"})),
    ],
)
async def test_words_are_held_back_and_the_second_answer_is_the_call(
    tools: tuple[Tool, ...], text: str, expected: tuple[str, Any]
) -> None:
    """Issue 16, item 7: the second request has a schema and no tools."""
    items, script = await answer(["Sure: " + text], tools)
    assert not any(isinstance(item, Text) for item in items)
    assert calls(items) == [expected]
    finish = items[-1]
    assert isinstance(finish, Finish)
    assert finish.reason == "tool_calls"
    first, second = script.bodies
    assert first["tool_choice"] == "required"
    assert "tools" not in second
    assert second["response_format"]["type"] == "json_schema"


@pytest.mark.parametrize("tools", [(LOOK,), (LOOK, WAIT), (WAIT,)])
async def test_two_answers_without_a_call_are_an_error_that_names_the_fix(
    tools: tuple[Tool, ...],
) -> None:
    """Issue 16, item 7: 502 `upstream_ignored_tools`."""
    with pytest.raises(GenerationFailed) as caught:
        await answer(["I would rather talk."], tools)
    assert (caught.value.code, caught.value.status) == ("upstream_ignored_tools", 502)


async def test_a_call_is_passed_on_and_not_asked_for_again() -> None:
    step = {"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": "{}"}}]}
    items, script = await answer([step])
    assert calls(items) == [("look", {})]
    assert len(script.bodies) == 1


async def test_a_call_without_arguments_has_an_empty_object() -> None:
    step = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "wait"}}]}
    items, _ = await answer([step], (WAIT,), tool_choice="auto")
    assert calls(items) == [("wait", {})]
