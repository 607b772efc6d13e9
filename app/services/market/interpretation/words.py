"""The words of a query: folding, the words that say nothing, and the language they are in."""

from __future__ import annotations

import re
import unicodedata
from importlib.resources import files

from app.services.market.interpretation.interpretation import Language

# What is longer is no query; the rest of it is not read.
MAX_CHARS = 300

_ODD = re.compile(r"[^\w\s.,/<>=~±+\"'&$-]")
_WORD = re.compile(r"[^\s|]+")


def lines_of(name: str) -> list[str]:
    """Return the lines of a table of this folder, without comments."""
    lines = (files(__package__) / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def sections_of(name: str) -> dict[str, frozenset[str]]:
    """Return the lists of a table with headings in brackets."""
    found: dict[str, set[str]] = {}
    for line in lines_of(name):
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), set())
        else:
            lines.add(line)
    return {heading: frozenset(lines) for heading, lines in found.items()}


_LISTS = {
    heading: frozenset(word for line in lines for word in line.split())
    for heading, lines in sections_of("common_words.txt").items()
}
INDONESIAN, ENGLISH = _LISTS["indonesian"], _LISTS["english"] | _LISTS["english goods"]
# One letter from the name of a good, and right as they are.
NEVER_MENDED = _LISTS["like goods"]
# Words of a query that no product is found by.
FILLERS = INDONESIAN | _LISTS["english"] | _LISTS["fillers"]


def folded(text: str) -> str:
    """Return text as it is compared: lower case, one form of each letter, single spaces."""
    plain = unicodedata.normalize("NFKC", text[:MAX_CHARS]).lower()
    plain = plain.replace("“", '"').replace("”", '"').replace("″", '"').replace("’", "'")
    plain = plain.replace("–", "-").replace("—", "-").replace("≤", "<=").replace("≥", ">=")
    return " ".join(_ODD.sub(" ", plain).split())


def words_of(text: str) -> list[str]:
    """Return the words of a folded text without the signs around them."""
    stripped = (word.strip(".,/<>=~±+\"'&$-") for word in _WORD.findall(text))
    return [word for word in stripped if word]


def language_of(text: str) -> Language:
    """Say which language a query is in; Indonesian, where both are as likely."""
    words = words_of(text)
    indonesian = sum(word in INDONESIAN for word in words)
    return "en" if sum(word in ENGLISH for word in words) > indonesian else "id"


class Query:
    """A folded query from which each reader takes what it understands.

    What was taken leaves a bar, over which no phrase is read.
    """

    def __init__(self, text: str) -> None:
        self.text = f" {text} "

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Take the first match out of the query."""
        found = pattern.search(self.text)
        if found is not None:
            self.cut(found.start(), found.end())
        return found

    def take_all(self, pattern: re.Pattern[str]) -> list[re.Match[str]]:
        """Take all matches out of the query."""
        found = list(pattern.finditer(self.text))
        for match in reversed(found):
            self.cut(match.start(), match.end())
        return found

    def cut(self, start: int, end: int) -> None:
        """Take what stands between two places."""
        self.text = f"{self.text[:start]} | {self.text[end:]}"
