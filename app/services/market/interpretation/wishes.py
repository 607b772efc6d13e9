"""What a query wishes besides: condition, order, nearness, number, and what must not be."""

from __future__ import annotations

import re

from app.services.market.interpretation.interpretation import Condition, Sort
from app.services.market.interpretation.vocabulary import PHRASES
from app.services.market.interpretation.words import Query

_NO = (
    r"(?:bukan|tanpa|selain|jangan(?: yang)?|(?:gak|ga|nggak|tidak|tak) (?:mau|usah"
    r"|pakai|pake|perlu)|kecuali|non|no|not|without|except|excluding|anything but"
    r"|other than)"
)


def _word(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w]){pattern}(?![\w])")


_USED = (
    r"(?:bekas|second ?hand|second-hand|second|seken|sekond|2nd(?: hand)?|preloved"
    r"|pre-?owned|used|refurbished|refurb|bks)"
)
_NEW = r"(?:brand[ -]new|baru|new|bnib|bnob|segel)"
_NOT_USED = _word(rf"{_NO} (?:yang |a |barang )?{_USED}")
_NOT_NEW = _word(rf"{_NO} (?:yang |a |barang )?{_NEW}")

_NEAR_ME = _word(
    r"(?:(?:di |ke )?(?:toko |penjual |warung "
    r"|tempat )?(?:yang )?(?:paling )?(?:terdekat|terdeket|paling (?:dekat"
    r"|deket))(?: dari (?:sini|saya|rumah|lokasi(?: saya)?|aku|gue|gw))?"
    r"|(?:di |yang )*(?:sekitar(?:an)?|dekat|deket|daerah|area)(?: dengan"
    r"| sama)? (?:sini|saya|sayaa|aku|gue|gw|rumah(?: saya)?|lokasi(?: saya)?"
    r"|lokasiku|kos(?:an)?|kantor saya)"
    r"|di sini|lokasi saya|kota saya|(?:the )?(?:nearest|closest)(?: to me| store"
    r"| shop| one)?(?: to me)?"
    r"|(?:near|around|close to|next to) (?:me|here|my (?:place|home|house|location))"
    r"|in my (?:area|city|neighbou?rhood)|nearby|near by|around here)"
)
_SUPERLATIVE = re.compile(r"terdekat|terdeket|paling d|nearest|closest")
_RADIUS = _word(
    r"(?:(?:dalam )?(?:radius|jarak)(?: maks(?:imal)?| max| of)?|within"
    r"|maks(?:imal)?|max|dalam)\s?(\d{1,4}(?:[.,]\d)?)\s?(?:km|kilometer|kilometers"
    r"|kilometre)(?: dari sini| of me| from me| away)?"
)
_SORTS: tuple[tuple[Sort, re.Pattern[str]], ...] = (
    ("-price", _word(r"(?:ter?mahal|paling mahal|(?:the )?most expensive|harga tertinggi"
        r"|highest price|priciest)")),
    (
        "price",
        _word(
            r"(?:(?:harga |yang )*(?:paling |ter)murah|(?:yang )?(?:lebih )?murah(?: meriah"
        r"| banget)?|murmer|murce|cheapest|cheaper|cheap|(?:lowest|best|low) price"
        r"|harga terendah|terjangkau|affordable|ekonomis|inexpensive)"
        ),
    ),
    (
        "delivery",
        _word(
            r"(?:(?:the |with )*(?:fastest|quickest|fast|quick|same[ -]day) (?:delivery"
        r"|shipping)|(?:pengiriman|kirim|dikirim|sampai)(?: paling)? (?:ter)?cepat"
        r"|(?:paling )?cepat (?:sampai|dikirim|sampe)|(?:bisa )?(?:sampai"
        r"|kirim) (?:hari ini|besok)|tercepat)"
        ),
    ),
)  # fmt: skip
_COUNTERS = (
    r"(?:buah|unit|pcs|pieces?|piece|biji|butir|lembar|batang|pasang|pairs?|pack"
    r"|packs|pak|box|boxes|dus|kardus|karung|sak|botol|bottles?|kaleng|set|ekor|roll"
    r"|rim|eksemplar|bungkus)"
)
_DOZENS = {"lusin": 12, "kodi": 20, "gross": 144}
_COUNTED = _word(rf"(\d{{1,6}}) ?{_COUNTERS}")
_DOZEN = _word(r"(\d{1,4}) ?(lusin|kodi|gross)")
_TIMES = _word(r"(?:x ?(\d{1,4})|(\d{1,4})x|(?:quantity|qty|jumlah)[: ]+(\d{1,6}))")
_WITHOUT = re.compile(
    rf"(?<!\w){_NO} (?:(?:yang|yg|warna|merk|merek|brand|untuk|buat|pakai|a|an|the"
    rf"|any|from|for|color|colour|made of|ada) )*(\w[\w'-]*)(?: (\w[\w'-]*))?"
)


def read_condition(query: Query) -> Condition | None:
    """Take the condition out of a query; "bukan bekas" is new."""
    wanted: Condition | None = None
    if query.take_all(_NOT_USED):
        wanted = "new"
    if query.take_all(_NOT_NEW):
        wanted = wanted or "used"
    used, new = query.take_all(_word(_USED)), query.take_all(_word(_NEW))
    # "baru atau bekas" is any.
    said: Condition | None = "used" if used and not new else "new" if new and not used else None
    return wanted or said


def read_nearness(query: Query) -> tuple[bool, bool]:
    """Take "near me" out of a query; the second says that the nearest of all is wanted."""
    found = query.take_all(_NEAR_ME)
    return bool(found), any(_SUPERLATIVE.search(match[0]) for match in found)


def read_radius(query: Query) -> float | None:
    """Take "within 5 km" out of a query: kilometres."""
    found = query.take(_RADIUS)
    return float(found[1].replace(",", ".")) or None if found else None


def read_sort(query: Query) -> Sort | None:
    """Take the wish for an order out of a query; the first in the table counts."""
    found = [sort for sort, pattern in _SORTS if query.take_all(pattern)]
    return found[0] if found else None


def read_without(query: Query) -> tuple[str, ...]:
    """Take what must not be out of a query: the known phrase, or the word, after a negation."""
    without: list[str] = []
    for match in reversed(list(_WITHOUT.finditer(query.text))):
        both = f"{match[1]} {match[2]}" if match[2] else ""
        phrase, end = (both, match.end()) if both in PHRASES else (match[1], match.end(1))
        query.cut(match.start(), end)
        without.insert(0, phrase)
    return tuple(dict.fromkeys(without))


def read_quantity(query: Query) -> int | None:
    """Take how many are wanted out of a query: "2 unit", "1 lusin", "x2"."""
    if found := query.take(_DOZEN):
        return int(found[1]) * _DOZENS[found[2]]
    found = query.take(_COUNTED) or query.take(_TIMES)
    return next(int(group) for group in found.groups() if group) or None if found else None
