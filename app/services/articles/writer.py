"""Articles in three steps, outline, content and style, as a PocketFlow flow (C18).

Each node tells what it has done through the shared store's queue, and yields neutral drafts, which
the endpoint puts into its wire form:

    outline   {"sections"}
    content   {"section", "completed_sections", "total_sections", "text"}  once a section
    style     a piece of the final article
    complete  {"final_article"}  terminal

Shared store: topic, sse_queue, sections, draft, final_article.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pocketflow import (  # type: ignore[import-untyped, unused-ignore]
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchNode,
)

from app.core.errors import (
    AppError,
    EngineUnavailable,
    GenerationFailed,
    Overloaded,
    Unsupported,
)
from app.engine.base import Engine, require_engine
from app.services.articles.code_fence import CodeFenceStripper
from app.services.articles.outline import OUTLINE_SCHEMA, SECTIONS, read_outline
from app.services.articles.prompts import outline_prompt, section_prompt, style_prompt
from app.services.call_llm import call_llm, llm_request
from app.stream.event import Draft

OUTLINE_ATTEMPTS = 3
OUTLINE_TOKENS = 256
# About 100 words in the languages that need most tokens for a word.
SECTION_TOKENS = 320
STYLE_TOKENS = 1536
OUTLINE_TEMPERATURE = 0.4

# An engine that is full says when to come back; a job has the time.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
LONGEST_PAUSE_S = 30.0

HINT = (
    "Articles need a language model: set ENGINE_URL to a server that has one, or MODEL_REPO_ID / "
    "V4_MODEL_ID to a model on this machine."
)
# Ways in which an engine says that it cannot be held to the schema; it may still write YAML.
_NO_SCHEMA = frozenset(
    ("unsupported", "no_grammar", "unsupported_schema", "schema_too_long", "budget_too_small",
     "upstream_rejected")
)  # fmt: skip

Queue = asyncio.Queue[Draft | Exception]
Store = dict[str, Any]


class Ask(Protocol):
    """`call_llm` on the writer's engine, in its turn."""

    async def __call__(self, prompt: str, *, max_tokens: int, **options: Any) -> str: ...


class Outline(AsyncNode):  # type: ignore[misc, unused-ignore]
    """Have three titles planned; an answer that holds none is asked for again."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(max_retries=OUTLINE_ATTEMPTS)
        # PocketFlow runs a copy of the node, so these are of one run.
        self.ask = ask
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
        """Keep the titles and tell them."""
        if isinstance(exec_res, AppError):
            raise exec_res
        shared["sections"] = exec_res
        shared["sse_queue"].put_nowait(Draft("outline", {"sections": exec_res}))

    async def _answer(self, prompt: str) -> str:
        ask = partial(self.ask, prompt, max_tokens=OUTLINE_TOKENS, temperature=OUTLINE_TEMPERATURE)
        if self.schema is not None:
            try:
                return await ask(json_schema=self.schema)
            except Unsupported as error:
                if error.code not in _NO_SCHEMA:
                    raise
                self.schema = None
        return await ask()


@dataclass(slots=True)
class Sections:
    """The sections of one article while they are being written."""

    topic: str
    titles: list[str]
    queue: Queue
    completed: int = 0


class Content(AsyncParallelBatchNode):  # type: ignore[misc, unused-ignore]
    """Write the sections side by side."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask

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
        """Write one section and tell it."""
        sections, number = prep_res
        prompt = section_prompt(sections.topic, sections.titles, number)
        text = (await self.ask(prompt, max_tokens=SECTION_TOKENS)).strip()
        sections.completed += 1
        told = {
            "section": sections.titles[number],
            "completed_sections": sections.completed,
            "total_sections": len(sections.titles),
            "text": text,
        }
        sections.queue.put_nowait(Draft("content", told))
        return text

    async def post_async(
        self, shared: Store, prep_res: list[tuple[Sections, int]], exec_res: list[str]
    ) -> None:
        """Put the sections together in the order of the outline."""
        parts = zip(shared["sections"], exec_res, strict=True)
        shared["draft"] = "\n\n".join(f"## {title}\n\n{text}" for title, text in parts)


