"""The body of OpenAI's chat completions, and what this server adds to it.

Format: https://platform.openai.com/docs/api-reference/chat/create. A field that is known there and
cannot be honoured here is refused by its name; a field that is known nowhere is ignored.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from app.schemas.chat_messages import MAX_TOOLS, ChatMessage, at_most
from app.schemas.summary_v4 import SESSION_ID_PATTERN

NAME_PATTERN = r"^[A-Za-z0-9_.-]{1,64}$"
MAX_MESSAGES = 4096
MAX_STOPS = 4

# Known fields that would change the answer, and what to do instead.
_REFUSED = {
    "functions": "send the functions as tools",
    "function_call": "use tool_choice",
    "logit_bias": "leave it out; no token can be favoured",
    "audio": "leave it out; the answer is text",
    "prediction": "leave it out",
    "web_search_options": "leave it out; nothing is searched",
    "store": "leave it out; a session is kept for a while, and then forgotten",
    "moderation": "leave it out",
}
# Known fields that are fine as long as they ask for what happens anyway.
_ONLY = {
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "verbosity": ("medium",),
}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else ([] if value is None else value)


class FunctionSpec(BaseModel):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolSpec(BaseModel):
    """A tool; only functions are known."""

    type: Literal["function"] = "function"
    function: FunctionSpec


class JsonSchemaSpec(BaseModel):
    """The schema of `response_format`."""

    model_config = ConfigDict(populate_by_name=True)

    name: str = "output"
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What the answer must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaSpec | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and (
            self.json_schema is None or self.json_schema.schema_ is None
        ):
            raise ValueError("a response_format of type json_schema needs json_schema.schema")
        return self


class StreamOptions(BaseModel):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`.

    `model` is informational: the server's settings say which model answers (C6).
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "required": ["messages"],
            "examples": [
                {
                    "messages": [{"role": "user", "content": "Say hello in Indonesian."}],
                    "max_tokens": 32,
                    "stream": True,
                }
            ],
        },
    )

    # Empty only for a request that resumes a stream, which needs no more than a session_id.
    messages: Annotated[
        list[ChatMessage],
        Field(max_length=MAX_MESSAGES, fail_fast=True),
        at_most(MAX_MESSAGES),
    ] = []
    model: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]],
        Field(max_length=MAX_STOPS),
        at_most(MAX_STOPS),
        BeforeValidator(_as_list),
    ] = []
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Literal[1] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: (
        Annotated[
            list[ToolSpec],
            Field(max_length=MAX_TOOLS, fail_fast=True),
            at_most(MAX_TOOLS),
        ]
        | None
    ) = None
    tool_choice: Any = Field(default=None, description="none, auto, required or a named function")
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    session_id: Annotated[str, Field(pattern=SESSION_ID_PATTERN)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _is_text_that_can_be_written(cls, value: Any) -> Any:
        return _without_lone_surrogates(value)

    @property
    def thinking(self) -> bool | None:
        """Whether a thinking model is to think; None leaves it to the model."""
        if self.reasoning_effort in ("none", "minimal"):
            return False
        asked = (self.chat_template_kwargs or {}).get("enable_thinking")
        return asked if isinstance(asked, bool) else None

    @property
    def wants_usage(self) -> bool:
        """Whether the answer ends with its usage; one that is not streamed always does."""
        return not self.stream or bool(self.stream_options and self.stream_options.include_usage)

    @property
    def forced_tool(self) -> str | None:
        """The function that `tool_choice` names."""
        return self.tool_choice["function"]["name"] if _names(self.tool_choice) else None

    @field_validator("tool_choice")
    @classmethod
    def _tool_choice_is_known(cls, value: Any, info: ValidationInfo) -> Any:
        if value in (None, "none", "auto"):
            return value
        names = {tool.function.name for tool in info.data.get("tools") or ()}
        if value != "required" and not _names(value):
            raise ValueError("use none, auto, required or {type: function, function: {name}}")
        if not names:
            raise ValueError("tool_choice needs tools")
        if _names(value) and value["function"]["name"] not in names:
            raise ValueError("tool_choice names a function that is not among the tools")
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _top_logprobs_needs_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise ValueError("top_logprobs needs logprobs: true")
        return value

    def refused(self) -> tuple[str, str] | None:
        """Return the first field that is known and cannot be honoured, and what to do instead."""
        given = {name: value for name, value in (self.model_extra or {}).items() if value}
        for name, advice in _REFUSED.items():
            if name in given:
                return name, f"{name} is not supported: {advice}"
        for name, allowed in _ONLY.items():
            if name in given and given[name] not in allowed:
                return name, f"{name} can only be {allowed[0]!r} here"
        if self.response_format and self.response_format.type != "text":
            if self.tools and self.tool_choice != "none":
                return "response_format", "response_format cannot be combined with tools"
            if self.stop:
                return "stop", "stop cannot be combined with a JSON response_format"
        return None


def _without_lone_surrogates(value: Any) -> Any:
    """Replace halves of characters, which JSON can spell and no tokenizer, file or socket takes."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_lone_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {
            _without_lone_surrogates(key): _without_lone_surrogates(item)
            for key, item in value.items()
        }
    return value


def _names(choice: Any) -> bool:
    """Tell whether a tool_choice names a function."""
    if not isinstance(choice, dict) or choice.get("type", "function") != "function":
        return False
    function = choice.get("function")
    return isinstance(function, dict) and bool(
        re.fullmatch(NAME_PATTERN, str(function.get("name", "")))
    )
