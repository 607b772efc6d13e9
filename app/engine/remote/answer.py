"""The answer of an OpenAI-compatible server as our items.

Knows what its chunks mean to the request they answer; not which server sent them, nor what
happens when it fails.
"""

from __future__ import annotations

import asyncio
import json
import math
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import httpx

from app.engine.base import (
    Finish,
    FinishReason,
    GenerateRequest,
    Item,
    Reasoning,
    Status,
    Text,
    TokenLogprob,
    ToolCallPart,
)
from app.engine.remote.chunks import Characters, joined, read_chunks
from app.engine.remote.errors import failed
from app.engine.remote.json_repair import JsonText
from app.engine.remote.request import sent_schema
from app.engine.text.output_parser import OutputParser

_LOWEST_LOGPROB = -9999.0

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
}


async def read_answer(
    response: httpx.Response, request: GenerateRequest
) -> AsyncGenerator[Item, None]:
    """Yield the items of an accepted request; the last one is its `Finish`.

    Raises:
        GenerationFailed: the answer broke off, or says that it failed.
        httpx.RequestError: the connection failed.
    """
    answer = _Answer(request)
    try:
        async with aclosing(read_chunks(response)) as chunks:
            async for chunk in chunks:
                for item in answer.take(chunk):
                    yield item
    except httpx.RequestError:
        # With its reason the answer is whole; only the count of its tokens may be missing.
        if answer.reason is None:
            raise
    if answer.reason is None:
        raise failed("The model server ended its answer without saying why; try again.")
    for item in await answer.finish():
        yield item


class _Answer:
    """What came so far of one answer."""

    def __init__(self, request: GenerateRequest) -> None:
        self.reason: FinishReason | None = None
        self._with_logprobs = request.top_logprobs is not None
        self._parser = OutputParser(request)
        self._json: JsonText | None = None
        sent = sent_schema(request)
        if sent is not None and request.json_schema is not None:
            self._json = JsonText((sent, request.json_schema))
        self._characters = Characters()
        self._writing = False
        self._pieces = 0
        self._usage = (0, 0)
        self._calls: set[int] = set()
        self._without_arguments: set[int] = set()
        self._waiting: tuple[TokenLogprob, ...] = ()

    def take(self, chunk: dict[str, Any]) -> list[Item]:
        """Return the items of one chunk."""
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self._usage = (_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return []
        delta = choice.get("delta")
        items = self._delta(delta, choice) if isinstance(delta, dict) else []
        if choice.get("finish_reason"):
            self.reason = _reason(str(choice["finish_reason"]))
        return self._announced(items)

    async def finish(self) -> list[Item]:
        """Return what is left once the stream has ended, the `Finish` included."""
        reason = self.reason or "stop"
        ends = [*self._parser.feed(self._characters.flush()), *self._parser.flush()]
        items = self._checked(ends)
        if self._json is not None and not self._calls:
            # The grammar of a large schema takes its time.
            closing = await asyncio.to_thread(self._json.finish, cut=reason == "length")
            items += [Text(closing)] if closing else []
        if reason == "stop" and (self._calls or self._parser.called):
            reason = "tool_calls"
        # A function without parameters: many servers send nothing at all.
        if reason != "length":
            items += [ToolCallPart(index, "{}") for index in sorted(self._without_arguments)]
        prompt_tokens, completion_tokens = self._usage
        finish = Finish(reason, prompt_tokens, completion_tokens or self._pieces)
        return [*self._announced(items), finish]

    def _delta(self, delta: dict[str, Any], choice: dict[str, Any]) -> list[Item]:
        items: list[Item] = []
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            self._pieces += 1
            items.append(Reasoning(thought))
        text = delta.get("content") or delta.get("refusal")
        logprobs = _logprobs(choice) if self._with_logprobs else ()
        if (isinstance(text, str) and text) or logprobs:
            self._pieces += 1
            text = self._characters.feed(text if isinstance(text, str) else "")
            items += self._checked(self._parser.feed(text, logprobs))
        for call in delta.get("tool_calls") or ():
            if isinstance(call, dict):
                self._pieces += 1
                items += self._call(call)
        return items

    def _call(self, call: dict[str, Any]) -> list[Item]:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, call_id = function.get("name"), call.get("id")
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            # Ollama's own form: the arguments as an object, whole.
            arguments = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
        index = call.get("index")
        if not isinstance(index, int):
            # Without an index, a name begins a call and anything else belongs to the last one.
            index = len(self._calls) if name else max(len(self._calls) - 1, 0)
        if arguments:
            self._without_arguments.discard(index)
        if index in self._calls:
            return [ToolCallPart(index, arguments)] if arguments else []
        if not name:
            raise failed("The model server sent a call of a function without its name.")
        self._calls.add(index)
        if not arguments:
            self._without_arguments.add(index)
        call_id = str(call_id or f"call_{secrets.token_hex(12)}")
        return [ToolCallPart(index, arguments, id=call_id, name=str(name))]

    def _checked(self, items: list[Item]) -> list[Item]:
        """Take every text through the JSON repair, if JSON is wanted."""
        if self._json is None:
            return items
        checked: list[Item] = []
        for item in items:
            if not isinstance(item, Text):
                checked.append(item)
                continue
            self._waiting += item.logprobs
            if piece := self._json.feed(item.text):
                checked.append(replace(item, text=piece, logprobs=self._waiting))
                self._waiting = ()
        return checked

    def _announced(self, items: list[Item]) -> list[Item]:
        """Say that writing has begun, once, before what is written first."""
        if self._writing:
            return items
        for place, item in enumerate(items):
            if isinstance(item, Text | ToolCallPart):
                self._writing = True
                return [*items[:place], Status("writing"), *items[place:]]
        return items


def _reason(given: str) -> FinishReason:
    if given in _REASONS:
        return _REASONS[given]
    if given == "content_filter":
        raise failed("The model server's content filter stopped the answer.")
    raise failed("The model server broke the answer off; try again.")


def _count(usage: dict[str, Any], key: str) -> int:
    value = usage.get(key)
    return value if isinstance(value, int) and value > 0 else 0


def _logprobs(choice: dict[str, Any]) -> tuple[TokenLogprob, ...]:
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    tokens = []
    for token in content if isinstance(content, list) else ():
        if isinstance(token, dict):
            top = tuple(_token(other) for other in token.get("top_logprobs") or ())
            tokens.append(TokenLogprob(*_token(token), top=top))
    return tuple(tokens)


def _token(token: dict[str, Any]) -> tuple[str, bytes, float]:
    text = joined(str(token.get("token") or ""))
    data, logprob = token.get("bytes"), token.get("logprob")
    try:
        found = bytes(data) if isinstance(data, list) else text.encode()
    except (ValueError, TypeError):
        found = text.encode()
    # JSON has no infinity: servers and clients agree on this number instead.
    if not isinstance(logprob, int | float) or not math.isfinite(logprob):
        logprob = _LOWEST_LOGPROB
    return text, found, float(logprob)
