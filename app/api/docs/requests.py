"""Requests that work as they stand, for `/docs` and for the lines of curl.

The first example of an operation needs no internet, and is the one that its line of curl sends.
"""

from __future__ import annotations

from typing import Any

from app.schemas.summary_v4 import EXAMPLE_TEXT

SESSION_ID = "example"
PAGE = "https://en.wikipedia.org/wiki/Summary"
# 32 x 32 pixels of red.
RED_PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAIAAAD8GO2jAAAAKklEQVR42mM4oSFHU8QwasGo"
    "BaMWjFowasGoBaMWjFowasGoBaMWDBULALP5OD2bhkZqAAAAAElFTkSuQmCC"
)

Examples = dict[str, dict[str, Any]]


def body_examples(examples: Examples) -> dict[str, Any]:
    """Return what an operation adds to its description: named examples of its JSON body."""
    return {"requestBody": {"content": {"application/json": {"examples": examples}}}}


def _example(summary: str, **value: Any) -> dict[str, Any]:
    return {"summary": summary, "value": value}


_PAGE = "A page (the server needs the internet)"
_OWN_ID = "Under a session id of your own"

TEXT_STREAM: Examples = {
    "text": _example("A text", text=EXAMPLE_TEXT, style="executive"),
    "page": _example(_PAGE, url=PAGE, style="skimmer"),
    "session": _example(_OWN_ID, text=EXAMPLE_TEXT, style="eli5", session_id="my-summary"),
    "fresh": _example(
        "Not from the cache, and without metadata",
        text=EXAMPLE_TEXT,
        style="skimmer",
        max_tokens=512,
        include_metadata=False,
        use_cache=False,
    ),
}
PATCH_STREAM: Examples = {
    "text": _example(
        "A text, as the session that the examples of Sessions name",
        text=EXAMPLE_TEXT,
        style="executive",
        session_id=SESSION_ID,
    ),
    "page": _example(_PAGE, url=PAGE, style="skimmer"),
    "session": _example(_OWN_ID, text=EXAMPLE_TEXT, style="eli5", session_id="my-patches"),
    "status": _example(
        "With what happens before the words",
        text=EXAMPLE_TEXT,
        style="executive",
        include_status=True,
        use_cache=False,
    ),
}
PROSE_STREAM: Examples = {
    "text": _example("A text", text=EXAMPLE_TEXT),
    "page": _example(_PAGE, url=PAGE),
    "session": _example(_OWN_ID, text=EXAMPLE_TEXT, session_id="my-prose"),
    "prompt": _example(
        "With an instruction and a budget",
        text=EXAMPLE_TEXT,
        prompt="Summarize this in one sentence for a newspaper:",
        max_tokens=96,
        temperature=0.2,
        top_p=0.9,
    ),
}

_HELLO = [{"role": "user", "content": "Say hello in Indonesian."}]
CHAT: Examples = {
    "text": _example("A text, answered at once", messages=_HELLO, max_tokens=32),
    "streamed": _example(
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
    "json_schema": _example(
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
    "tools": _example(
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
    "image": _example(
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
