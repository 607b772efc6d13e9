"""Our request as the body that an OpenAI-compatible server takes.

Knows that wire form and no connection. A field at its default is left out where a strict server
might refuse it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Literal

from app.core.errors import Unsupported
from app.engine.base import MAX_CONTENT_CHARS, GenerateRequest, Message, Tool
from app.engine.structured.schema_budget import fit_schema
from app.engine.text.cut import cut_at_sentence

# How JSON is requested: held to the schema, merely JSON, or by words alone.
JsonForm = Literal["json_schema", "json_object", "words"]
JSON_FORMS: tuple[JsonForm, ...] = ("json_schema", "json_object", "words")

_IMAGE_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
_SCHEMA_WORDS = "Answer with one JSON value that follows this JSON schema, and nothing else:\n"


def encode_request(
    request: GenerateRequest, model: str, *, form: JsonForm = "json_schema", thinking: bool = True
) -> bytes:
    """Return the JSON body of `POST /chat/completions`; slow with images, so run it in a thread.

    `thinking` False leaves out what the request says of thinking.

    Raises:
        Unsupported: an image of an unknown kind, or one that no message has a place for.
    """
    check_images(request)
    schema = sent_schema(request)
    body: dict[str, Any] = {
        "model": model,
        "messages": _messages(request, schema if form != "json_schema" else None),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        # Always said: some servers have defaults of their own for each model.
        "top_p": request.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_optional(request),
    }
    if schema is not None and form == "json_schema":
        wanted = {"name": "output", "schema": schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    elif schema is not None and form == "json_object":
        body["response_format"] = {"type": "json_object"}
    if request.thinking is False and thinking:
        body["chat_template_kwargs"] = {"enable_thinking": False}
    # Half a surrogate pair has no UTF-8; a question mark says as much.
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def sent_schema(request: GenerateRequest) -> dict[str, Any] | None:
    """Return the request's schema, its strings bounded to what the budget can hold."""
    if request.json_schema is None:
        return None
    return fit_schema(request.json_schema, request.max_tokens)


def check_images(request: GenerateRequest) -> None:
    """Refuse images that could not be sent.

    Raises:
        Unsupported: an image of an unknown kind, or one that no message has a place for.
    """
    placed = {part for item in request.messages for part in item.parts if isinstance(part, int)}
    if placed != set(range(len(request.images))):
        raise Unsupported(
            "An image has no place among the messages, or a place has no image: send each image "
            "as a part of a message.",
            param="messages",
        )
    for image in request.images:
        _media_type(image)


def _optional(request: GenerateRequest) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    fields: dict[str, Any] = {}
    if request.seed is not None:
        fields["seed"] = request.seed
    if request.stop:
        fields["stop"] = list(request.stop)
    if request.presence_penalty:
        fields["presence_penalty"] = request.presence_penalty
    if request.frequency_penalty:
        fields["frequency_penalty"] = request.frequency_penalty
    if request.top_logprobs is not None:
        fields["logprobs"] = True
        if request.top_logprobs:
            fields["top_logprobs"] = request.top_logprobs
    if request.tools:
        fields["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice == "required":
            fields["tool_choice"] = "required"
        if not request.parallel_tool_calls:
            fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": dict(tool.parameters)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _messages(request: GenerateRequest, schema: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the turns; a schema that the server cannot hold the model to goes in as words."""
    turns = [_turn(message, request.images) for message in request.messages]
    if schema is None:
        return turns
    words = _SCHEMA_WORDS + json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    if turns and turns[0]["role"] == "system" and isinstance(turns[0]["content"], str):
        turns[0]["content"] = f"{turns[0]['content']}\n\n{words}"
        return turns
    return [{"role": "system", "content": words}, *turns]


def _turn(message: Message, images: tuple[bytes, ...]) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": _content(message, images)}
    if message.tool_calls:
        turn["content"] = turn["content"] or None
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _content(message: Message, images: tuple[bytes, ...]) -> str | list[dict[str, Any]]:
    if not message.parts:
        return _cut(message, message.content) + message.after
    return [
        {"type": "text", "text": _cut(message, part)}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _data_url(images[part])}}
        for part in message.parts
    ]


def _cut(message: Message, text: str) -> str:
    return cut_at_sentence(text, MAX_CONTENT_CHARS) if message.may_be_cut else text


def _data_url(image: bytes) -> str:
    return f"data:{_media_type(image)};base64,{base64.b64encode(image).decode('ascii')}"


def _media_type(image: bytes) -> str:
    for start, media_type in _IMAGE_STARTS:
        if image.startswith(start):
            return media_type
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    raise Unsupported(
        "The model server takes PNG, JPEG, WebP and GIF images only: convert the image.",
        param="messages",
    )
