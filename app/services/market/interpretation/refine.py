"""A follow-up in a conversation: "yang lebih murah", "di Bandung saja", "yang kedua ada hitam?".

What the follow-up says replaces that field of the last interpretation; the rest stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.services.market.interpretation.interpretation import Interpretation, Place
from app.services.market.interpretation.words import folded

_CHEAPER = re.compile(r"(?<!\w)(?:lebih murah|murahan|termurah|cheaper|less expensive)(?!\w)")
_DEARER = re.compile(r"(?<!\w)(?:lebih mahal|lebih bagus|more expensive|pricier)(?!\w)")
_ORDINALS = (
    r"pertama|kesatu|first|no(?:mor)? 1|#1",
    r"kedua|ke-2|ke 2|second one|the second|no(?:mor)? 2|#2",
    r"ketiga|ke-3|ke 3|third|no(?:mor)? 3|#3",
    r"keempat|ke-4|ke 4|fourth|no(?:mor)? 4|#4",
    r"kelima|ke-5|ke 5|fifth|no(?:mor)? 5|#5",
)
_NTH = tuple(re.compile(rf"(?<!\w)(?:{words})(?!\w)") for words in _ORDINALS)
_LAST = re.compile(r"(?<!\w)(?:terakhir|the last one)(?!\w)")


def refined(
    last: Interpretation | None, new: Interpretation, query: str, *, prices: Sequence[int] = ()
) -> Interpretation:
    """Return what a follow-up asks for; a query that names other goods begins afresh.

    `prices`: of the goods that were shown last.
    """
    if last is None or (new.category and new.category != last.category):
        return new
    if new.category is None and new.brand is None and _other_goods(new, query):
        return new
    said = folded(query)
    least, most = new.min_price, new.max_price
    if least is None and most is None:
        least, most = last.min_price, last.max_price
        if _CHEAPER.search(said) and prices:
            least, most = None, max(1, min(prices) - 1)
        elif _DEARER.search(said) and prices:
            least, most = max(prices) + 1, None
    here = new.place is not None or new.near_me
    words = dict.fromkeys([*last.text.split(), *" ".join(new.tags).split()])
    return replace(
        new,
        text=" ".join(words),
        category=new.category or last.category,
        brand=new.brand or last.brand,
        tags=tuple(dict.fromkeys([*(t for t in last.tags if t not in new.without), *new.tags])),
        min_price=least,
        max_price=most,
        place=new.place if here else last.place,
        near_me=new.near_me if here else last.near_me,
        radius_km=new.radius_km or last.radius_km,
        condition=new.condition or last.condition,
        sort=new.sort or last.sort,
        quantity=new.quantity or last.quantity,
        without=tuple(dict.fromkeys([*last.without, *new.without])),
    )


def nth_shown(query: str, shown: Sequence[int]) -> int | None:
    """Return the id of the one among the goods last shown that a follow-up speaks of."""
    said = folded(query)
    if shown and _LAST.search(said):
        return shown[-1]
    for place, pattern in enumerate(_NTH[: len(shown)]):
        if pattern.search(said):
            return shown[place]
    return None


def interpretation_of(fields: Mapping[str, Any]) -> Interpretation:
    """Return an interpretation from the fields that `as_dict` gave, as they were stored."""
    place = fields.get("place")
    known = {name: fields[name] for name in Interpretation.__slots__ if name in fields}
    return Interpretation(
        **known
        | {
            "tags": tuple(fields.get("tags", ())),
            "without": tuple(fields.get("without", ())),
            "place": Place(place["name"], place["lat"], place["lng"]) if place else None,
        }
    )


def _other_goods(new: Interpretation, query: str) -> bool:
    """Say whether words are left that are neither features nor a way to point at what was shown."""
    pointing = any(pattern.search(folded(query)) for pattern in (_CHEAPER, _DEARER, *_NTH, _LAST))
    features = {word for tag in new.tags for word in tag.split()}
    return not pointing and bool(set(new.text.split()) - features)
