"""The parts of an article that are worth quoting, and how to quote less of them.

A passage is a verbatim part of the text, white space aside: nothing here writes a word of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from app.engine.text.cut import cut_at_word
from app.engine.text.sentences import (
    LABEL_WORDS,
    count_words,
    ends_sentence,
    split_sentences,
)

MAX_TEXT_CHARS = 200_000
MAX_PASSAGES = 400
MAX_PASSAGE_CHARS = 600
ELLIPSIS = "…"

# Controls, surrogates, soft hyphens, zero-width spaces and bidirectional overrides: invisible, and
# a quotation cut after an override would turn the reader's page around. ZWJ and ZWNJ are letters'.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_DATELINE = re.compile(
    r"^(?:[A-Z][\w.,'’ /-]{1,40})?\((?:AP|AFP|Reuters|CNN|UPI|dpa|ANTARA|Xinhua)\)\s*[—–-]+\s*"
    r"|^[A-Z][A-Z.'’ ]{2,30}(?:, ?[A-Z][\w.’' ]{1,20})?\s*[—–]+\s+"
    r"|^[A-Z][\w.’']{1,20}(?: [A-Z][\w.’']{1,20})?, [A-Z][a-z]{2,5}\. [—–]+\s+"
)
_FURNITURE = re.compile(
    r"^\W*(?:read (?:more|also|next|the full)|(?:also|see) (?:read|also)|subscribe|sign ?up|"
    r"log ?in\b|click|tap here|follow us|share (?:this|on)|advertisement|copyright|all rights|"
    r"related:|watch:|(?:photo|image|picture|video|source|credit|caption)s?\s*(?:by\b|[:(])|"
    r"file photo|getty|shutterstock|more (?:from|on|stories)|get (?:the|our) .{0,30}newsletter|"
    r"join (?:our|us)|download (?:the|our)|editor.s note|disclaimer|contact us|"
    r"leave a comment|let us know|"
    r"(?:reporting|editing|writing|additional reporting|compiled) by\b|for more information|"
    r"this (?:article|story) (?:was|is|has|originally)|baca (?:juga|selengkapnya)|simak|"
    r"lihat juga|klik|halaman \d|(?:foto|editor|penulis|sumber|quelle|фото|источник)\s*[:/(]|"
    r"lesen sie|mehr zum thema|lea también|leer más|suscr|lire aussi|à lire|leia (?:mais|também)|"
    r"inscreva|clique|assine|читайте|подпис|اقرأ|点击|责任编辑|(?:来源|图|図|写真)[:：/]|版权|"
    r"関連記事|続きを読む|อ่านเพิ่มเติม|©)"
    r"|(?:all rights reserved|terms of (?:use|service)|privacy policy|\bcookies\b)",
    re.IGNORECASE,
)
# Possessive where repetitions meet: a hostile page must not make a pattern try every split.
_BYLINE = re.compile(
    r"^(?i:by|oleh|von|par|por|de)\s++[A-Z][\w.’'-]*+(?:\s++[A-Z][\w.’'-]*+){0,4}+\W*+$"
)
_LINK = re.compile(r"https?://|www\.|\S@\S+\.\w|pic\.twitter")
_CLAUSE = re.compile("(?<=[,;:，；：、،؛])\\s+|(?<=[，；：、،؛])|\\s+[—–-]\\s+|(?<=\\w)—(?=\\w)")
_LEADER = re.compile(r"^(?:[’”»]++(?=\s)|[—–•*·▪►■●>…-]|\.{2,}+)++\s++")
_LOOSE = " \t,;:，；：、،؛—–-("


@dataclass(frozen=True, slots=True)
class Passage:
    """One quotable part of an article. `whole`: it ends the way a sentence ends."""

    text: str
    words: int
    whole: bool


def passages(text: str, language: str | None) -> list[Passage]:
    """Return the distinct sentences of an article without its furniture, in article order.

    Where that would leave fewer than three, the furniture stays: short texts are all there is.
    """
    unique: dict[str, str] = {}
    for sentence in split_sentences(clean(text), language):
        for part in _bounded(" ".join(sentence.split())):
            part = _LEADER.sub("", part)
            unique.setdefault(part.casefold(), part)
    texts = list(unique.values())
    texts[:2] = [_DATELINE.sub("", part) or part for part in texts[:2]]
    kept = [part for part in texts if not is_furniture(part)]
    chosen = kept if len(kept) >= 3 else texts
    # A headline or a label is no sentence; where most lines have no stop, none of them is one.
    whole = [part for part in chosen if ends_sentence(part) or count_words(part) > LABEL_WORDS]
    if 2 * len(whole) >= len(chosen):
        chosen = whole
    if len(chosen) > MAX_PASSAGES:
        # The lead matters most in reporting; what follows is sampled so that no part is left out.
        head, tail = chosen[: MAX_PASSAGES // 2], chosen[MAX_PASSAGES // 2 :]
        chosen = head + tail[:: -(-len(tail) // (MAX_PASSAGES // 2))]
    return [Passage(part, count_words(part), ends_sentence(part)) for part in chosen]


def clean(text: str) -> str:
    """Drop the characters that are not seen, and the end of an enormous text."""
    return _INVISIBLE.sub("", text[:MAX_TEXT_CHARS])


def is_furniture(text: str) -> bool:
    """Say whether a line belongs to the page and not to the article."""
    words = count_words(text)
    if words < 4 or (words < 40 and _FURNITURE.search(text)) or _BYLINE.match(text):
        return True
    if words < 14 and _LINK.search(text):
        return True
    letters = [char for char in text if char.isalpha()]
    if len(letters) < 0.55 * len("".join(text.split())):
        return True
    cased = sum(char.isupper() or char.islower() for char in letters)
    return cased > 10 and sum(map(str.isupper, letters)) > 0.7 * cased


def shorten(text: str, max_chars: int) -> str:
    """Return `text`, or as much of it as fits with an ellipsis after a clause or a word."""
    if len(text) <= max_chars:
        return text
    room = max_chars - len(ELLIPSIS)
    borders = [match.start() for match in _CLAUSE.finditer(text, 0, max_chars)]
    fitting = [border for border in borders if 0.6 * room <= border <= room]
    head = text[: fitting[-1]] if fitting else cut_at_word(text, max(0, room))
    return ((head.rstrip(_LOOSE) or head) + ELLIPSIS)[: max(1, max_chars)]


def clauses(text: str) -> list[str]:
    """Split a sentence at its commas, semicolons and dashes into parts of at least three words."""
    parts: list[str] = []
    start = 0
    for match in _CLAUSE.finditer(text):
        if count_words(text[start : match.start()]) >= 3 <= count_words(text[match.end() :]):
            parts.append(text[start : match.start()])
            start = match.end()
    parts.append(text[start:])
    return [part.strip(_LOOSE) or part for part in parts]


def portions(text: str, count: int) -> list[str]:
    """Cut a text into `count` parts of about equal length, at spaces if it has enough of them."""
    words = text.split()
    if len(words) >= count:
        borders = [len(words) * number // count for number in range(count + 1)]
        return [" ".join(words[a:b]) for a, b in pairwise(borders)]
    size = max(1, -(-len(text) // count))
    return [
        part for part in (text[at : at + size].strip() for at in range(0, len(text), size)) if part
    ]


def _bounded(sentence: str) -> Iterator[str]:
    """Yield the sentence, or its clauses joined up to the limit where it is over it."""
    if len(sentence) <= MAX_PASSAGE_CHARS:
        yield sentence
        return
    start = end = 0
    limit = MAX_PASSAGE_CHARS // 2
    for match in _CLAUSE.finditer(sentence):
        if match.start() - start > limit and end > start:
            yield from _pieces(sentence[start:end], limit)
            start = end
        end = match.end()
    yield from _pieces(sentence[start:], limit)


def _pieces(text: str, limit: int) -> Iterator[str]:
    rest = text.strip()
    while len(rest) > MAX_PASSAGE_CHARS:
        head = cut_at_word(rest, limit) or rest[:limit]
        yield head
        rest = rest[len(head) :].lstrip()
    if rest:
        yield rest
