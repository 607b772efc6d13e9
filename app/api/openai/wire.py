"""The wire form of a chat that streams: its chunks.

Format: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import AppError, Cancelled, openai_error
from app.engine.base import (
    Engine,
    Finish,
    Fitted,
    Item,
    Reasoning,
    Text,
    TokenLogprob,
    ToolCallPart,
)
from app.stream.event import Draft, Event

# The name of this wire form among the kinds of sessions.
CHAT = "chat"
# The memory log keeps 2,048 events and a chat may have any number of tokens: after this many events
# the pieces come in groups, twice as large with every GROWS_EVERY more of them.
SINGLE_EVENTS = 1_000
GROWS_EVERY = 100


@dataclass(slots=True, kw_only=True)
class ChatAnswer:
    """One answer on its way out: what all its chunks have in common, and what was counted."""

    engine: Engine
    fitted: Fitted
    include_usage: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))
    pieces: int = 0
    events: int = 0
    begun: bool = False
    common: dict[str, Any] | None = None

    async def drafts(self) -> AsyncGenerator[Draft, None]:
        """Yield the chunks; the role is told as soon as the engine has begun."""
        async with aclosing(self.engine.generate(self.fitted.request)) as items:
            held: Item | None = None
            held_pieces = 0
            async for item in items:
                if not self.begun:
                    self.begun = True
                    yield self._first()
                if isinstance(item, Finish):
                    if held is not None:
                        yield self._piece(held)
                    for draft in self._end(item):
                        yield draft
                    return
                if not isinstance(item, Text | Reasoning | ToolCallPart):
                    continue
                self.pieces += 1
                joined = _join(held, item) if held is not None else item
                if held is not None and joined is None:
                    yield self._piece(held)
                    held, held_pieces = item, 1
                else:
                    held, held_pieces = joined, held_pieces + 1
                if held is not None and held_pieces >= self._group():
                    yield self._piece(held)
                    held, held_pieces = None, 0

    def ending(self, error: AppError) -> Sequence[Draft]:
        """Return what ends the stream instead: a cancelled answer stops, as if by itself."""
        if not isinstance(error, Cancelled):
            return [chat_failure(error)]
        finish = Finish("cancelled", self.fitted.prompt_tokens or 0, self.pieces)
        return self._end(finish)

    def _group(self) -> int:
        over = self.events - SINGLE_EVENTS
        return 1 if over < 0 else 2 << (over // GROWS_EVERY)

    def _first(self) -> Draft:
        fitted = self.fitted
        more: dict[str, Any] = {}
        if fitted.dropped:
            more["context"] = {
                "compressed": True,
                "dropped_messages": fitted.dropped,
                "prompt_tokens": fitted.prompt_tokens,
                "context_tokens": fitted.context_tokens,
            }
        return self._chunk({"role": "assistant", "content": ""}, **more)

    def _piece(self, item: Item) -> Draft:
        self.events += 1
        match item:
            case Text(text, logprobs):
                return self._chunk({"content": text}, logprobs=_logprobs(logprobs))
            case Reasoning(text):
                return self._chunk({"reasoning_content": text})
            case ToolCallPart(index, arguments, call_id, name):
                call: dict[str, Any] = {"index": index}
                if call_id is not None:
                    call |= {"id": call_id, "type": "function"}
                call["function"] = {"name": name} if name is not None else {}
                call["function"]["arguments"] = arguments
                return self._chunk({"tool_calls": [call]})
        raise TypeError(f"no chunk for {type(item).__name__}")

    def _end(self, finish: Finish) -> list[Draft]:
        reason = "stop" if finish.reason == "cancelled" else finish.reason
        last = self._chunk({}, finish_reason=reason, terminal=not self.include_usage)
        if not self.include_usage:
            return [last]
        usage = {
            "prompt_tokens": finish.prompt_tokens,
            "completion_tokens": finish.completion_tokens,
            "total_tokens": finish.prompt_tokens + finish.completion_tokens,
        }
        return [last, Draft("", {**self._common(), "choices": [], "usage": usage}, terminal=True)]

    def _chunk(
        self,
        delta: dict[str, Any],
        *,
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
        terminal: bool = False,
        **more: Any,
    ) -> Draft:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        data = {**self._common(), "choices": [choice], **more}
        if self.include_usage:
            data["usage"] = None
        return Draft("", data, terminal)

    def _common(self) -> dict[str, Any]:
        if self.common is None:
            engine = self.engine
            made_of = f"{engine.name} {engine.model} {sorted(engine.facts().items())}"
            self.common = {
                "id": self.id,
                "object": "chat.completion.chunk",
                "created": self.created,
                "model": engine.model,
                "system_fingerprint": f"fp_{hashlib.sha256(made_of.encode()).hexdigest()[:12]}",
            }
        return self.common


def chat_failure(error: AppError, last: Event | None = None) -> Draft:
    """The terminal event of a chat that failed; the official clients raise on it."""
    data = openai_error(error.message, status=error.status, code=error.code, param=error.param)
    return Draft("", data, terminal=True)


def chat_trailer(terminal: Event) -> Draft | None:
    """What follows the terminal event of a chat that did not fail."""
    failed = isinstance(terminal.data, dict) and "error" in terminal.data
    return None if failed else Draft("", "[DONE]")


def _join(before: Item, item: Item) -> Item | None:
    """Return two pieces as one, or None where they are of different kinds."""
    match before, item:
        case Text(), Text():
            return Text(before.text + item.text, before.logprobs + item.logprobs)
        case Reasoning(), Reasoning():
            return Reasoning(before.text + item.text)
        case ToolCallPart(), ToolCallPart(id=None) if before.index == item.index:
            return ToolCallPart(
                before.index, before.arguments + item.arguments, before.id, before.name
            )
    return None


def _logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    if not tokens:
        return None
    return {"content": [_logprob(token) for token in tokens], "refusal": None}


def _logprob(token: TokenLogprob) -> dict[str, Any]:
    top = [
        {"token": text, "logprob": logprob, "bytes": list(data)}
        for text, data, logprob in token.top
    ]
    own = {"token": token.text, "logprob": token.logprob, "bytes": list(token.data)}
    return {**own, "top_logprobs": top}
