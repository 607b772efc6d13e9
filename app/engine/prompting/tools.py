"""How functions are put to a model, and the JSON schema of a call to one of them.

Plain data: tools and messages in, dictionaries and texts out. It knows neither tokens nor models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.engine.base import Message, Tool, ToolCall

_INSTRUCTIONS = """You can call the functions below. When one of them helps, answer with nothing \
but a JSON object of this form, and then wait for its result:
{"name":"<the function>","arguments":{<its arguments>}}
Otherwise answer in words.

Functions:
"""
# Members whose values are no schemas, and members whose values are schemas by name.
_VALUES = frozenset(("const", "enum", "default", "examples", "example"))
_BY_NAME = frozenset(
    ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
)
# With an identity of its own, a schema inside another one is a document of its own to `$ref`.
_IDENTITY = frozenset(("$id", "$schema", "id"))


def describe(tool: Tool) -> dict[str, Any]:
    """Return a tool as OpenAI's API writes it, which is what chat templates take."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    return {"type": "function", "function": function}


def describe_call(call: ToolCall) -> dict[str, Any]:
    """Return a call as chat templates take it: its arguments as an object where they are one."""
    try:
        arguments: Any = json.loads(call.arguments)
    except ValueError:
        arguments = call.arguments
    if not isinstance(arguments, dict):
        arguments = call.arguments
    function = {"name": call.name, "arguments": arguments}
    return {"type": "function", "id": call.id, "function": function}


def instructions(tools: Sequence[Tool]) -> str:
    """Return what tells a model of the tools whose chat template does not."""
    return _INSTRUCTIONS + "\n".join(_compact(describe(tool)["function"]) for tool in tools)


def in_plain_words(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """Return the conversation for a template that knows no tools.

    Tools are described in a system message, calls are the JSON that was asked for, and results come
    from the user.
    """
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    plain = [_plain(message, names) for message in messages]
    if not tools:
        return plain
    described = instructions(tools)
    if plain and plain[0].role == "system":
        return [replace(plain[0], content=f"{plain[0].content}\n\n{described}"), *plain[1:]]
    return [Message("system", described), *plain]


def call_schema(tools: Sequence[Tool]) -> dict[str, Any]:
    """Return the JSON schema of one call to one of the tools.

    Every tool's parameters become a definition of their own, so that the references inside them
    still lead to where they led.
    """
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                "arguments": {"$ref": f"#/$defs/tool{number}"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for number, tool in enumerate(tools)
    ]
    parameters = {
        f"tool{number}": _moved({"type": "object", **tool.parameters}, f"#/$defs/tool{number}")
        for number, tool in enumerate(tools)
    }
    return {"anyOf": calls, "$defs": parameters}


def _moved(schema: Any, root: str, *, by_name: bool = False) -> Any:
    """Return a copy of a schema whose `#` references start from `root`."""
    if isinstance(schema, list | tuple):
        return [_moved(item, root) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved: dict[str, Any] = {}
    for key, value in schema.items():
        if by_name:
            moved[key] = _moved(value, root)
        elif key in _IDENTITY and isinstance(value, str):
            continue
        elif key == "$ref" and isinstance(value, str) and value.startswith("#"):
            moved[key] = root + value[1:]
        elif key in _VALUES:
            moved[key] = value
        else:
            moved[key] = _moved(value, root, by_name=key in _BY_NAME)
    return moved


def _plain(message: Message, names: Mapping[str, str]) -> Message:
    if message.role == "tool":
        name = message.name or names.get(message.tool_call_id or "", "")
        start = f"Result of {name}:\n" if name else "Result:\n"
        return Message("user", start + message.content, may_be_cut=message.may_be_cut)
    if not message.tool_calls:
        return message
    called = [
        f'{{"name":{_compact(call.name)},"arguments":{call.arguments or "{}"}}}'
        for call in message.tool_calls
    ]
    return replace(
        message,
        content="\n".join(filter(None, [message.content, *called])),
        tool_calls=(),
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
