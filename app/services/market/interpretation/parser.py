"""A query read without a model: each reader takes what it understands, the rest is searched for.

Measures come before money ("4 kg" is no price), money before places ("sekitar 3 juta"), places
before conditions ("Kebayoran Baru"). The work is bounded by the length of the query.
"""

from __future__ import annotations

import re

from rapidfuzz.distance import OSA

from app.services.market.interpretation.interpretation import Interpretation, Language, Sort
from app.services.market.interpretation.money import read_budget
from app.services.market.interpretation.numbers import with_digits
from app.services.market.interpretation.places import (
    place_named,
    read_place,
    words_of_places,
)
from app.services.market.interpretation.specs import read_specs
from app.services.market.interpretation.vocabulary import (
    BRANDS,
    CATEGORIES,
    FEATURES_BESIDES,
    LONGEST_PHRASE,
    OF_VEHICLES,
    PHRASES,
    SPELLABLE,
    TAGS,
    VEHICLES,
)
from app.services.market.interpretation.wishes import (
    read_condition,
    read_nearness,
    read_quantity,
    read_radius,
    read_sort,
    read_without,
)
from app.services.market.interpretation.words import (
    ENGLISH,
    FILLERS,
    INDONESIAN,
    NEVER_MENDED,
    Query,
    folded,
    language_of,
    words_of,
)

# Words that are written together with others: "hpmurah", "laptop10jt".
_JOINED = frozenset({"murah", "termurah", "bekas", "second", "baru", "terdekat", "gaming"}) | {
    "budget", "bajet", "harga", "dibawah", "diatas", "maks", "max", "min", "rp"
}  # fmt: skip
_GLUED = re.compile(r"(?<![\w-])([a-z]{2,})(\d[\d.,]*)(?=[a-z\s]|$)")
_COUNT = re.compile(r"(?<![\w.,])(\d{1,4}) +(?=([a-z][\w-]*)(?: ([a-z][\w-]*))?)")
_CABLELESS = re.compile(
    r"(?<!\w)(?:tanpa|without|no|non)(?: a| any| the)? (?:kabel|kable|cables?|wires?)(?!\w)"
)


def parse(text: str) -> Interpretation:
    """Return what a query asks for; a query that says nothing asks for nothing."""
    # Numbers before spelling: "belas" is one letter from "beras".
    plain = _spelt(with_digits(_parted(folded(text))))
    language = language_of(plain)
    query = Query(_CABLELESS.sub("wireless", plain))
    radius_km = read_radius(query)
    tags = read_specs(query)
    least, most = read_budget(query, language)
    near, nearest = read_nearness(query)
    place = read_place(query, language)
    condition = read_condition(query)
    sort = read_sort(query)
    without = read_without(query)
    quantity = read_quantity(query) or _count(query)
    goods = _Goods(query, language)
    tags.extend(tag for tag in goods.tags if tag not in tags)
    return Interpretation(
        text=_text(query, tags, goods),
        category=goods.category,
        tags=tuple(tags),
        brand=goods.brand,
        min_price=least,
        max_price=most,
        place=place,
        near_me=near and place is None,
        radius_km=radius_km,
        condition=condition,
        sort=sort or _by_distance(near, nearest, place is not None),
        quantity=quantity,
        without=without,
        language=language,
    )


def _by_distance(near: bool, nearest: bool, placed: bool) -> Sort | None:
    return "distance" if nearest or (near and not placed) else None


def _known(word: str) -> bool:
    return word in PHRASES or word in _JOINED or word in FILLERS


def _parted(text: str) -> str:
    """Part words that are written together, where both halves are known."""
    text = _GLUED.sub(
        lambda match: f"{match[1]} {match[2]}" if _joins_digits(match[1], match[0]) else match[0],
        text,
    )
    return " ".join(_halves(word) for word in text.split())


