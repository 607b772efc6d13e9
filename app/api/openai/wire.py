"""The wire form of a chat that streams: its chunks. Runs nothing, only encodes.

Format: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.core.errors import AppError, Cancelled
from app.core.openai_errors import openai_error
from app.engine.base import Finish, Reasoning, Text, TokenLogprob, ToolCallPart
from app.services.chat.answer import Answer, Begin, Piece
from app.stream.event import Draft, Event

# The name of this wire form among the kinds of sessions.
CHAT = "chat"


@dataclass(slots=True, kw_only=True)
class ChatChunks:
    """The chunks of one answer, and what they all have in common."""

    answer: Answer = field(kw_only=False)
    include_usage: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(14)}")
    created: int = field(default_factory=lambda: int(time.time()))
    common: dict[str, Any] | None = None

    def encode(self, piece: Piece) -> Sequence[Draft]:
        """Return the chunks of a piece; the role comes as soon as the engine has begun."""
        match piece:
            case Begin():
                return [self._first(piece)]
            case Text(text, logprobs):
                return [self._chunk({"content": text}, logprobs=_logprobs(logprobs))]
            case Reasoning(text):
                return [self._chunk({"reasoning_content": text})]
            case ToolCallPart():
                return [self._chunk({"tool_calls": [_call(piece)]})]
            case Finish():
                return self._end(piece)

    def ending(self, error: AppError) -> Sequence[Draft]:
        """Return what ends the stream instead: a cancelled answer stops, as if by itself."""
        if isinstance(error, Cancelled):
            return self._end(self.answer.cancelled())
        return [chat_failure(error)]

    def _first(self, begin: Begin) -> Draft:
        more: dict[str, Any] = {}
        if begin.dropped:
            more["context"] = {
                "compressed": True,
                "dropped_messages": begin.dropped,
                "prompt_tokens": begin.prompt_tokens,
                "context_tokens": begin.context_tokens,
            }
        return self._chunk({"role": "assistant", "content": ""}, **more)

    def _end(self, finish: Finish) -> list[Draft]:
        reason = "stop" if finish.reason == "cancelled" else finish.reason
        # Nobody should take half an answer for a whole one (C29).
        more: dict[str, Any] = {"cancelled": True} if finish.reason == "cancelled" else {}
        last = self._chunk({}, finish_reason=reason, terminal=not self.include_usage, **more)
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
            engine = self.answer.engine
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


def _call(part: ToolCallPart) -> dict[str, Any]:
    call: dict[str, Any] = {"index": part.index}
    if part.id is not None:
        call |= {"id": part.id, "type": "function"}
    call["function"] = {"name": part.name} if part.name is not None else {}
    call["function"]["arguments"] = part.arguments
    return call


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
