"""How alike two short texts are, in any script: titles, headlines, names of sites."""

from __future__ import annotations

import re

from app.engine.text.sentences import HAN_KANA, SOUTH_EAST_ASIAN

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(f"[{HAN_KANA}{SOUTH_EAST_ASIAN}]")


def likeness(one: str | None, other: str | None) -> float:
    """Return the share of the shorter text's words that the longer one has, 0 to 1.

    Scripts without spaces are compared by pairs of characters.
    """
    few, many = sorted((_units(one or ""), _units(other or "")), key=len)
    return len(few & many) / len(few) if few else 0.0


def letters_of(text: str | None) -> str:
    """Return what of a text tells it from others: its letters and digits, case folded."""
    return "".join(filter(str.isalnum, (text or "").casefold()))


def _units(text: str) -> set[str]:
    folded = text.casefold()
    if len(_UNSPACED.findall(folded)) * 2 > len(letters_of(folded)):
        plain = letters_of(folded)
        return {plain[i : i + 2] for i in range(max(1, len(plain) - 1))} if plain else set()
    return set(_WORD.findall(folded))