def _joins_digits(word: str, whole: str) -> bool:
    return whole not in PHRASES and (word in CATEGORIES or word in BRANDS or word in _JOINED)


def _halves(word: str) -> str:
    if len(word) < 5 or not word.isalpha() or _known(word) or place_named(word):
        return word
    for place in range(2, len(word) - 1):
        first, second = word[:place], word[place:]
        joined = (first in CATEGORIES or first in BRANDS) and (
            second in _JOINED or second in BRANDS or second in TAGS or _is_place(second)
        )
        if joined:
            return f"{first} {second}"
    return word


def _is_place(word: str) -> bool:
    return len(word) >= 4 and place_named(word) is not None


def _spelt(text: str) -> str:
    """Mend one wrong key in the names of goods; short words are left alone."""
    return " ".join(_mended(word) for word in text.split())


def _mended(word: str) -> str:
    known = _known(word) or word in NEVER_MENDED or word in INDONESIAN or word in ENGLISH
    if len(word) < 4 or not word.isalpha() or known or word in words_of_places():
        return word
    near = [
        name
        for name in SPELLABLE.get(word[0], ())
        if abs(len(name) - len(word)) <= 1 and OSA.distance(name, word, score_cutoff=1) <= 1
    ]
    return word if word in near or not near else near[0]


def _count(query: Query) -> int | None:
    """Take a number that stands before goods: "3 kursi", "2 laptops"."""
    for match in _COUNT.finditer(query.text):
        if match[2] in CATEGORIES or f"{match[2]} {match[3]}" in CATEGORIES:
            query.cut(match.start(), match.end(1))
            return int(match[1]) or None
    return None


class _Goods:
    """Category, brand and features of what is left of a query.

    Of several categories the head counts: the first in Indonesian ("tas laptop"), the last of the
    first run in English ("laptop bag").
    """

    def __init__(self, query: Query, language: Language) -> None:
        self.tags: list[str] = []
        self.brand: str | None = None
        self.said: set[str] = set()
        categories: list[tuple[str, int, int]] = []
        vehicles: list[str] = []
        for phrase, start, end in _phrases(query.text):
            if phrase in BRANDS and self.brand is None:
                self.brand = BRANDS[phrase]
            if phrase in CATEGORIES:
                categories.append((phrase, start, end))
                if phrase in VEHICLES:
                    vehicles.append(phrase)
            elif phrase in TAGS and TAGS[phrase] not in self.tags:
                self.tags.append(TAGS[phrase])
        head = _head(categories, language)
        self.category = CATEGORIES[head] if head else None
        if head in FEATURES_BESIDES:
            self.tags.append(FEATURES_BESIDES[head])
        if self.category in OF_VEHICLES:
            self.tags.extend(vehicles)


def _head(categories: list[tuple[str, int, int]], language: Language) -> str | None:
    if not categories:
        return None
    head = categories[0]
    if language == "en":
        for after in categories[1:]:
            if after[1] != head[2]:
                break
            head = after
    return head[0]


def _phrases(text: str) -> list[tuple[str, int, int]]:
    """Return the known phrases of a text, the longest first at each place, and where they stand."""
    found: list[tuple[str, int, int]] = []
    base = 0
    for part in text.split("|"):
        words = words_of(part)
        at = 0
        while at < len(words):
            for length in range(min(LONGEST_PHRASE, len(words) - at), 0, -1):
                phrase = " ".join(words[at : at + length])
                if phrase in PHRASES:
                    found.append((phrase, base + at, base + at + length))
                    at += length
                    break
            else:
                at += 1
        base += len(words) + 1
    return found


def _text(query: Query, tags: list[str], goods: _Goods) -> str:
    """Return the words to search for: what is left, and the measures in their one form."""
    left = [word for word in words_of(query.text) if word not in FILLERS]
    measures = [tag for tag in tags if tag not in goods.tags]
    return " ".join(dict.fromkeys([*left, *measures]))
