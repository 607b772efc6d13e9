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
FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt.

    `may_be_cut`: the content may lose its end, at a sentence boundary, to fit the context.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    may_be_cut: bool = False


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

    `json_schema`: the output is one compact JSON object of that schema, complete within
    `max_tokens`. `document` and `style` serve engines that work without a prompt.
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
    images: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Status:
    """Where the request stands. `position`: 1 is next in the queue. `progress`: 0 to 1."""

    stage: Stage
    position: int | None = None
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the output, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a generation. Token counts are the engine's own units (`unit` of the engine)."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


Item = Status | Text | Finish


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

    async def aclose(self) -> None:
        """Stop what runs and free what is held."""
        ...
