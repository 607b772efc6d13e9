"""What `/docs` shows of the chat: requests that work, and what answers them."""

from __future__ import annotations

from typing import Any

from app.api.docs.frames import named_endings, on_wire
from app.api.docs.openapi import (
    OPENAI_ERRORS,
    Responses,
    openai_error_responses,
    sse_content,
    stream_answer,
)
from app.api.docs.requests import Examples, example
from app.api.openai.wire import chat_failure
from app.stream.event import Draft

# 32 x 32 pixels of red.
RED_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKklEQVR42mM4oSFHU8QwasGo"
    "BaMWjFowasGoBaMWjFowasGoBaMWDBULALP5OD2bhkZqAAAAAElFTkSuQmCC"
)


_HELLO = [{"role": "user", "content": "Say hello in Indonesian."}]
CHAT: Examples = {
    "text": example("A text, answered at once", messages=_HELLO, max_tokens=32),
    "streamed": example(
        "Streamed, with usage, under a session id of your own",
        messages=[
            {"role": "system", "content": "You answer in one short sentence."},
            {"role": "user", "content": "Why is the sky blue?"},
        ],
        max_tokens=64,
        stream=True,
        stream_options={"include_usage": True},
        session_id="my-chat",
    ),
    "json_schema": example(
        "JSON of a schema",
        messages=[{"role": "user", "content": "Name a city of Indonesia and its island."}],
        max_tokens=64,
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "city",
                "schema": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}, "island": {"type": "string"}},
                    "required": ["city", "island"],
                    "additionalProperties": False,
                },
            },
        },
    ),
    "tools": example(
        "A tool that the model may call",
        messages=[{"role": "user", "content": "What is the weather in Bandung?"}],
        max_tokens=64,
        tools=[
            {
                "type": "function",
                "function": {
                    "name": "get_weather",
                    "description": "Tells the weather of a city",
                    "parameters": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}},
                        "required": ["city"],
                    },
                },
            }
        ],
    ),
    "image": example(
        "An image",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Which colour is this?"},
                    {"type": "image_url", "image_url": {"url": RED_PNG}},
                ],
            }
        ],
        max_tokens=64,
        stream=True,
    ),
}

_CHAT = {
    "id": "chatcmpl-5d1c9f1c0a4be2a87c34d10b9f22",
    "object": "chat.completion.chunk",
    "created": 1764000000,
    "model": "microsoft/Phi-3-mini-4k-instruct",
    "system_fingerprint": "fp_9d1b1a3c55e0",
}


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> Draft:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return Draft("", {**_CHAT, "choices": [choice]})


CHAT_EVENTS = named_endings(
    on_wire(
        (0, _chunk({"role": "assistant", "content": ""})),
        (1, _chunk({"content": "Halo"})),
        (2, _chunk({}, "stop")),
        (None, Draft("", "[DONE]")),
        session_id="my-chat",
    ),
    chat_failure,
    "my-chat",
    # To OpenAI's clients, a cancelled answer is one that stopped.
    cancelled=((7, _chunk({}, "stop")), (None, Draft("", "[DONE]"))),
)
CHAT_ANSWER = {
    **_CHAT,
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Halo", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14},
}


def chat_responses() -> Responses:
    """Return the responses of the chat endpoint, which streams or answers at once."""
    content = {
        "application/json": {"schema": {"type": "object"}, "example": CHAT_ANSWER},
        "text/event-stream": sse_content(CHAT_EVENTS),
    }
    answer = stream_answer("A chat completion; with `stream`, up to `[DONE]`: ", content)
    return {**openai_error_responses(*OPENAI_ERRORS), 200: answer}