class Style(AsyncNode):  # type: ignore[misc, unused-ignore]
    """Rewrite the draft, which is told while it is written."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.ask = ask

    async def prep_async(self, shared: Store) -> tuple[str, Queue]:
        """Return the prompt, and where the pieces go."""
        return style_prompt(shared["topic"], shared["draft"]), shared["sse_queue"]

    async def exec_async(self, prep_res: tuple[str, Queue]) -> str:
        """Write the final article."""
        prompt, queue = prep_res
        unwrapped = CodeFenceStripper()
        told: list[str] = []

        def tell(text: str) -> None:
            if text:
                told.append(text)
                queue.put_nowait(Draft("style", text))

        await self.ask(
            prompt, max_tokens=STYLE_TOKENS, on_text=lambda piece: tell(unwrapped.feed(piece))
        )
        tell(unwrapped.finish())
        if not told:
            raise GenerationFailed("the model wrote no article; try again", code="invalid_output")
        return "".join(told)

    async def post_async(self, shared: Store, prep_res: tuple[str, Queue], exec_res: str) -> None:
        """Keep the article and tell that it is complete."""
        shared["final_article"] = exec_res
        told = {"final_article": exec_res}
        shared["sse_queue"].put_nowait(Draft("complete", told, terminal=True))


class ArticleWriter:
    """Writes articles on one engine, with at most `max_calls` calls of it under way at once.

    `flow` runs on a shared store that has `topic` and `sse_queue`, any number of them at once.
    """

    def __init__(
        self, engine: Engine, *, max_calls: int = 1, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        """Begin; `pauses_s`: how long a call waits, at least, before each further try."""
        self._pauses_s = pauses_s
        self._engine = engine
        self._turns = asyncio.Semaphore(max_calls)
        outline = Outline(self._ask)
        _ = outline >> Content(self._ask) >> Style(self._ask)
        self.flow = AsyncFlow(start=outline)

    async def accept(self, topic: str) -> None:
        """Refuse before any work what this engine cannot write; a missing model begins to load.

        Raises:
            EngineUnavailable: it cannot serve now, or is no language model.
        """
        try:
            await require_engine(self._engine)
            # Without the schema: an engine that has no grammar may still write YAML.
            await self._engine.fit(llm_request(outline_prompt(topic), max_tokens=OUTLINE_TOKENS))
        except EngineUnavailable as error:
            raise _with_hint(error) from error
        except Unsupported as error:
            raise _with_hint(EngineUnavailable(error.message)) from error

    async def write(self, topic: str) -> AsyncGenerator[Draft, None]:
        """Yield what the flow tells; closing the generator stops the engine.

        Raises:
            AppError: as the engine does, or `invalid_output` for answers of no use.
        """
        queue: Queue = asyncio.Queue()
        store: Store = {"topic": topic, "sse_queue": queue}
        closed: GeneratorExit | None = None
        failure: Exception | None = None
        async with asyncio.TaskGroup() as group:
            flow = group.create_task(self._run(store, queue))
            try:
                while True:
                    told = await queue.get()
                    if isinstance(told, Exception):
                        failure = told
                        break
                    yield told
                    if told.terminal:
                        break
            except GeneratorExit as leaving:
                # A group that is left by an exception raises a group of exceptions.
                closed = leaving
            finally:
                flow.cancel()
        if closed is not None:
            raise closed
        if failure is not None:
            raise failure

    async def _run(self, store: Store, queue: Queue) -> None:
        """Run the flow; its failure goes the way of everything that it tells."""
        try:
            await self.flow.run_async(store)
        except Exception as failure:
            queue.put_nowait(failure)

    async def _ask(self, prompt: str, *, max_tokens: int, **options: Any) -> str:
        """Ask in turn; an engine that is full is asked again: nobody waits at the other end."""
        for pause_s in self._pauses_s:
            try:
                return await self._ask_once(prompt, max_tokens=max_tokens, **options)
            except Overloaded as full:
                await asyncio.sleep(max(pause_s, min(full.retry_after_s or 0, LONGEST_PAUSE_S)))
        return await self._ask_once(prompt, max_tokens=max_tokens, **options)

    async def _ask_once(self, prompt: str, *, max_tokens: int, **options: Any) -> str:
        async with self._turns:
            return await call_llm(self._engine, prompt, max_tokens=max_tokens, **options)


def _with_hint(error: EngineUnavailable) -> EngineUnavailable:
    """Return the error with how to get a model."""
    reason = error.message.rstrip()
    return error.copy(f"{reason}{'' if reason.endswith('.') else '.'} {HINT}")
