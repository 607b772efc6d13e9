"""A text made shorter, at the end of a sentence, of a word, or of a grapheme."""

from __future__ import annotations

from app.engine.text.graphemes import grapheme_border
from app.engine.text.sentences import split_sentences


def cut_at_sentence(text: str, max_chars: int) -> str:
    """Return the longest prefix of at most `max_chars` that ends where a sentence ends.

    Without such a border it ends at a word, and without that anywhere but inside a grapheme. So it
    does when the only border would leave less than a tenth of a large room (a headline followed by
    one enormous sentence): a prompt is better served by half a sentence than by a headline.
    """
    if len(text) <= max_chars:
        return text
    if max_chars <= 0:
        return ""
    end = _last_sentence_end(text, max_chars)
    if end and (max_chars < 1_000 or end * 10 >= max_chars):
        return text[:end]
    return cut_at_word(text, max_chars)


def cut_at_word(text: str, max_chars: int) -> str:
    """Return the longest prefix of at most `max_chars` that ends a word, or else a grapheme.

    A word border in the first half is not used: text without spaces would lose too much to it.
    """
    if len(text) <= max_chars:
        return text
    end = max_chars
    while end > max_chars // 2 and not text[end].isspace():
        end -= 1
    head = text[:end].rstrip()
    if end > max_chars // 2 and head:
        return head
    return text[: grapheme_border(text, max_chars)]


def _last_sentence_end(text: str, max_chars: int) -> int:
    """Find the end of the last whole sentence in `text[:max_chars]`, 0 if there is none."""
    window = text[: max_chars + 200]
    position = last = 0
    for sentence in split_sentences(window):
        start = window.find(sentence, position)
        if start < 0:
            break
        position = start + len(sentence)
        if position > max_chars or (position == len(window) and len(window) < len(text)):
            break
        last = position
    return last
