"""The answer of a client that does not stream: the chunks of the same session put together.

Format: https://platform.openai.com/docs/api-reference/chat/object
"""

from __future__ import annotations

from typing import Any

from app.core.errors import AppError
from app.stream.event import Event


def error_of(event: Event) -> AppError | None:
    """Return the error that a terminal event is, None for any other event."""
    failure = event.data.get("error") if isinstance(event.data, dict) else None
    return None if failure is None else AppError.from_dict(failure)


class Fold:
    """The answer of a client that does not stream: all chunks of a session put together."""

    def __init__(self) -> None:
        self._answer: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {"content": [], "reasoning_content": []}
        self._calls: list[dict[str, Any]] = []
        self._logprobs: list[dict[str, Any]] | None = None
        self._finish_reason: str | None = None

    def feed(self, event: Event) -> None:
        """Take the next event, which is no error."""
        assert isinstance(event.data, dict)  # noqa: S101  (every chunk is an object)
        self._answer |= {k: v for k, v in event.data.items() if k != "choices"}
        for choice in event.data["choices"]:
            self._finish_reason = choice["finish_reason"] or self._finish_reason
            if choice["logprobs"]:
                self._logprobs = (self._logprobs or []) + choice["logprobs"]["content"]
            for name, value in choice["delta"].items():
                if name in self._texts:
                    self._texts[name].append(value)
            for call in choice["delta"].get("tool_calls", ()):
                self._call(call)

    def result(self) -> dict[str, Any]:
        """Return the chat completion."""
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        message: dict[str, Any] = {
            "role": "assistant",
            "content": texts["content"] or (None if self._calls else ""),
            "refusal": None,
        }
        if texts["reasoning_content"]:
            message["reasoning_content"] = texts["reasoning_content"]
        if self._calls:
            message["tool_calls"] = self._calls
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None if self._logprobs is None else {"content": self._logprobs},
            "finish_reason": self._finish_reason,
        }
        return {**self._answer, "object": "chat.completion", "choices": [choice]}

    def _call(self, part: dict[str, Any]) -> None:
        function = part["function"]
        if "id" in part:
            made = {"name": function["name"], "arguments": ""}
            self._calls.append({"id": part["id"], "type": "function", "function": made})
        self._calls[part["index"]]["function"]["arguments"] += function["arguments"]
