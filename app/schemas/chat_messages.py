"""The turns of a chat as OpenAI's clients send them: words, images, videos, calls of tools.

Format: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

MAX_PARTS = 1024
MAX_TOOLS = 128


def at_most(length: int) -> BeforeValidator:
    """Refuse a longer list before its items are looked at: each wrong one is an error object."""

    def check(value: Any) -> Any:
        if isinstance(value, list) and len(value) > length:
            raise ValueError(f"at most {length} items are allowed, not {len(value)}")
        return value

    return BeforeValidator(check)


def _as_parts(value: Any) -> Any:
    if value is None:
        return []
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class Part(BaseModel):
    """A part of a message; which of the other fields counts depends on `type`."""

    model_config = ConfigDict(extra="ignore")

    type: Literal[
        "text", "input_text", "refusal", "image_url", "input_image", "video_url", "input_video"
    ]
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    video_url: Any = None
    b64_json: str | None = None
    image: str | None = None
    video: str | None = None
    data: str | None = None

    @property
    def words(self) -> str:
        """The text of a part that has one."""
        return self.text or self.refusal or ""

    @property
    def source(self) -> str | None:
        """The URL, data URL or base64 of an image or a video; None for text."""
        if self.type in ("text", "input_text", "refusal"):
            return None
        linked = self.image_url if "image" in self.type else self.video_url
        if isinstance(linked, dict):
            linked = linked.get("url")
        own = self.image if "image" in self.type else self.video
        found = linked or self.b64_json or own or self.data
        return found if isinstance(found, str) else ""

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        if self.source is None:
            if self.text is None and self.refusal is None:
                raise ValueError(f"a part of type {self.type} needs text")
        elif not self.source:
            raise ValueError(
                f"a part of type {self.type} needs a URL, a data URL or base64 in "
                + ("image_url" if "image" in self.type else "video_url")
            )
        return self


class FunctionCall(BaseModel):
    """A call as an assistant's turn of the history has it."""

    name: str
    arguments: str = ""


class AssistantToolCall(BaseModel):
    """A call of the history."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(BaseModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[
        list[Part],
        Field(fail_fast=True),
        at_most(MAX_PARTS),
        BeforeValidator(_as_parts),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "object"}},
                    {"type": "null"},
                ]
            }
        ),
    ] = []
    name: str | None = None
    tool_calls: (
        Annotated[list[AssistantToolCall], Field(fail_fast=True), at_most(MAX_TOOLS)] | None
    ) = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _is_a_turn(self) -> Self:
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a message of role tool needs tool_call_id")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only a message of role assistant has tool_calls")
        if not self.content and not self.tool_calls and self.role != "assistant":
            raise ValueError(f"a message of role {self.role} needs content")
        return self
