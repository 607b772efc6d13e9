"""Strings end where people end them, whatever the scores say, and the object stays valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from app.engine.structured.grammar import GrammarProcessor
from app.engine.structured.string_state import open_quote, repeats
from app.engine.structured.vocabulary import Vocabulary
from app.schemas.summary_v4 import PROSE, StructuredSummary, summary_schema

Scores = Callable[[torch.Tensor], None]
QUOTE = b'"'


@pytest.fixture(scope="module")
def vocabulary(checkpoint: Path) -> Vocabulary:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return Vocabulary(tokenizer, [tokenizer.eos_token_id])


def one_string(**bounds: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"text": {"type": "string", **bounds}},
        "required": ["text"],
        "additionalProperties": False,
    }


def next_text(vocabulary: Vocabulary, written: str, liked: dict[bytes, float], **held: Any) -> str:
    """Return the text of the token that follows when some spellings are liked."""
    options = {"schema": one_string(), "max_tokens": 200} | held
    grammar = GrammarProcessor(vocabulary, written=written.encode(), **options)
    scores = torch.full((1, vocabulary.size), -20.0)
    for spelling, score in liked.items():
        scores[0, vocabulary.encode(spelling)[0]] = score
    return vocabulary.bytes_of(int(grammar(torch.tensor([[1]]), scores)[0].argmax())).decode()


def write(vocabulary: Vocabulary, grammar: GrammarProcessor, seed: int) -> str:
    """Return what random scores write, quotes and spaces being liked."""
    torch.manual_seed(seed)
    ids = [1]
    while not grammar.complete:
        scores = torch.randn(1, vocabulary.size)
        for spelling in (b'"', b" ", b".", b","):
            scores[0, vocabulary.encode(spelling)[0]] += 2.0
        ids.append(int(grammar(torch.tensor([ids]), scores)[0].argmax()))
        grammar.advance(ids)
    return b"".join(map(vocabulary.bytes_of, ids[1:])).decode()


@pytest.mark.parametrize(
    ("written", "liked", "expected"),
    [
        ("A man develops ", {b'"': 9.0}, "\\"),
        ('He said \\"no', {b'"': 9.0}, "\\"),
        ("A man,", {b'"': 9.0, b" ": 8.0}, " "),
        ("A man devel", {b'"': 8.0, b"o": 9.0}, "o"),
        ("A man", {b'"': 9.0, b"o": 8.0}, '"'),
        ("", {b" ": 9.0, b"A": 8.0}, "A"),
        ("5", {b'"': 9.0}, '"'),
    ],
)
def test_a_string_ends_after_a_word_and_outside_of_quotations(
    vocabulary: Vocabulary, written: str, liked: dict[bytes, float], expected: str
) -> None:
    """Issue 16: an inner quote is escaped and never the end of half a sentence."""
    found = next_text(vocabulary, '{"text":"' + written, liked)
    assert found.startswith(expected)


def test_sentences_end_with_a_full_stop(vocabulary: Vocabulary) -> None:
    held = {"schema": one_string(), "prose": ("text",)}
    assert next_text(vocabulary, '{"text":"The rate fell', {QUOTE: 9.0}, **held) == "."
    assert next_text(vocabulary, '{"text":"The rate fell.', {QUOTE: 9.0}, **held) == '"'


def test_a_bound_ends_a_string_at_a_sentence_or_else_at_a_word(vocabulary: Vocabulary) -> None:
    """From 80 % of the bound on; the word that is begun is finished first."""
    held = {"schema": one_string(maxLength=60), "max_tokens": 400}
    liked = {b"o": 9.0, b" ": 8.0}
    sentence = '{"text":"' + "The bank cut its rate by half a point, the first cut."
    assert next_text(vocabulary, sentence, liked, **held) == '"'
    word = '{"text":"' + "The bank cut its rate by half a point and the oth"
    assert next_text(vocabulary, word, liked, **held) == "o"
    assert next_text(vocabulary, word, {b" ": 9.0, b"o": 8.0}, **held) == '"'


def test_a_point_does_not_begin_as_an_earlier_one_or_the_summary(vocabulary: Vocabulary) -> None:
    start = (
        '{"title":"a","main_summary":"The bank cut its rate again.","key_points":["The bank cut its'
    )
    held = {"schema": summary_schema(3), "max_tokens": 300}
    liked = {b" ": 9.0, b" r": 9.0, b"s": 5.0}
    free = next_text(vocabulary, start, liked, **held)
    held_back = next_text(vocabulary, start, liked, **held, prose=PROSE)
    assert free.startswith(" ")
    assert held_back == "s"


def test_exact_values_patterns_and_empty_strings_stay_possible(vocabulary: Vocabulary) -> None:
    """Validity wins: what only the schema allows comes out, spaces and quotes included."""
    for value in (" a ", 'say "', "half of a wor", ",", ""):
        schema = one_string()
        schema["properties"]["text"] = {"const": value}
        text = write(vocabulary, GrammarProcessor(vocabulary, schema, max_tokens=90), 1)
        assert json.loads(text) == {"text": value}
    for seed in range(3):
        pattern = one_string(pattern="^[A-Z]{2} [0-9]{3} $")
        text = write(vocabulary, GrammarProcessor(vocabulary, pattern, max_tokens=90), seed)
        assert len(json.loads(text)["text"]) == 7
        long = one_string(minLength=30, maxLength=33)
        text = write(vocabulary, GrammarProcessor(vocabulary, long, max_tokens=120), seed)
        assert 30 <= len(json.loads(text)["text"]) <= 33


@pytest.mark.parametrize("budget", [130, 200])
def test_random_scores_write_whole_strings(vocabulary: Vocabulary, budget: int) -> None:
    """Contract 1: 8 objects; no string starts or ends with a space, quotes are in pairs."""
    for seed in range(4):
        grammar = GrammarProcessor(vocabulary, summary_schema(3), max_tokens=budget, prose=PROSE)
        summary = StructuredSummary.model_validate_json(write(vocabulary, grammar, seed))
        texts = [summary.title, summary.main_summary, summary.category, *summary.key_points]
        assert all(text == text.strip(" \t") for text in texts), texts
        assert not any(open_quote(text) for text in texts), texts


def test_points_are_told_apart_by_their_words() -> None:
    assert repeats("The bank cut its rate.", "the bank cut its rate")
    assert repeats("The bank cut its main rate", "The bank cut its rate")
    assert not repeats("The bank cut its rate.", "Shares rose within an hour.")
