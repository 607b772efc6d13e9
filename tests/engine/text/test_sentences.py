"""Sentences, words and cuts in any script (C20, contract 1)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.text.cut import cut_at_sentence
from app.engine.text.sentences import (
    CHUNK_MAX_CHARS,
    count_sentences,
    count_words,
    looks_english,
    read_time_min,
    split_sentences,
)
from tests.engine.extractive.articles import ARTICLES, ENGLISH, THAI

EXPECTED = [
    (
        "Mr. Smith paid $3.5 million for Apple Inc. shares on Jan. 5. He left. The U.S. voted.",
        [
            "Mr. Smith paid $3.5 million for Apple Inc. shares on Jan. 5.",
            "He left.",
            "The U.S. voted.",
        ],
    ),
    (
        "Wali Kota Dr. Rahmat membayar Rp. 5 juta. Pasar itu ramai! Siapa yang datang?",
        ["Wali Kota Dr. Rahmat membayar Rp. 5 juta.", "Pasar itu ramai!", "Siapa yang datang?"],
    ),
    (
        "Am 3. Oktober feiert man. Das ist z. B. ein Feiertag. Gut so.",
        ["Am 3. Oktober feiert man.", "Das ist z. B. ein Feiertag.", "Gut so."],
    ),
    (
        "今天下雨了。他说：“我不去。”真的吗？是的",
        ["今天下雨了。", "他说：“我不去。”", "真的吗？", "是的"],
    ),
    (
        "彼は「行きます。」と言った。雨が降った。「はい。」彼女は笑った。",
        ["彼は「行きます。」と言った。", "雨が降った。", "「はい。」", "彼女は笑った。"],
    ),
    (
        "قال إن الاقتصاد ينمو. هل هذا صحيح؟ نعم، بالتأكيد.",
        ["قال إن الاقتصاد ينمو.", "هل هذا صحيح؟", "نعم، بالتأكيد."],
    ),
    (
        "Строительство началось в 2018 г. в городе. Мэр А. С. Иванова рада. Конец.",
        ["Строительство началось в 2018 г. в городе.", "Мэр А. С. Иванова рада.", "Конец."],
    ),
    (
        "Проект обошёлся в 4 млрд. рублей. Голосование в марте.",
        ["Проект обошёлся в 4 млрд. рублей.", "Голосование в марте."],
    ),
    ("भारत ने मैच जीता। कप्तान खुश थे।", ["भारत ने मैच जीता।", "कप्तान खुश थे।"]),
]


@pytest.mark.parametrize(("text", "sentences"), EXPECTED)
def test_sentences_end_where_a_reader_of_the_language_says(text: str, sentences: list[str]) -> None:
    """Pitfall: sentences were counted by ASCII full stops, and Chinese pages refused."""
    assert split_sentences(text) == sentences


def test_line_breaks_are_borders_and_nothing_is_empty() -> None:
    assert split_sentences("A headline\n\n\nOne. Two.\r\n  \n") == ["A headline", "One.", "Two."]
    assert split_sentences("") == []
    assert split_sentences(" \n\t\u2028 ") == []


def test_thai_is_cut_at_spaces_into_bounded_chunks() -> None:
    chunks = split_sentences(THAI)
    assert len(chunks) >= 4
    assert all(len(chunk) <= CHUNK_MAX_CHARS for chunk in chunks)
    assert all(len(chunk) <= CHUNK_MAX_CHARS for chunk in split_sentences("ก" * 5_000))


@pytest.mark.parametrize("language", [None, "en", "de", "xx", "", "en-US", "zh"])
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=400))
def test_no_text_is_lost_repeated_or_reordered(language: str | None, text: str) -> None:
    sentences = split_sentences(text, language)
    assert all(sentences)
    assert "".join("".join(sentences).split()) == "".join(text.split())


def test_words_are_counted_in_scripts_with_and_without_spaces() -> None:
    """C20: two Han or Kana characters a word, five Thai letters a word, Korean by its spaces."""
    assert count_words("One two—three, it's  four !") == 5
    assert count_words("今天下雨") == 2
    assert count_words("สวัสดีครับ") == 2
    assert count_words("안녕하세요 여러분") == 2
    assert count_words("भारत ने मैच जीता।") == 4
    assert count_words("GPT 模型很大") == 3
    assert count_words("… — 🙂") == 0


def test_read_time_is_200_words_a_minute_and_at_least_one() -> None:
    """C20."""
    assert read_time_min("") == 1
    assert read_time_min("word " * 299) == 1
    assert read_time_min("word " * 300) == 2
    assert read_time_min("word " * 2_000) == 10
    assert read_time_min("字" * 4_000) == 10


def test_a_cut_ends_at_the_last_sentence_that_fits() -> None:
    assert cut_at_sentence("One two. Three four five. Six.", 27) == "One two. Three four five."
    assert cut_at_sentence("One two. Three four five. Six.", 25) == "One two. Three four five."
    assert cut_at_sentence("One two. Three four five. Six.", 24) == "One two."
    assert cut_at_sentence("今天下雨了。他说不去。然后离开。", 12) == "今天下雨了。他说不去。"
    assert cut_at_sentence("Short.", 100) == "Short."
    assert cut_at_sentence("Short.", 0) == ""


def test_a_cut_without_a_sentence_border_ends_at_a_word_and_else_within_the_limit() -> None:
    assert cut_at_sentence("one two three four", 12) == "one two"
    assert cut_at_sentence("a" * 50, 12) == "a" * 12
    headline_then_wall = "A headline.\n" + "word " * 2_000
    assert len(cut_at_sentence(headline_then_wall, 4_000)) > 3_900


def test_a_cut_never_splits_an_emoji_or_an_accent() -> None:
    family = "👨\u200d👩\u200d👧"
    assert cut_at_sentence(f"aaa{family}bbb", 5) == "aaa"
    assert cut_at_sentence("aae\u0301b", 3) == "aa"
    assert cut_at_sentence("a🇩🇪b", 2) == "a"
    assert cut_at_sentence("a👍🏽b", 2) == "a"


@settings(max_examples=150, deadline=None)
@given(text=st.text(max_size=300), max_chars=st.integers(0, 300))
def test_a_cut_is_always_a_prefix_within_the_limit(text: str, max_chars: int) -> None:
    cut = cut_at_sentence(text, max_chars)
    assert text.startswith(cut)
    assert len(cut) <= max_chars


@pytest.mark.parametrize("language", sorted(ARTICLES))
def test_a_cut_of_an_article_ends_with_one_of_its_sentences(language: str) -> None:
    text = ARTICLES[language]
    cut = cut_at_sentence(text, len(text) * 2 // 3)
    ends = tuple(sentence[-12:] for sentence in split_sentences(text))
    assert cut.endswith(ends)
    assert len(cut) > len(text) // 3


HOSTILE = {
    "dots": "." * 50_000,
    "numbers": "1. " * 17_000,
    "numbered lines": ("1. " * 450 + "\n") * 37,
    "one letter": "a" * 50_000,
    "Han": "中" * 50_000,
    "Han stops": "中。" * 25_000,
    "Thai": "ก" * 50_000,
    "lines": "\n" * 50_000,
    "short lines": "a. b.\n" * 9_000,
    "quotes": '"a. ' * 12_500,
    "open quotes": "“a. " * 12_500,
    "parentheses": "(a. " * 12_500,
    "accents": "a" + "\u0301" * 50_000,
    "spaces": " " * 50_000,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_text_takes_linear_time(name: str) -> None:
    """pysbd alone is quadratic: 50,000 characters of "1. " would take some 20 s."""
    text = HOSTILE[name]
    # The time of this thread alone: other programs may keep the machine busy.
    start = time.thread_time()
    split_sentences(text)
    cut_at_sentence(text, 30_000)
    count_words(text)
    assert time.thread_time() - start < 5.0


def test_english_is_told_from_its_neighbours() -> None:
    assert looks_english(ENGLISH)
    assert not any(looks_english(ARTICLES[code]) for code in ARTICLES if code != "en")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("The boat sailed on Monday. It came back in May. Nobody had seen it since 2019. Why?", 4),
        ("Growth was 3.5 percent last year. Prices rose by 2.1 percent.", 2),
        ("He works for the state dept. Smith does not. The rest is quiet.", 3),
    ],
)
def test_plain_paragraphs_are_split_as_others_are(text: str, count: int) -> None:
    """A paragraph with nothing but full stops takes a shorter way to the same sentences."""
    assert len(split_sentences(text, "en")) == count
    assert (
        split_sentences(f"{text} (So it is.)", "en")[: count - 1]
        == (split_sentences(text, "en")[: count - 1])
    )
    assert abs(count_sentences(text, "en") - count) <= 1
