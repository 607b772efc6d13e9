"""The title of an article: of all that a page calls itself, what most of it agrees on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

from app.services.extraction.json_ld import ALIKE
from app.services.extraction.likeness import letters_of, likeness

MAX_TITLE_CHARS = 300
MAX_HEADINGS = 5

_TITLE_END = re.compile(r"\s+(?:[|\u2013\u2014\-:\u00b7\u2022»]|::|//)\s+")


def headings_of(tree: Any) -> list[str]:
    """Return the first headings of the first level, each on one line."""
    found = (" ".join(h1.text_content().split()) for h1 in islice(tree.iter("h1"), MAX_HEADINGS))
    return [text[:MAX_TITLE_CHARS] for text in found if text]


def document_title(tree: Any) -> str | None:
    """Return `<title>` of the page itself, not of a drawing in it."""
    for element in tree.iter("title"):
        parent = element.getparent()
        if parent is not None and parent.tag == "svg":
            continue
        if text := " ".join(element.text_content().split()):
            return str(text[: MAX_TITLE_CHARS * 2])
    return None


def choose_title(
    stated: Sequence[str | None], headings: Sequence[str], document: str | None, site: str | None
) -> str | None:
    """Return the candidate that agrees with most others, the earlier one where several do.

    `stated`: what the page's data say, best source first. `site`: the site's name, which alone is
    no title and at a title's end is none of it.
    """
    single = headings if len(headings) == 1 else ()
    sources = [*stated, *single, document]
    plain = [_without_site(text, site, headings) for text in sources if text]
    known = [text for text in plain if letters_of(text) != letters_of(site)]
    if not known:
        rest = [text for text in headings if letters_of(text) != letters_of(site)]
        return (rest[0] if rest else plain[0] if plain else None) or None
    agreeing = [sum(likeness(one, other) >= ALIKE for other in known) for one in known]
    best = max(range(len(known)), key=lambda i: (agreeing[i], -i))
    chosen = known[best]
    # A heading that the title begins with is the title without its decoration.
    for heading in single:
        if chosen != heading and any(
            chosen[: end.start()] == heading for end in _TITLE_END.finditer(chosen)
        ):
            return heading
    return chosen[:MAX_TITLE_CHARS]


def _without_site(title: str, site: str | None, headings: Sequence[str]) -> str:
    ends = list(_TITLE_END.finditer(title))
    if not ends:
        return title
    first, last = ends[0], ends[-1]
    head, tail = title[: last.start()], title[last.end() :]
    if site and letters_of(tail) == letters_of(site):
        return head
    if site and letters_of(title[: first.start()]) == letters_of(site):
        return title[first.end() :]
    for heading in headings:
        if any(title[: end.start()] == heading for end in ends):
            return heading
    return title
