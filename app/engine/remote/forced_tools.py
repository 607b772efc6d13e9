"""A call that is required of a server which answers in words all the same.

The words are held back. The same conversation is put once more, held to a JSON schema instead of
offering tools; what comes back becomes the call.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from app.core.errors import GenerationFailed, Unsupported
from app.engine.base import (
    Finish,
    FinishReason,
    GenerateRequest,
    Item,
    Message,
    Status,
    Text,
    Tool,
    ToolCallPart,
)
from app.engine.prompting.tools import call_schema, instructions
from app.engine.text.output_parser import new_call_id

Send = Callable[[GenerateRequest], AsyncGenerator[Item, None]]


async def require_call(send: Send, request: GenerateRequest) -> AsyncGenerator[Item, None]:
    """Yield an answer that is a call: the server's own, or that of a second request.

    Raises:
        GenerationFailed: `upstream_ignored_tools`, when both answers are none.
        AppError: as `send` does.
    """
    first: Finish | None = None
    held: list[Item] = []
    called = False
    async with aclosing(send(request)) as items:
        async for item in items:
            if called or isinstance(item, Status):
                yield item
            elif isinstance(item, ToolCallPart):
                called = True
                for earlier in held:
                    yield earlier
                yield item
            elif isinstance(item, Finish):
                first = item
            else:
                held.append(item)
    if called:
        return
    text, last = "", Finish("stop", 0, 0)
    try:
        async with aclosing(send(_held_to_schema(request))) as items:
            async for item in items:
                if isinstance(item, Text):
                    text += item.text
                elif isinstance(item, Finish):
                    last = item
    except Unsupported as exc:
        raise ignored() from exc
    yield _call(request.tools, text)
    reason: FinishReason = "length" if last.reason == "length" else "tool_calls"
    yield Finish(
        reason,
        last.prompt_tokens + (first.prompt_tokens if first else 0),
        last.completion_tokens + (first.completion_tokens if first else 0),
    )


def ignored() -> GenerationFailed:
    """Return the error of a server that does not call the tools that it was told to call."""
    return GenerationFailed(
        "The model server answered in words where a call was required: use a model and a server "
        'that can call tools, or set tool_choice to "auto".',
        code="upstream_ignored_tools",
        status=502,
    )


def _held_to_schema(request: GenerateRequest) -> GenerateRequest:
    """Return the request for an object: of the tool's own parameters where there is one tool."""
    tools = request.tools
    schema = _parameters(tools[0]) if len(tools) == 1 else {"type": "object", **call_schema(tools)}
    wanted = (
        f"Answer with the arguments of a call of {tools[0].name}, as JSON."
        if len(tools) == 1
        else "Answer with one call, as JSON."
    )
    first, *rest = request.messages or (Message("user", ""),)
    words = f"{instructions(tools)}\n\n{wanted}"
    if first.role == "system" and not first.parts:
        messages = (replace(first, content=f"{first.content}\n\n{words}"), *rest)
    else:
        messages = (Message("system", words), first, *rest)
    return replace(
        request,
        messages=messages,
        json_schema=schema,
        tools=(),
        tool_choice="auto",
        stop=(),
        top_logprobs=None,
    )


def _parameters(tool: Tool) -> dict[str, object]:
    return {"type": "object", **tool.parameters}


def _call(tools: tuple[Tool, ...], text: str) -> ToolCallPart:
    """Return the call that an answer holds.

    Raises:
        GenerationFailed: it holds none.
    """
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ignored() from exc
    name: object = tools[0].name
    arguments = value
    if len(tools) > 1 and isinstance(value, dict):
        name, arguments = value.get("name"), value.get("arguments")
    known = isinstance(name, str) and name in {tool.name for tool in tools}
    if not isinstance(name, str) or not known or not isinstance(arguments, dict):
        raise ignored()
    written = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return ToolCallPart(0, written, id=new_call_id(), name=name)
