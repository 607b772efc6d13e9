"""The three steps of an article, outline, content and style, as nodes of a PocketFlow flow (C18).

A node sends what it has done through the shared store's queue, as neutral drafts:

    outline   {"sections"}
    content   {"section", "completed_sections", "total_sections", "text"}  once a section
    style     a piece of the final article
    complete  {"final_article"}  terminal

Shared store: topic, sse_queue, sections, draft, final_article.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pocketflow import (  # type: ignore[import-untyped, unused-ignore]
    AsyncNode,
    AsyncParallelBatchNode,
)

from app.core.errors import AppError, GenerationFailed, Unsupported
from app.services.articles.code_fence import CodeFenceStripper
from app.services.articles.outline import OUTLINE_SCHEMA, SECTIONS, read_outline
from app.services.articles.prompts import outline_prompt, section_prompt, style_prompt
from app.stream.event import Draft

OUTLINE_ATTEMPTS = 3
OUTLINE_TOKENS = 256
# About 100 words in the languages that need most tokens for a word.
SECTION_TOKENS = 320
STYLE_TOKENS = 1536
OUTLINE_TEMPERATURE = 0.4
# Ways in which an engine says that it cannot be held to the schema; it may still write YAML.
_NO_SCHEMA = frozenset(
    ("unsupported", "no_grammar", "unsupported_schema", "schema_too_long", "budget_too_small",
     "upstream_rejected")
)  # fmt: skip

Queue = asyncio.Queue[Draft | Exception]
Store = dict[str, Any]


class CallModel(Protocol):
    """`call_llm` on the writer's engine, in its turn."""

    async def __call__(self, prompt: str, *, max_tokens: int, **options: Any) -> str: ...


class Outline(AsyncNode):  # type: ignore[misc, unused-ignore]
    """Plan three titles; an answer that holds none is tried again."""

    def __init__(self, call_model: CallModel) -> None:
        super().__init__(max_retries=OUTLINE_ATTEMPTS)
        # PocketFlow runs a copy of the node, so these are of one run.
        self._call_model = call_model
        self.schema: dict[str, Any] | None = OUTLINE_SCHEMA
        self.problem: str | None = None

    async def prep_async(self, shared: Store) -> str:
        """Return the topic."""
        topic: str = shared["topic"]
        return topic

    async def exec_async(self, prep_res: str) -> list[str] | AppError:
        """Return the titles, or the engine's error: whatever is raised here is tried again."""
        try:
            answer = await self._answer(outline_prompt(prep_res, self.problem))
        except AppError as error:
            if error.code != "invalid_output":
                return error
            self.problem = "it was empty"
            raise
        try:
            return read_outline(answer)
        except ValueError as wrong:
            self.problem = str(wrong)
            raise GenerationFailed(
                f"the model made no outline of {SECTIONS} sections; try again, or use a larger "
                "model",
                code="invalid_output",
            ) from wrong

    async def post_async(self, shared: Store, prep_res: str, exec_res: Any) -> None:
        """Keep the titles and send them."""
        if isinstance(exec_res, AppError):
            raise exec_res
        shared["sections"] = exec_res
        shared["sse_queue"].put_nowait(Draft("outline", {"sections": exec_res}))

    async def _answer(self, prompt: str) -> str:
        call = partial(
            self._call_model, prompt, max_tokens=OUTLINE_TOKENS, temperature=OUTLINE_TEMPERATURE
        )
        if self.schema is not None:
            try:
                return await call(json_schema=self.schema)
            except Unsupported as error:
                if error.code not in _NO_SCHEMA:
                    raise
                self.schema = None
        return await call()


@dataclass(slots=True)
class Sections:
    """The sections of one article while they are being written."""

    topic: str
    titles: list[str]
    queue: Queue
    completed: int = 0


class Content(AsyncParallelBatchNode):  # type: ignore[misc, unused-ignore]
    """Write the sections side by side."""

    def __init__(self, call_model: CallModel) -> None:
        super().__init__()
        self._call_model = call_model

    async def prep_async(self, shared: Store) -> list[tuple[Sections, int]]:
        """Return one item for each section."""
        sections = Sections(shared["topic"], shared["sections"], shared["sse_queue"])
        return [(sections, number) for number in range(len(sections.titles))]

    async def _exec(self, items: list[tuple[Sections, int]]) -> list[str]:
        """Run the items; the first failure stops the others, as PocketFlow's own would not."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.exec_async(item)) for item in items]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def exec_async(self, prep_res: tuple[Sections, int]) -> str:
        """Write one section and send it."""
        sections, number = prep_res
        prompt = section_prompt(sections.topic, sections.titles, number)
        text = (await self._call_model(prompt, max_tokens=SECTION_TOKENS)).strip()
        sections.completed += 1
        written = {
            "section": sections.titles[number],
            "completed_sections": sections.completed,
            "total_sections": len(sections.titles),
            "text": text,
        }
        sections.queue.put_nowait(Draft("content", written))
        return text

    async def post_async(
        self, shared: Store, prep_res: list[tuple[Sections, int]], exec_res: list[str]
    ) -> None:
        """Put the sections together in the order of the outline."""
        parts = zip(shared["sections"], exec_res, strict=True)
        shared["draft"] = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts)


class Style(AsyncNode):  # type: ignore[misc, unused-ignore]
    """Rewrite the draft; each piece is sent as it is written."""

    def __init__(self, call_model: CallModel) -> None:
        super().__init__()
        self._call_model = call_model

    async def prep_async(self, shared: Store) -> tuple[str, Queue]:
        """Return the prompt, and where the pieces go."""
        return style_prompt(shared["topic"], shared["draft"]), shared["sse_queue"]

    async def exec_async(self, prep_res: tuple[str, Queue]) -> str:
        """Write the final article."""
        prompt, queue = prep_res
        fence = CodeFenceStripper()
        pieces: list[str] = []

        def send(text: str) -> None:
            if text:
                pieces.append(text)
                queue.put_nowait(Draft("style", text))

        await self._call_model(
            prompt, max_tokens=STYLE_TOKENS, on_text=lambda piece: send(fence.feed(piece))
        )
        send(fence.finish())
        if not pieces:
            raise GenerationFailed("the model wrote no article; try again", code="invalid_output")
        return "".join(pieces)

    async def post_async(self, shared: Store, prep_res: tuple[str, Queue], exec_res: str) -> None:
        """Keep the article and send that it is complete."""
        shared["final_article"] = exec_res
        complete = Draft("complete", {"final_article": exec_res}, terminal=True)
        shared["sse_queue"].put_nowait(complete)
