"""Places in Indonesia that a query names, with their coordinates.

places.tsv and districts.tsv say where they come from.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rapidfuzz.distance import OSA

from app.services.market.interpretation.interpretation import Language, Place
from app.services.market.interpretation.words import Query, lines_of, sections_of

# What comes from a place by its very name ("kopi lampung", "batik solo").
_ORIGIN = re.compile(
    r"(?:nasi|bika|soto|dodol|mie|mi|kopi|tahu|pempek|bakpia|apel|salak|batik|ukiran"
    r"|songket|rendang|keripik|kripik|sate|lumpia"
    r"|bandeng|teh|kain|tenun|mebel|jeruk|beras|bakso|ayam|bebek|asli|khas|motif"
    r"|model|ala|style)\s*$"
)
_PREPOSITION = re.compile(
    r"(?:^|[\s|,])(?:di(?: dalam| sekitar| dekat| daerah| area| wilayah| kawasan)?"
    r"|dari|ke|daerah|area|wilayah|kawasan|sekitar(?:an)?"
    r"|dekat|deket|kota|kab(?:upaten)?|kec(?:amatan)?|provinsi|lokasi|domisili|kirim"
    r"|in|near|around|at|from|to|within|city of)\s*:?\s*$"
)
_AFTER = re.compile(r"\s+(?:kota|utara|selatan|timur|barat|pusat|tengah|city|raya)(?!\w)")
_WORD = re.compile(r"[^\s|,]+")


@lru_cache(maxsize=1)
def _gazetteer() -> dict[str, tuple[Place, bool]]:
    """Return name → place, and whether it is one without a preposition."""
    found: dict[str, tuple[Place, bool]] = {}
    lists = sections_of("place_words.txt")
    for line in lines_of("places.tsv"):
        name, lat, lng, known = line.split("\t")
        key = name.lower()
        place = Place(name, float(lat), float(lng))
        found[key] = (place, (known == "1" or key in lists["known"]) and key not in lists["words"])
    for line in lines_of("districts.tsv"):
        name, lat, lng, called = line.split("\t")
        for key in called.split(", "):
            found[key] = (Place(name, float(lat), float(lng)), key not in lists["words"])
    for key in list(found):
        # "Pangkal Pinang", "Pangkalpinang"
        found.setdefault(re.sub("[ -]", "", key), found[key])
    for line in lines_of("short_names.txt"):
        short, name = line.split(": ")
        found.setdefault(short, (found[re.sub("[ -]", "", name.lower())][0], True))
    return found


@lru_cache(maxsize=1)
def _spellable() -> list[str]:
    return [name for name, (_, known) in _gazetteer().items() if known and len(name) >= 6]


@lru_cache(maxsize=1)
def words_of_places() -> frozenset[str]:
    """Return the words that names of places are made of."""
    return frozenset(word for name in _gazetteer() for word in name.split())


def place_named(name: str) -> Place | None:
    """Return a place by its name or short name."""
    found = _gazetteer().get(" ".join(name.lower().split()))
    return found[0] if found else None


def read_place(query: Query, language: Language) -> Place | None:
    """Take the first place out of a query, with the preposition before it."""
    gazetteer = _gazetteer()
    words = list(_WORD.finditer(query.text))
    for number, word in enumerate(words):
        before = _PREPOSITION.search(query.text[max(0, word.start() - 32) : word.start()])
        for length in (4, 3, 2, 1):
            last = words[min(number + length, len(words)) - 1]
            if number + length > len(words):
                continue
            name = " ".join(query.text[word.start() : last.end()].split()).strip(".?!:;")
            found = gazetteer.get(name)
            if found is None and before is not None and length == 1:
                found = _misspelt(name)
            if found is None:
                continue
            place, known = found
            if before is None and (
                not known or _ORIGIN.search(query.text[max(0, word.start() - 16) : word.start()])
            ):
                continue
            _cut(query, word.start(), last.end())
            return place
    return None


def _misspelt(name: str) -> tuple[Place, bool] | None:
    if len(name) < 6:
        return None
    near = [
        known
        for known in _spellable()
        if known[0] == name[0] and OSA.distance(known, name, score_cutoff=1) <= 1
    ]
    return _gazetteer()[near[0]] if len(near) == 1 else None


def _cut(query: Query, start: int, end: int) -> None:
    """Take a place out with all prepositions before it ("di daerah kota X"), and what follows."""
    for _ in range(3):
        offset = max(0, start - 32)
        before = _PREPOSITION.search(query.text[offset:start])
        if before is None:
            break
        start = offset + before.start()
    if after := _AFTER.match(query.text, end):
        end = after.end()
    query.cut(start, end)
