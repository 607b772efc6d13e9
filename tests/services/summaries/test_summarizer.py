"""The summarizer's parts that need no server."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.summaries import SummaryRequest
from app.api.v4.wire import text_events
from app.core.errors import InvalidInput, ScrapeFailed
from app.engine.base import Document
from app.engine.text.compact_json import CompactJson
from app.services.summaries.patches import SummaryPatches
from app.services.summaries.prompts import known_style
from app.services.summaries.sources import Input, Source, check_input, read_source
from app.stream.event import Draft
from tests.engines import ARTICLE, SUMMARY, SUMMARY_TEXT

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
OBJECTS = st.fixed_dictionaries(
    {
        "title": TEXT, "main_summary": TEXT, "key_points": st.lists(TEXT, min_size=3, max_size=5),
        "category": TEXT, "sentiment": st.sampled_from(["positive", "negative", "neutral"]),
        "read_time_min": st.integers(1, 999),
    }
)  # fmt: skip


@given(OBJECTS, st.integers(1, 9), st.sampled_from([None, 2]), st.booleans())
def test_compacting_changes_no_value(
    value: dict[str, object], size: int, indent: int | None, ascii_only: bool
) -> None:
    """Contract 1: compact, no line break in any piece, the same document."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    compact = CompactJson()
    out = [compact.feed(text[i : i + size]) for i in range(0, len(text), size)]
    assert json.loads("".join(out)) == value
    assert all(len(piece.splitlines()) <= 1 for piece in out)
    assert "".join(out) == CompactJson().feed("".join(out))


@given(OBJECTS, st.integers(1, 30))
def test_patches_rebuild_the_object_however_it_is_cut(value: dict[str, object], size: int) -> None:
    """C11, contract 1: each field once it is complete, points one by one, in any cut."""
    text = json.dumps(value, separators=(",", ":"))
    patches = SummaryPatches()
    deltas = []
    for number, start in enumerate(range(0, len(text), size)):
        deltas += patches.feed(text[start : start + size], number * 1.0)
    deltas += patches.complete(value)
    rebuilt: dict[str, object] = {"key_points": []}
    for delta, state in deltas:
        if delta["op"] == "append":
            rebuilt["key_points"] = [*rebuilt["key_points"], delta["value"]]  # type: ignore[misc]
        else:
            rebuilt[delta["field"]] = delta["value"]
        assert list(state) == list(SUMMARY)
        assert state[delta["field"]] == rebuilt[delta["field"]]
    assert rebuilt == value
    sets = [d["field"] for d, _ in deltas if d["op"] == "set" and d["field"] != "main_summary"]
    assert len(sets) == len(set(sets))


def test_the_summary_is_shown_while_it_is_typed() -> None:
    """Contract 1: `set` events with the text so far, at most 10 times a second."""
    patches = SummaryPatches()
    typed = [
        delta["value"]
        for tenth, char in enumerate(SUMMARY_TEXT)
        for delta, _ in patches.feed(char, tenth * 0.02)
        if delta["field"] == "main_summary"
    ]
    assert typed[-1] == SUMMARY["main_summary"]
    assert all(later.startswith(earlier) for earlier, later in pairwise(typed))
    length_s = len(str(SUMMARY["main_summary"])) * 0.02
    assert 3 < len(typed) <= length_s * 10 + 2


def test_a_number_is_not_taken_before_it_is_whole() -> None:
    patches = SummaryPatches()
    patches.feed(SUMMARY_TEXT.replace('"read_time_min":1}', '"read_time_min":1'), 0.0)
    assert patches.state["read_time_min"] is None
    patches.feed("2}", 1.0)
    assert patches.state["read_time_min"] == 12


@pytest.mark.parametrize(
    ("url", "text", "expected"),
    [
        ("https://a.example/x", None, Input(url="https://a.example/x")),
        (None, " http://a.example/x\n", Input(url="http://a.example/x")),
        (None, ARTICLE, Input(text=ARTICLE)),
        ("  https://a.example/x ", "", Input(url="https://a.example/x")),
        ("https://a.example/localhost", None, Input(url="https://a.example/localhost")),
        ("https://x.photography/", None, Input(url="https://x.photography/")),
        ("https://münchen.example/", None, Input(url="https://münchen.example/")),
    ],
)
def test_an_input_is_recognised(url: str | None, text: str | None, expected: Input) -> None:
    """Contract 1, A13; pitfall: the same rules refused .photography and IDN hosts."""
    assert check_input(url, text) == expected


@pytest.mark.parametrize("text", [None, "", "short", "a" + " " * 60, "x" * 50_001])
def test_an_input_out_of_its_limits_names_the_limit(text: str | None) -> None:
    """Contract 1."""
    with pytest.raises(InvalidInput):
        check_input(None, text)


@pytest.mark.parametrize("chars", [50, 50_000])
def test_the_limits_themselves_are_allowed(chars: int) -> None:
    """Contract 1."""
    assert check_input(None, "x" * chars).text == "x" * chars


@pytest.mark.parametrize(
    ("style", "known"),
    [("skimmer", "skimmer"), ("ELI5", "eli5"), (None, "executive"), ("haiku", "executive")],
)
def test_styles(style: str | None, known: str) -> None:
    """S0.21, C14."""
    assert known_style(style) == known


class OnePage:
    def __init__(self, page: dict[str, object]) -> None:
        self.page = page

    async def scrape_url(self, url: str) -> dict[str, object]:
        return self.page


async def test_unknown_facts_are_left_out() -> None:
    """A5, S0.18."""
    source = await read_source(
        OnePage({"content": ARTICLE, "author": None}),
        Input(url="http://a.example/"),
        use_cache=True,
    )
    assert None not in source.facts.values()
    assert "author" not in source.facts
    assert source.facts["extracted_text_length"] == len(ARTICLE)


async def test_an_empty_page_is_no_article() -> None:
    with pytest.raises(ScrapeFailed) as failed:
        await read_source(
            OnePage({"content": " \n"}), Input(url="http://a.example/"), use_cache=True
        )
    assert failed.value.code == "no_article"


async def test_the_longest_stream_fits_the_log() -> None:
    """Contract 3: 2,048 events a session, and a summary may have 2,048 tokens."""
    request = SummaryRequest(given=Input(text=ARTICLE), max_tokens=2048)
    source = Source(Document(text=ARTICLE), {}, 0.0)

    async def drafts() -> AsyncGenerator[Draft, None]:
        yield Draft("engine", {"engine": "e", "model": "m"})
        for number in range(2048):
            yield Draft("text", f"{number},")
        yield Draft("finish", {"summary": {}, "usage": {}, "queue_ms": 0}, terminal=True)

    events = [event async for event in text_events(request, source, drafts())]
    assert len(events) < 1800
    pieces = [str(event.data) for event in events if event.kind == ""]
    assert "".join(pieces) == "".join(f"{number}," for number in range(2048))
