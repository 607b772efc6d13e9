"""Tokens to text: nothing is lost, nothing is cut inside a character."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from app.engine.decoding.detokenizer import Detokenizer

END = 0


def fallback_tokenizer() -> Any:
    """Words with a marked space and single bytes, decoded as Llama 2's and Phi-3's are."""
    words = ["<end>", "▁", "▁Hello", "lo", "▁world", "é"]
    vocabulary = [*words, *(f"<0x{byte:02X}>" for byte in range(256))]
    numbers = {word: number for number, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[], byte_fallback=True))
    steps = (decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse())
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return fallback_tokenizer()


def ids_of(tokenizer: Any, *tokens: str | bytes) -> list[int]:
    names = [
        name
        for token in tokens
        for name in ([token] if isinstance(token, str) else [f"<0x{byte:02X}>" for byte in token])
    ]
    found: list[int] = tokenizer.convert_tokens_to_ids(names)
    return found


def chunks(tokenizer: Any, ids: list[int], silent: tuple[int, ...] = (END,)) -> list[str]:
    streamer = Detokenizer(tokenizer, threading.Event(), silent=silent)
    streamer.put(torch.tensor([[1, 2, 3]]))
    for token in ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    return [str(chunk) for chunk in streamer if chunk]


def test_each_token_gives_its_text_at_once_and_the_first_space_goes(tokenizer: Any) -> None:
    """Contract 1: as the tokenizer decodes the whole."""
    ids = ids_of(tokenizer, "▁Hello", "▁world", "▁", "▁Hello")
    assert chunks(tokenizer, ids) == ["Hello", " world", " ", " Hello"]


def test_a_character_of_several_tokens_is_one_chunk(tokenizer: Any) -> None:
    """Contract 1: no replacement character in the middle of a text."""
    ids = ids_of(tokenizer, "▁Hello", "🎉".encode(), "é", "你".encode(), "▁world")
    assert chunks(tokenizer, ids) == ["Hello", "🎉", "é", "你", " world"]


def test_an_unfinished_character_at_the_end_is_not_lost(tokenizer: Any) -> None:
    """Contract 1: a budget may end inside a character."""
    text = "".join(chunks(tokenizer, ids_of(tokenizer, "▁Hello", "🎉".encode()[:2])))
    assert text.startswith("Hello")
    assert set(text.removeprefix("Hello")) == {"\ufffd"}


def test_silent_tokens_have_no_text(tokenizer: Any) -> None:
    """S0.13: special tokens are not shown, wherever they are."""
    ids = ids_of(tokenizer, "▁Hello", "<end>", "▁world", "<end>")
    assert chunks(tokenizer, ids) == ["Hello", " world"]
    assert chunks(tokenizer, ids, silent=()) == ["Hello", "<end>", " world", "<end>"]


def test_bytes_that_are_no_text_end_no_stream_and_take_no_word_with_them(tokenizer: Any) -> None:
    """Rule 1: random weights write any bytes."""
    draw = random.Random(5)
    words = ids_of(tokenizer, "▁Hello", "lo", "▁world")
    stray = ids_of(tokenizer, "日🎉".encode())
    for _ in range(50):
        ids = [draw.choice([*words, *stray]) for _ in range(60)]
        found, whole = "".join(chunks(tokenizer, ids)), tokenizer.decode(ids)
        assert plain(found) == plain(whole)


@pytest.mark.parametrize("text", ["日本語のニュース", "naïve café", "👩‍👩‍👧 ok"])
def test_texts_of_many_bytes_come_back_whole(tokenizer: Any, text: str) -> None:
    """Contract 1."""
    assert "".join(chunks(tokenizer, ids_of(tokenizer, text.encode()))) == text


def plain(text: str) -> str:
    return "".join(char for char in text if char.isascii())
