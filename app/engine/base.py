"""The one protocol behind which every model stands.

An engine knows nothing of HTTP, sessions or settings. It takes a frozen request and yields
`Status` and `Text` items, and exactly one `Finish`, last.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from app.core.errors import EngineUnavailable

Stage = Literal["queued", "scraping", "loading", "reading", "writing"]
FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]
Role = Literal["system", "user", "assistant", "tool"]

# More of a content that may be cut is given to no engine (S0.18).
MAX_CONTENT_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a model made. `arguments`: the text of a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model may call. `parameters`: the JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt.

    `may_be_cut`: the content may lose its end, at a sentence boundary, to fit the context; `after`
    follows it in the same turn and is never cut.
    `parts`: where images stand among the words, a number being the index of an image of the
    request; empty when the content is all there is. `tool_calls` belong to an assistant's turn,
    `tool_call_id` and `name` to a tool's.
    """

    role: Role
    content: str
    may_be_cut: bool = False
    after: str = ""
    parts: tuple[str | int, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a request is about, for engines that read the text itself and not a prompt."""

    text: str
    title: str | None = None
    site_name: str | None = None
    section: str | None = None
    tags: tuple[str, ...] = ()
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """Everything an engine may need to know; an engine honours a field or raises `Unsupported`.

    `json_schema`: the output is one compact JSON value of that schema, complete within
    `max_tokens`. `prose`: its members that hold sentences, or lists of points that must not
    repeat. `document` and `style` serve engines that work without a prompt. `images`: encoded
    files, which `Message.parts` places among the words. `top_logprobs`: every token comes with its
    own log probability and that many alternatives; None for no logprobs at all. `tools` may be
    called; with `tool_choice` "required" the output is a call and nothing else. `thinking` False
    keeps a thinking model from thinking; None leaves it to the model.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 0.2
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    document: Document | None = None
    style: str = "executive"
    prose: tuple[str, ...] = ()
    images: tuple[bytes, ...] = field(default=(), repr=False)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["auto", "required"] = "auto"
    parallel_tool_calls: bool = True
    thinking: bool | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A request that an engine can take.

    `dropped`: how many of the oldest messages it lost to fit. The counts are None where the engine
    cannot know them.
    """

    request: GenerateRequest
    dropped: int = 0
    prompt_tokens: int | None = None
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """Where the request stands. `position`: 1 is next in the queue. `progress`: 0 to 1."""

    stage: Stage
    position: int | None = None
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the output, and what the model thought of it: natural logarithms.

    `top`: the likeliest tokens of that place as (text, bytes, logprob), likeliest first.
    """

    text: str
    data: bytes
    logprob: float
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the output, never empty. `logprobs`: its tokens, when the request wants them."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what a model thinks before it answers; no part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPart:
    """A piece of a call. The first of an `index` has `id` and `name`; `arguments` join to JSON."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a generation. An engine without tokens counts in units of its own."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


Item = Status | Text | Reasoning | ToolCallPart | Finish


class Engine(Protocol):
    """A model behind one method.

    `name`: the kind of engine, as clients see it ("local", "extractive"). `model`: which model it
    runs.
    """

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> str: ...

    def facts(self) -> dict[str, str]:
        """Return what else clients should know of the model, such as its weight format and why."""
        ...

    def info(self) -> dict[str, Any]:
        """Return what `/health` shows of the model, without asking or loading anything.

        Keys: model_id and loaded; and what else the engine knows, such as error.
        """
        ...

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        """Check all that can be checked before any work, and make the prompt fit the context.

        `may_drop`: the oldest messages that are no system messages may be left out.

        Raises:
            Unsupported: `context_length_exceeded`, or a field that cannot be honoured.
            EngineUnavailable: the engine cannot serve now.
        """
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield the output; closing the generator cancels the work.

        Raises:
            EngineUnavailable: before the first item, when the engine cannot serve now. An engine
                may also raise it after `Status` items, but never after a `Text`.
            Unsupported: before the first item, for a field it cannot honour.
            GenerationFailed: at any time later.
        """
        ...

    async def unavailable(self) -> EngineUnavailable | None:
        """Return why the engine could not serve now, or None; never loads anything."""
        ...

    async def prepare(self) -> None:
        """Begin what must be done before the engine can serve, such as a download; do not wait."""
        ...

    async def load(self) -> None:
        """Load what the first request would have to wait for; return at once if that is nothing.

        Raises:
            EngineUnavailable: it cannot be loaded now.
        """
        ...

    async def maintain(self) -> None:
        """Do what the engine needs beside the requests, until cancelled or nothing is left."""
        ...

    async def aclose(self) -> None:
        """Stop what runs and free what is held."""
        ...


async def require_engine(engine: Engine) -> None:
    """Refuse before any work when an engine cannot serve; a missing model begins to load.

    Raises:
        EngineUnavailable: it cannot serve now.
    """
    if problem := await engine.unavailable():
        await engine.prepare()
        raise await engine.unavailable() or problem
