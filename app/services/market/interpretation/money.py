"""Budgets: what a query says about the price, in whole rupiah.

An amount without a word is the most that may be spent. "3 jutaan" is what begins with three
million (3,000,000 to 3,999,999), "500 ribuan" what begins with five hundred thousand (500,000 to
599,999). "sekitar 3 juta" is a fifth less to a fifth more. Dollars are no rupiah and are not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from app.services.market.interpretation.interpretation import Language
from app.services.market.interpretation.words import Query

SCALES = {
    word: scale
    for words, scale in (
        ("juta jt jeti million mio mil", 10**6),
        ("ribu rbu rb k thousand", 10**3),
        ("miliar milyar billion bn m", 10**9),
        ("perak", 1),
    )
    for word in words.split()
}
# More than this is no price.
MAX_PRICE = 10**13
AROUND = 0.2

_NUMBER = r"\d{1,3}(?:[.,]\d{3}){1,4}(?:,\d{1,2}|\.\d{1,2})?(?!\d)|\d{1,12}(?:[.,]\d{1,3})?(?!\d)"
_SCALE = r"jeti|juta|jt|ribu|rbu|rb|million|thousand|miliar|milyar|billion|bn|mio|mil|perak|k|m"
_AMOUNT = re.compile(
    rf"(?<![\w.,$])(?P<rp>(?:rp|idr)\.?\s*)?(?P<number>{_NUMBER})(?:,-)?"
    rf"(?:(?P<gap>\s?)(?P<scale>{_SCALE})(?P<ish>\s?-?an)?)?"
    rf"(?:\s?(?P<more>\d{{1,3}})\s?(?P<lower>ribu|rb|k)|(?P<half>\stengah))?"
    r"(?:,-)?(?:\s?(?:rupiah|idr))?(?!\w)"
)
_BETWEEN = re.compile(r"\s*(?:-|~|s/d|sd|sampai dengan|sampai|hingga|to|till|until|dan|and|&)\s*")
_HAS = r"(?:\s+(?:dengan|harga(?:nya)?|budget|dari|of|price[ds]?|rp|idr|a|sekitar|about))*\s*$"
_NOT = r"(?:jangan|tidak|tak|gak|ga|nggak|enggak|ndak|not|no|never)"
_MOST = re.compile(
    rf"(?:{_NOT} (?:sampai|lebih(?: mahal)?(?: dari)?|melebihi|more than|over|above|exceeding)"
    r"|(?<!jangan )(?<!tidak )di ?bawah|kurang dari|lebih murah dari|maks(?:imal"
    r"|imum)?|max(?:imal|imum|imun)?|paling mahal|paling banyak"
    r"|under|below|less than|up to|at most|within|cheaper than|<=?)" + _HAS
)
_LEAST = re.compile(
    rf"(?:{_NOT} (?:kurang dari|less than|under|below|di ?bawah)"
    r"|di ?atas|lebih(?: mahal)? dari|min(?:imal|imum)?|paling murah|paling sedikit|mulai|over"
    r"|above|more than|at least|starting(?: from| at)?|>=?)" + _HAS
)
_ABOUT = re.compile(
    r"(?:sekitar(?:an)?|kisaran|kira-kira|kira kira|kurang lebih|around|about|approx(?:imately)?"
    r"|roughly|~|±|\+-)(?:\s+(?:harga|rp|idr))*\s*$"
)
_BUDGET = re.compile(
    r"(?:budget(?:ku)?|bajet|dana|modal|anggaran|harga(?:nya)?|seharga"
    r"|price[ds]?(?: at)?|for|uang|duit|punya|antara|between|dari|from)"
    r"(?:\s+(?:rp|idr|saya|aku|of|cuma|hanya|only))*\s*:?\s*$"
)
_OR_LESS = re.compile(
    r"\s*(?:ke ?bawah|or less|or below|or under|atau kurang|tops|(?:max(?:imal"
    r"|imum)?|maks(?:imal)?)\b(?!\W*\d))"
)
_OR_MORE = re.compile(
    r"\s*(?:ke ?atas|or more|or above|and up|atau lebih|(?:min(?:imal)?)\b(?!\W*\d))"
)


@dataclass(slots=True)
class _Amount:
    start: int
    end: int
    number: float
    scale: int | None
    rupiah: bool
    ish: bool
    extra: int
    grouped: bool

    def rupiahs(self, scale: int | None = None) -> int:
        value = round(self.number * (self.scale or scale or 1)) + self.extra
        return min(value, MAX_PRICE)


def read_budget(query: Query, language: Language) -> tuple[int | None, int | None]:
    """Take the budget out of a query: the least and the most, None for no bound."""
    least: int | None = None
    most: int | None = None
    # Each time one is taken, the text is another; nobody names more than a few.
    for _ in range(4):
        found = _first(query.text, language)
        if found is None:
            break
        low, high, start, end = found
        query.cut(start, end)
        least = low if least is None else least
        most = high if most is None else most
    if least is not None and most is not None and least > most:
        least, most = most, least
    return least, most


def _first(text: str, language: Language) -> tuple[int | None, int | None, int, int] | None:
    amounts = [_amount(match, language) for match in _AMOUNT.finditer(text)]
    for number, amount in enumerate(amounts):
        after = amounts[number + 1] if number + 1 < len(amounts) else None
        if after is not None and (pair := _range(text, amount, after)) is not None:
            return pair
        before = text[: amount.start]
        kind, begin = _kind(before)
        if not _is_price(amount, kind):
            continue
        end = amount.end
        if rest := _OR_LESS.match(text, end):
            kind, end = "most", rest.end()
        elif rest := _OR_MORE.match(text, end):
            kind, end = "least", rest.end()
        return (*_bounds(amount, kind), begin, end)
    return None


Kind = Literal["most", "least", "about", "budget", ""]


def _kind(before: str) -> tuple[Kind, int]:
    """Return what the words before an amount say of it, and where they begin."""
    # A cue is short: what stands further off is about something else.
    offset = max(0, len(before) - 48)
    near = before[offset:]
    cues: tuple[tuple[Kind, re.Pattern[str]], ...] = (
        ("most", _MOST),
        ("least", _LEAST),
        ("about", _ABOUT),
        ("budget", _BUDGET),
    )
    for kind, pattern in cues:
        if found := pattern.search(near):
            # "no less than" ends with "less than": the longer one begins earlier.
            if (
                kind == "most"
                and (longer := _LEAST.search(near))
                and longer.start() < found.start()
            ):
                return "least", offset + longer.start()
            return kind, offset + found.start()
    return "", len(before)


def _bounds(amount: _Amount, kind: Kind) -> tuple[int | None, int | None]:
    value = amount.rupiahs()
    if kind == "least":
        return value, None
    if kind == "about":
        return round(value * (1 - AROUND)), round(value * (1 + AROUND))
    if amount.ish and kind != "most":
        return value, value + _step(amount) - 1
    return None, value


def _step(amount: _Amount) -> int:
    scale = amount.scale or 1
    if amount.number != int(amount.number):
        return scale // 10
    step = 1
    while scale < 10**6 and amount.number >= step * 10 and amount.number % (step * 10) == 0:
        step *= 10
    return step * scale


def _range(
    text: str, low: _Amount, high: _Amount
) -> tuple[int | None, int | None, int, int] | None:
    """Read two amounts as a range; the first may have no scale of its own ("5-7jt")."""
    between = _BETWEEN.fullmatch(text, low.end, high.start)
    if between is None:
        return None
    kind, begin = _kind(text[: low.start])
    if between[0].strip() in ("dan", "and", "&") and not re.search(
        r"(?:antara|between)\s*$", text[: low.start]
    ):
        return None
    if not _is_price(high, kind or "budget"):
        return None
    least, most = low.rupiahs(high.scale), high.rupiahs()
    if low.scale is None and least > most:
        # "500-1jt": the first is a thousandth of the second's scale.
        least = low.rupiahs((high.scale or 1000) // 1000)
    return least, most, begin, high.end


def _is_price(amount: _Amount, kind: Kind) -> bool:
    value = amount.rupiahs()
    if value <= 0:
        return False
    if amount.scale is not None or amount.rupiah:
        # 4k and 8k are sizes of pictures.
        return kind in ("most", "least", "about") or not (
            amount.scale == 1000 and amount.number in (4, 8) and not amount.rupiah
        )
    if amount.grouped or value >= 10_000:
        return True
    return bool(kind) and value >= 1_000 and not (kind == "budget" and 1950 <= value <= 2100)


def _amount(match: re.Match[str], language: Language) -> _Amount:
    scale: int | None = SCALES[match["scale"]] if match["scale"] else None
    if match["scale"] == "m":
        # "2 m" is a length; a million in English, a milliard in Indonesian.
        scale = (10**6 if language == "en" else 10**9) if not match["gap"] or match["rp"] else None
    extra = int(match["more"]) * 1000 if match["more"] and scale and scale > 1000 else 0
    if match["half"] and scale:
        extra = scale // 2
    number, grouped = _value(match["number"], scale)
    return _Amount(
        match.start(),
        match.end(),
        number,
        scale,
        bool(match["rp"]),
        bool(match["ish"]),
        extra,
        grouped,
    )


def _value(number: str, scale: int | None) -> tuple[float, bool]:
    """Return a number, and whether its signs part thousands.

    Three digits behind a sign are thousands, unless a scale of a million or more follows.
    """
    parts = re.split("[.,]", number)
    if len(parts) == 1:
        return float(number), False
    if len(parts) == 2 and (len(parts[1]) != 3 or (scale or 0) >= 10**6):
        return float(f"{parts[0]}.{parts[1]}"), False
    if len(parts[-1]) != 3:
        return float("".join(parts[:-1])), True
    return float("".join(parts)), True
