"""The words of goods: categories, brands and features, Indonesian and English, a table each.

A category is written as most sellers in Indonesia write it. A phrase may have several words; the
longest one that fits wins.
"""

from __future__ import annotations

from app.services.market.interpretation.words import folded, lines_of

# What a vehicle's part is for is a feature of the part.
VEHICLES = {"motor", "mobil", "car"}
OF_VEHICLES = {"ban", "oli", "aki", "helm"}


def _table(name_of_file: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return phrase → category, and phrase → the feature that it says besides."""
    found: dict[str, str] = {}
    besides: dict[str, str] = {}
    for line in lines_of(name_of_file):
        name, phrases = line.split(":", 1)
        for phrase in phrases.split(","):
            said, _, feature = phrase.strip().partition("=")
            found[folded(said)] = name
            if feature:
                besides[folded(said)] = feature
    return found, besides


def _names(name_of_file: str) -> dict[str, str]:
    """Return phrase → name, of names with `=` before other ways to say them."""
    return {
        folded(said): names.split("=")[0].strip()
        for names in lines_of(name_of_file)
        for said in names.split("=")
    }


CATEGORIES, FEATURES_BESIDES = _table("categories.txt")
BRANDS = _names("brands.txt")
TAGS = _names("features.txt")
PHRASES = CATEGORIES.keys() | BRANDS.keys() | TAGS.keys()
LONGEST_PHRASE = max(len(phrase.split()) for phrase in PHRASES)
# Words of the goods that a slip of the keys may hide, by their first letter.
SPELLABLE: dict[str, list[str]] = {}
for _word in sorted(
    {word for phrase in CATEGORIES.keys() | BRANDS.keys() for word in phrase.split()}
    | {"gaming", "wireless", "bluetooth", "inverter"}
):
    if len(_word) >= 5:
        SPELLABLE.setdefault(_word[0], []).append(_word)
