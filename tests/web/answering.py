"""An engine that answers by what it is asked: a summary, an outline, a section, an article."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from app.engine.base import GenerateRequest, Item
from app.services.articles.prompts import OUTLINE_TASK, STYLE_TASK
from tests.engines import SUMMARY_TEXT, Gate, ScriptedEngine, pieces_of

Script = Sequence[str | Item | Gate | Exception]

SECTIONS = ["Why boats went electric", "What the pier needs", "What comes next"]
SECTION_TEXT = "Each boat charges at the pier, and the noise is gone."
STYLED = (
    "# Quiet boats\n\n"
    "A ferry can be *silent*.\n\n"
    f"## {SECTIONS[0]}\n\nFuel was **dear**, and batteries were not.\n\n"
    f"## {SECTIONS[1]}\n\n- a cable\n- a transformer\n\n"
    f"## {SECTIONS[2]}\n\nRead the [timetable](https://example.org/ferry)."
)
ANSWER = (
    "Here is **bold** and `code`.\n\n"
    "1. first\n2. second\n\n"
    '```python\nprint("hello")\n```\n\n'
    "| boat | seats |\n|---|---|\n| Tern | 80 |\n\n"
    "The end."
)


class AnsweringEngine(ScriptedEngine):
    """Each kind of answer has a script of its own, which a test may replace."""

    def __init__(
        self,
        *,
        summary: Script | None = None,
        chat: Script | None = None,
        outline: Script | None = None,
        section: Script | None = None,
        article: Script | None = None,
        out_of_order: str | None = None,
    ) -> None:
        super().__init__([], out_of_order=out_of_order)
        self.summary: Script = summary or pieces_of(SUMMARY_TEXT)
        self.chat: Script = chat or pieces_of(ANSWER)
        self.outline: Script = outline or pieces_of(json.dumps({"sections": SECTIONS}), 12)
        self.section: Script = section or [SECTION_TEXT]
        self.article: Script = article or pieces_of(STYLED)

    def script_for(self, request: GenerateRequest) -> Script:
        """Return what answers a request."""
        prompt = request.messages[-1].content
        if prompt.startswith(OUTLINE_TASK):
            return self.outline
        if prompt.startswith(STYLE_TASK):
            return self.article
        if prompt.startswith("An article about the topic"):
            return self.section
        return self.chat if request.json_schema is None else self.summary

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        # The base looks its script up before it first waits, so that two requests cannot mix.
        self.script = list(self.script_for(request))
        async with aclosing(super().generate(request)) as items:
            async for item in items:
                yield item


def held(text: str, gate: Gate, *, after: int) -> list[str | Gate]:
    """Return a text with a gate at a character; what is before it comes at once."""
    return [text[:after], gate, *pieces_of(text[after:])]
