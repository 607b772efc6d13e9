"""From a text to terms: the words that are stored, and for each word of a query what it may be.

A term is a word as it stands, or its stem, or the name of the thing that it means. Indonesian
stems are Sastrawi's: it knows a dictionary, where rules alone take `kemeja` for `meja` and
`memakai` for another word than `pakai`; English ones are Snowball's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import snowballstemmer

from app.db.words.synonyms import LONGEST, phrases

MAX_WORD_CHARS = 40
_WORD = re.compile(r"[^\W_]+")
# A number and its unit are one word, in both spellings: `16 GB` and `16GB`.
_UNIT = re.compile(
    r"(?<![\w.,])(\d+(?:[.,]\d+)?)\s?(gb|tb|mb|mah|inch|inci|in|hz|khz|ghz|kg|gr|gram|g|ml|l|liter|"
    r"litre|cm|mm|m|pk|watt|w|va|volt|v|mp|pcs|lembar|lusin)\b"
)
_UNITS = {
    "inci": "inch", "in": "inch", "gram": "g", "gr": "g", "liter": "l", "litre": "l",
    "watt": "w", "volt": "v",
}  # fmt: skip
# Words of a query that say nothing of the goods.
_FILLERS_WORDS = """
yang dan di ke dari untuk dengan atau ini itu saya aku mau ingin cari mencari carikan butuh beli
ada apa dong nih ya yg utk dgn tolong the a an of for in on at with and or i want need looking
find buy me my to is are some any please
"""
FILLERS = frozenset(_FILLERS_WORDS.split())


def words_of(text: str) -> list[str]:
    """Return the words of a text: small letters without accents, numbers with their units."""
    text = unicodedata.normalize("NFKD", text.casefold())
    text = "".join(char for char in text if not unicodedata.combining(char))
    text = _UNIT.sub(lambda found: f" {_number(found)} ", text)
    # 1.5 and 10,5 are one word; so is the model `a-54`, by its halves.
    text = re.sub(r"(?<=\d)[.,](?=\d)", "p", text)
    return [word[:MAX_WORD_CHARS] for word in _WORD.findall(text)]


def things_of(words: list[str]) -> list[tuple[str, str]]:
    """Return each word, or row of words, with the thing that it means: itself where none is known.

    Words that mean a thing together become one word.
    """
    known, found, at = phrases(), [], 0
    while at < len(words):
        for length in range(min(LONGEST, len(words) - at), 0, -1):
            row = tuple(words[at : at + length])
            if row in known:
                found.append(("".join(row), known[row]))
                at += length
                break
        else:
            found.append((words[at], words[at]))
            at += 1
    return found


def terms_of(text: str) -> str:
    """Return what is stored to be searched: words, things and stems, each once, in order."""
    found: dict[str, None] = {}
    words = words_of(text)
    for word, thing in things_of(words):
        for term in (word, thing, *stems_of(word), *stems_of(thing)):
            found[term] = None
    for word in words:
        found[word] = None
    return " ".join(found)


def asked_for(text: str) -> list[tuple[str, ...]]:
    """Return, for each word of a query, the terms that may stand for it; fillers are left out."""
    asked: dict[tuple[str, ...], None] = {}
    for word, thing in things_of(words_of(text)):
        if word not in FILLERS:
            terms = (word, thing, *stems_of(word), *stems_of(thing))
            asked[tuple(dict.fromkeys(terms))] = None
    return list(asked)


def stems_of(word: str) -> tuple[str, ...]:
    """Return the stems of a word in both languages; a word with digits has none."""
    return () if any(char.isdigit() for char in word) else _stems(word)


@lru_cache(maxsize=50_000)
def _stems(word: str) -> tuple[str, ...]:
    return _indonesian()(word), str(_english().stemWord(word))


@cache
def _indonesian() -> Callable[[str], str]:
    # It reads a dictionary of 29,000 words: 30 ms, on first use. Its own cache has no bound.
    from Sastrawi.Stemmer.StemmerFactory import StemmerFactory

    stemmer: Any = StemmerFactory().create_stemmer(False)
    return lambda word: str(stemmer.stem(word)) or word


@cache
def _english() -> Any:
    return snowballstemmer.stemmer("english")


def _number(found: re.Match[str]) -> str:
    unit = _UNITS.get(found[2], found[2])
    return found[1].replace(",", "p").replace(".", "p") + unit
