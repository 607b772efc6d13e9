"""The engine without a model: valid, honest, bounded and quick on any text (contract 1, C19)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.errors import Unsupported
from app.engine.base import Document, Engine, Finish, GenerateRequest, Item, Status, Text
from app.engine.extractive.engine import ExtractiveEngine
from app.engine.extractive.passages import clean
from app.engine.text.sentences import count_words, read_time_min, split_sentences
from app.schemas.summary_v4 import StructuredSummary, summary_schema
from tests.engine.extractive.articles import ARTICLES, CHINESE, ENGLISH

STYLES = ["skimmer", "executive", "eli5"]


def ask(text: str, *, style: str = "executive", max_tokens: int = 1024, **about: Any) -> Any:
    return GenerateRequest(
        messages=(),
        max_tokens=max_tokens,
        json_schema=summary_schema(read_time_min(text)),
        document=Document(text=text, **about),
        style=style,
    )


async def answer(request: GenerateRequest) -> list[Item]:
    async with asyncio.timeout(20):
        return [item async for item in ExtractiveEngine().generate(request)]


def text_of(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, Text))


async def summary(text: str, **options: Any) -> StructuredSummary:
    return StructuredSummary.model_validate_json(text_of(await answer(ask(text, **options))))


def flat(text: str) -> str:
    return "".join(clean(text).split())


async def test_status_comes_first_then_text_then_one_finish() -> None:
    """The protocol of app/engine/base.py; usage is in pieces (C8)."""
    items = await answer(ask(ENGLISH))
    assert items[:2] == [Status("reading"), Status("writing")]
    pieces = [item for item in items if isinstance(item, Text)]
    assert items[2:-1] == pieces
    assert all(piece.text for piece in pieces)
    assert items[-1] == Finish("stop", count_words(ENGLISH), len(pieces))
    assert len(pieces) > 50


async def test_the_object_is_compact_and_in_the_order_of_the_schema() -> None:
    """Contract 1: keys in order, no white space outside strings."""
    text = text_of(await answer(ask(ENGLISH)))
    value = json.loads(text)
    assert list(value) == list(StructuredSummary.model_fields)
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert value["read_time_min"] == read_time_min(ENGLISH)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("language", sorted(ARTICLES))
async def test_every_sentence_is_the_articles_own(language: str, style: str) -> None:
    """C19: the extractive engine quotes; it neither invents nor drops words inside a quotation."""
    article = ARTICLES[language]
    told = await summary(article, style=style)
    source = flat(article)
    for quoted in [*split_sentences(told.main_summary, language), *told.key_points]:
        assert flat(quoted.removesuffix("…")) in source
    assert len({point.casefold() for point in told.key_points}) == len(told.key_points)
    assert told.title


@pytest.mark.parametrize("style", STYLES)
async def test_key_points_do_not_repeat_the_summary_of_a_long_enough_article(style: str) -> None:
    told = await summary(ENGLISH, style=style)
    assert not [point for point in told.key_points if point in told.main_summary]


async def test_page_furniture_is_not_quoted() -> None:
    for style in STYLES:
        assert "Subscribe" not in text_of(await answer(ask(ENGLISH, style=style)))


async def test_a_dateline_and_a_bullet_are_not_part_of_a_sentence() -> None:
    report = ENGLISH.replace("The coastal town", "HARBOUR CITY (AP) — The coastal town")
    report = report.replace("The station uses", "• The station uses")
    text = text_of(await answer(ask(report)))
    assert "(AP)" not in text
    assert "•" not in text


async def test_the_three_styles_tell_it_differently() -> None:
    """C14: skimmer is short, executive has figures, eli5 is plain."""
    skimmer, executive, eli5 = [await summary(ENGLISH, style=style) for style in STYLES]
    assert len({skimmer.main_summary, executive.main_summary, eli5.main_summary}) == 3
    assert len(skimmer.key_points) == 3
    assert len(executive.key_points) == 5
    assert len(skimmer.main_summary) < len(executive.main_summary)
    assert "$48 million" in executive.main_summary + " ".join(executive.key_points)

    def digits(told: StructuredSummary) -> int:
        return sum(map(str.isdigit, told.main_summary + " ".join(told.key_points)))

    def sentence_words(told: StructuredSummary) -> float:
        sentences = [*split_sentences(told.main_summary, "en"), *told.key_points]
        return sum(map(count_words, sentences)) / len(sentences)

    assert digits(eli5) < digits(executive)
    assert sentence_words(eli5) < sentence_words(executive)


async def test_an_unknown_style_is_executive() -> None:
    """S0.21, C14."""
    assert await summary(ENGLISH, style="pirate") == await summary(ENGLISH, style="executive")


async def test_the_same_request_gives_the_same_answer() -> None:
    assert await answer(ask(ENGLISH)) == await answer(ask(ENGLISH))


@pytest.mark.parametrize("max_tokens", [128, 160, 256, 2048])
@pytest.mark.parametrize("language", sorted(ARTICLES))
async def test_the_object_is_whole_within_any_budget(language: str, max_tokens: int) -> None:
    """Contract 1: always valid, also when max_tokens runs out (S0.10)."""
    items = await answer(ask(ARTICLES[language] * 3, max_tokens=max_tokens))
    StructuredSummary.model_validate_json(text_of(items))
    finish = items[-1]
    assert isinstance(finish, Finish)
    assert finish.completion_tokens <= max_tokens


async def test_the_bounds_are_the_schemas_own() -> None:
    schema = summary_schema(7)
    schema["properties"]["title"]["maxLength"] = 20
    schema["properties"]["main_summary"]["maxLength"] = 60
    schema["properties"]["key_points"]["minItems"] = 2
    schema["properties"]["key_points"]["maxItems"] = 2
    schema["properties"]["key_points"]["items"]["maxLength"] = 6
    schema["properties"]["category"]["maxLength"] = 5
    request = GenerateRequest(
        messages=(), max_tokens=1024, json_schema=schema, document=Document(text=ENGLISH)
    )
    value = json.loads(text_of(await answer(request)))
    assert len(value["title"]) <= 20
    assert len(value["main_summary"]) <= 60
    assert len(value["key_points"]) == 2
    assert all(len(point) <= 6 for point in value["key_points"])
    assert len(value["category"]) <= 5
    assert value["read_time_min"] == 7


async def test_without_a_schema_the_answer_is_prose_in_article_order() -> None:
    """Contract 1, V3: a plain summary within max_tokens."""
    request = GenerateRequest(messages=(), max_tokens=256, document=Document(text=ENGLISH))
    items = await answer(request)
    sentences = split_sentences(text_of(items), "en")
    assert 2 <= len(sentences) <= 6
    places = [" ".join(ENGLISH.split()).index(sentence) for sentence in sentences]
    assert places == sorted(places)
    short = await answer(
        GenerateRequest(messages=(), max_tokens=8, document=Document(text=ENGLISH))
    )
    assert isinstance(short[-1], Finish)
    assert short[-1].completion_tokens <= 8
    assert text_of(short).endswith("…")


@pytest.mark.parametrize(
    "change",
    [
        {"document": None},
        {"images": (b"png",)},
        {"stop": ("END",)},
        {"json_schema": {"type": "object", "properties": {"nik": {"type": "string"}}}},
    ],
)
async def test_what_it_cannot_do_is_refused_before_the_first_item(change: dict[str, Any]) -> None:
    fields = {"messages": (), "max_tokens": 256, "document": Document(text=ENGLISH), **change}
    with pytest.raises(Unsupported) as caught:
        await anext(ExtractiveEngine().generate(GenerateRequest(**fields)))
    assert caught.value.code == "unsupported"


@pytest.mark.parametrize(
    ("title", "site", "plain"),
    [
        ("Tidal power arrives - The Example", "The Example", "Tidal power arrives"),
        ("Tidal power arrives | Example News", None, "Tidal power arrives"),
        ("Example | Tidal power arrives", "example", "Tidal power arrives"),
        ("Arsenal 2 - Chelsea 1", None, "Arsenal 2 - Chelsea 1"),
        ("Tidal power - what it means for you", None, "Tidal power - what it means for you"),
    ],
)
async def test_the_title_is_the_pages_without_its_site(
    title: str, site: str | None, plain: str
) -> None:
    assert (await summary(ENGLISH, title=title, site_name=site)).title == plain


async def test_without_a_title_the_headline_or_the_lead_stands_in() -> None:
    assert (await summary(ENGLISH)).title == "Harbour City opens its first tidal power station"
    headless = ENGLISH.partition("\n")[2]
    assert (await summary(headless)).title.startswith("The coastal town of Harbour City")


@pytest.mark.parametrize(
    ("about", "category"),
    [
        ({"section": "Olahraga"}, "Sports"),
        ({"section": "Gardening"}, "Gardening"),
        ({"section": "news", "tags": ("coast", "climate")}, "Environment"),
    ],
)
async def test_the_category_is_the_publishers_before_it_is_ours(
    about: dict[str, Any], category: str
) -> None:
    assert (await summary(ENGLISH, **about)).category == category


async def test_the_category_of_unlabelled_text_comes_from_its_words() -> None:
    shares = "Shares fell after the bank reported lower profit. Investors sold the stock quickly. "
    saham = "Harga saham bank itu turun pada hari Senin. Para investor khawatir laba akan turun."
    assert (await summary(shares)).category == "Business"
    assert (await summary(saham)).category == "Business"
    assert (await summary("A very quiet afternoon passed by without a sound in it.")).category == (
        "General"
    )


async def test_the_tone_is_read_in_english_and_neutral_elsewhere() -> None:
    good = "The team won a wonderful victory and the happy fans love it. It is a great success. "
    bad = "The terrible attack killed and injured many people. It was a horrible tragedy. "
    assert (await summary(good)).sentiment == "positive"
    assert (await summary(bad)).sentiment == "negative"
    assert (await summary(bad, language="de")).sentiment == "neutral"
    assert (await summary(CHINESE)).sentiment == "neutral"
    assert (
        await summary("The meeting is on Monday. It is in the town hall of the city.")
    ).sentiment == ("neutral")


HOSTILE = {
    "one short sentence": "The mayor opened the bridge on a very cold Monday morning",
    "clauses": "The mayor, who was late, opened the bridge; the crowd, wet and cold, went home",
    "no spaces": "a" * 50_000,
    "Han without stops": "中" * 50_000,
    "Thai without spaces": "ก" * 50_000,
    "one endless sentence": "word " * 10_000,
    "lines": "A line of text.\n" + "\n" * 10_000 + "Another line of text.",
    "the same sentence": "The same sentence comes again and again. " * 2_000,
    "many sentences": " ".join(f"Sentence number {n} says something new{n}." for n in range(1_400)),
    "short lines": "a. b.\n" * 8_300,
    "numbers": "1. " * 16_000,
    "emoji": "👨‍👩‍👧 🇩🇪 👍🏽 " * 3_000,
    "emoji wall": "🙂" * 50_000,
    "controls": "a\x00b\x1b[31m\u202e reversed \ufeff zero\u200bwidth \x85 next\u2028line " * 500,
    "quotes": '"He said \\"no\\"," she said. ' * 1_000,
    "accents": "e" + "\u0301" * 40_000,
    "capitals": "THE MAYOR OPENED THE BRIDGE. NOBODY CAME TO SEE IT. IT RAINED ALL DAY.",
    "blank": " \n\u200b\x00 ",
    "one letter": "x",
    "full stops": ". . .",
    "single letters": "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 900,
    "mixed scripts": "中a" * 20_000,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
async def test_hostile_text_gives_a_valid_object_in_bounded_time(name: str) -> None:
    """Contract 1: 50 to 50,000 characters of anything; the object is always valid."""
    await summary(ENGLISH)
    for style in STYLES:
        # The time of this process: other programs may keep the machine busy.
        start = time.process_time()
        items = await answer(ask(HOSTILE[name], style=style, max_tokens=128))
        seconds = time.process_time() - start
        StructuredSummary.model_validate_json(text_of(items))
        assert not set("\n\r\u2028\u2029\x85\u202e") & set(text_of(items))
        assert sum(isinstance(item, Text) for item in items) <= 128
        # Measured under 0.6 s; the rest is for a slow machine.
        assert seconds < 4.0


@pytest.mark.parametrize("name", ["one short sentence", "clauses"])
async def test_a_single_sentence_still_gives_three_different_points(name: str) -> None:
    told = await summary(HOSTILE[name])
    assert len(set(told.key_points)) == 3
    assert all(flat(point) in flat(HOSTILE[name]) for point in told.key_points)


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(min_size=1, max_size=600),
    style=st.sampled_from([*STYLES, "other"]),
    max_tokens=st.integers(128, 2048),
    title=st.none() | st.text(max_size=200),
    section=st.none() | st.text(max_size=60),
    language=st.none() | st.sampled_from(["en", "de", "zh", "th", "hi", "", "x-y"]),
)
async def test_any_text_gives_a_valid_object_within_the_budget(
    text: str,
    style: str,
    max_tokens: int,
    title: str | None,
    section: str | None,
    language: str | None,
) -> None:
    items = await answer(
        ask(
            text,
            style=style,
            max_tokens=max_tokens,
            title=title,
            section=section,
            language=language,
        )
    )
    StructuredSummary.model_validate_json(text_of(items))
    pieces = [item.text for item in items if isinstance(item, Text)]
    assert len(pieces) <= max_tokens
    assert all(pieces)
    "".join(pieces).encode()


async def test_the_event_loop_keeps_turning_while_it_works() -> None:
    """Pitfall: the model was iterated on the event loop and health checks timed out."""
    await summary(ENGLISH)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.timeout(20):
        ticking = asyncio.ensure_future(count())
        await answer(ask(HOSTILE["many sentences"]))
        ticking.cancel()
    assert turns > 20


async def test_leaving_early_is_harmless() -> None:
    stream = ExtractiveEngine().generate(ask(ENGLISH))
    async for item in stream:
        if isinstance(item, Text):
            break
    await stream.aclose()


async def test_it_is_always_available_and_fits_the_protocol() -> None:
    engine: Engine = ExtractiveEngine()
    assert (engine.name, engine.model) == ("extractive", "textrank")
    assert await engine.unavailable() is None
    await engine.aclose()


def test_importing_it_loads_no_numeric_library() -> None:
    """Rooms: `import app.main` stays under a second."""
    code = (
        "import sys, app.engine.extractive.engine\n"
        "heavy = {'numpy', 'scipy', 'pysbd', 'vaderSentiment', 'torch', 'fastapi'}\n"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=30, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
