"""Chat: from a checked body to a request that an engine has accepted.

Everything that can fail with a status fails here, before a session begins. How the answer looks on
the wire is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from app.core.errors import InvalidInput, Unsupported
from app.engine.base import (
    Engine,
    Fitted,
    GenerateRequest,
    Message,
    Tool,
    ToolCall,
    require_engine,
)
from app.schemas.chat_messages import ChatMessage, Part
from app.schemas.openai import ChatRequest
from app.services.media.reader import MediaPart

JSON_OBJECT = {"type": "object"}
# A function without parameters has none, and not any.
_WITHOUT_MEANING = frozenset(("type", "title", "description", "$schema", "$id", "strict"))
NO_PARAMETERS = {"type": "object", "properties": {}, "additionalProperties": False}


class Media(Protocol):
    """What reads the images and videos of messages."""

    async def read(self, parts: Sequence[MediaPart]) -> list[list[bytes]]: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """A request that an engine can take, and the engine."""

    engine: Engine
    fitted: Fitted


class Chat:
    """Chooses the engine of a request by what it holds, and makes the request fit it.

    `compress`: the oldest messages may be dropped where the prompt is longer than the context.
    """

    def __init__(
        self,
        text: Engine,
        vision: Engine | None,
        media: Media,
        *,
        compress: bool = True,
        max_tokens: int = 256,
        temperature: float = 0.7,
    ) -> None:
        self._text = text
        self._vision = vision
        self._media = media
        self._compress = compress
        self._max_tokens = max_tokens
        self._temperature = temperature

    def models(self) -> list[str]:
        """Return the models that can answer, the one for text first."""
        engines = [self._text] + ([self._vision] if self._vision else [])
        return list(dict.fromkeys(engine.model for engine in engines))

    async def accept(self, body: ChatRequest) -> Accepted:
        """Return the engine's own view of a request.

        Raises:
            InvalidInput: an image or a video cannot be read; `param` names it.
            Unsupported: the engine cannot honour a field, or the prompt is too long for it.
            EngineUnavailable: the model cannot serve now.
        """
        messages, media = read_messages(body.messages)
        request = as_request(
            body,
            messages,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
        )
        engine = self._text
        if media:
            if self._vision is None:
                raise Unsupported(
                    "this server's model reads no images: set VISION_MODEL_ID to one that does",
                    param=media[0].param,
                )
            engine = self._vision
            request = _with_images(request, await self._media.read(media))
        await require_engine(engine)
        return Accepted(engine, await engine.fit(request, may_drop=self._compress))


def as_request(
    body: ChatRequest, messages: Sequence[Message], *, max_tokens: int, temperature: float
) -> GenerateRequest:
    """Return what an engine is asked; the last two stand in for what the body leaves out."""
    forced = body.forced_tool
    tools = tuple(
        Tool(
            tool.function.name,
            tool.function.description or "",
            _parameters(tool.function.parameters),
        )
        for tool in body.tools or ()
        if body.tool_choice != "none" and forced in (None, tool.function.name)
    )
    return GenerateRequest(
        messages=tuple(messages),
        max_tokens=body.max_completion_tokens or body.max_tokens or max_tokens,
        temperature=temperature if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stop=tuple(body.stop),
        json_schema=_schema(body),
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        tools=tools,
        tool_choice="required" if forced or body.tool_choice == "required" else "auto",
        parallel_tool_calls=body.parallel_tool_calls is not False,
        thinking=body.thinking,
    )


def read_messages(given: Sequence[ChatMessage]) -> tuple[list[Message], list[MediaPart]]:
    """Return the turns, and the media that they hold; a number among `parts` counts the media.

    Raises:
        InvalidInput: a turn holds media that is not the user's.
    """
    messages: list[Message] = []
    media: list[MediaPart] = []
    for place, message in enumerate(given):
        parts: list[str | int] = []
        for number, part in enumerate(message.content):
            if part.source is None:
                parts.append(part.words)
                continue
            param = f"messages[{place}].content[{number}]"
            if message.role != "user":
                raise InvalidInput("only a user's message has images or videos", param=param)
            parts.append(len(media))
            media.append(_medium(part, param))
        messages.append(_turn(message, parts))
    return messages, media


def _parameters(given: dict[str, Any] | None) -> dict[str, Any]:
    """Return a function's parameters; a schema that says nothing of any has none."""
    says = {key for key, value in (given or {}).items() if value} - _WITHOUT_MEANING
    return given if given and says else NO_PARAMETERS


def _turn(message: ChatMessage, parts: list[str | int]) -> Message:
    words = [part for part in parts if isinstance(part, str)]
    return Message(
        # What OpenAI calls developer is what every chat template calls system.
        "system" if message.role == "developer" else message.role,
        "\n".join(words),
        parts=tuple(parts) if len(words) < len(parts) else (),
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
        ),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )


def _medium(part: Part, param: str) -> MediaPart:
    return MediaPart("video" if "video" in part.type else "image", part.source or "", param)


def _with_images(request: GenerateRequest, read: Sequence[Sequence[bytes]]) -> GenerateRequest:
    """Put images where their parts stand; a video becomes its frames, in order."""
    first: list[int] = []
    images: list[bytes] = []
    for found in read:
        first.append(len(images))
        images.extend(found)

    def placed(message: Message) -> Message:
        parts: list[str | int] = []
        for part in message.parts:
            if isinstance(part, str):
                parts.append(part)
            else:
                parts.extend(range(first[part], first[part] + len(read[part])))
        return replace(message, parts=tuple(parts))

    return replace(request, messages=tuple(map(placed, request.messages)), images=tuple(images))


def _schema(body: ChatRequest) -> dict[str, Any] | None:
    form = body.response_format
    if form is None or form.type == "text":
        return None
    if form.json_schema is not None and form.json_schema.schema_ is not None:
        return form.json_schema.schema_
    return JSON_OBJECT
