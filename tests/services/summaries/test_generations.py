"""What the summarizer keeps, falls back to and counts, without a server."""

from __future__ import annotations

from typing import Any

import pytest

from app.core.errors import EngineUnavailable, GenerationFailed
from app.engine.base import Document, Status
from app.services.summaries.sources import Source
from app.services.summaries.summarizer import Summarizer, SummaryTask
from app.stream.event import Draft
from tests.engines import ARTICLE, SUMMARY, SUMMARY_TEXT, ScriptedEngine


def task(**changes: Any) -> SummaryTask:
    return SummaryTask(source=Source(Document(text=ARTICLE), {}, 0.0), max_tokens=1024, **changes)


async def drafts(summarizer: Summarizer, asked: SummaryTask) -> list[Draft]:
    return [draft async for draft in summarizer.summarize(asked)]


async def test_a_finished_summary_is_told_again_and_says_so() -> None:
    """Contract 1: `use_cache` reuses a finished summary."""
    engine = ScriptedEngine()
    summarizer = Summarizer(engine, None)
    first, again = [await drafts(summarizer, task()) for _ in range(2)]
    assert len(engine.requests) == 1
    assert first[0].data == {"engine": "scripted", "model": "script-1"}
    assert again[0].data == {"engine": "scripted", "model": "script-1", "cached": True}
    assert again[1:] == [draft for draft in first[1:] if draft.kind != "status"]
    assert [draft.terminal for draft in again] == [False] * (len(again) - 1) + [True]
    assert again[-1].data["summary"] == SUMMARY  # type: ignore[index]
    await summarizer.aclose()


@pytest.mark.parametrize(
    ("options", "changes"),
    [({"cache_size": 0}, {}), ({"cache_ttl_s": 0.0}, {}), ({}, {"use_cache": False})],
)
async def test_where_nothing_is_kept_it_is_written_anew(
    options: dict[str, Any], changes: dict[str, Any]
) -> None:
    engine = ScriptedEngine()
    summarizer = Summarizer(engine, None, **options)
    for _ in range(2):
        found = await drafts(summarizer, task(**changes))
        assert "cached" not in found[0].data
    assert len(engine.requests) == 2
    await summarizer.aclose()


async def test_an_engine_that_cannot_serve_is_told_only_where_nothing_stands_in() -> None:
    """C19."""
    broken = ScriptedEngine(out_of_order="no model")
    with pytest.raises(EngineUnavailable):
        await Summarizer(broken, None).require_engine()
    await Summarizer(broken, ScriptedEngine()).require_engine()


async def test_the_time_in_the_queue_ends_with_the_first_item_that_is_no_place_in_it() -> None:
    """Contract 1: `queue_ms`; the engine is announced first, and once."""
    engine = ScriptedEngine([Status("queued", position=1), Status("reading"), SUMMARY_TEXT])
    summarizer = Summarizer(engine, None)
    found = await drafts(summarizer, task())
    assert [draft.kind for draft in found] == ["engine", "status", "status", "text", "finish"]
    assert found[1].data == {"stage": "queued", "position": 1}
    assert found[-1].data["queue_ms"] >= 0  # type: ignore[index]
    await summarizer.aclose()


@pytest.mark.parametrize("words", [[], ["  ", "\n"]])
async def test_prose_of_no_words_is_a_failure(words: list[str]) -> None:
    summarizer = Summarizer(ScriptedEngine(words), None)
    with pytest.raises(GenerationFailed) as failure:
        await drafts(summarizer, task(instruction="Write."))
    assert failure.value.code == "invalid_output"
    await summarizer.aclose()
