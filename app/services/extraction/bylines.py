"""Who wrote an article: names cleaned of what templates put around them, none rather than a guess.

A value that is a word of the user interface, a date, a role, an address or a list of references is
no name. What the page does not state in its data may stand in a visible byline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

MAX_AUTHORS = 10
MAX_NAME_CHARS = 80
MAX_AUTHOR_CHARS = 300
# A byline is a line; what is longer is a list of references or a whole box about the author.
MAX_BYLINE_CHARS = 200
MAX_LOOKED_AT = 40

_UI_WORDS = """
    username user users admin administrator administrador webmaster editor redaktion redaktor
    redaksi redacción redaccion redazione rédaction redaction staff author autor auteur autore
    penulis writer guest guests anonymous unknown none null nan undefined n/a na test root login
    log-in signin follow share subscribe comments comment reply print email contact profile account
    menu home news staff-writer default moderator support team system wordpress blogger nobody
"""
_NOT_A_NAME = frozenset(_UI_WORDS.split())
_UI_PHRASE = re.compile(
    r"^(?:log ?in|sign ?(?:in|up)|view all|see all|all posts|more (?:by|from)|read more|follow|"
    r"share|posted|updated|published|last (?:modified|updated)|my account|click|write for|"
    r"about the|get |subscribe|comments?\b|leave a|no comments|\d+ (?:comments|min))",
    re.IGNORECASE,
)
_BY = re.compile(
    r"^(?:(?:written|posted|reported|words|story|text|article|review(?:ed)?|published)\s+by|by|von|par|"
    r"por|di|oleh|door|af|av|autor(?:en|a)?|auteur|author|penulis|автор|作者|文)\b\s*[:：]?\s*|"
    r"^(?:作者|文|撰文|記者|记者)\s*[:：/／]\s*",
    re.IGNORECASE,
)
_MONTH = (
    r"jan(?:uary|uar|vier|eiro)?|feb(?:ruary|ruar)?|mar(?:ch|s|et|ço)?|märz|apr(?:il)?|may|mai|mei|"
    r"jun[ei]?|jul[yi]?|aug(?:ust)?|agustus|sep(?:t(?:ember)?)?|o[ck]t(?:ober)?|nov(?:ember)?|"
    r"de[cs](?:ember)?"
)
# From here on a byline speaks of something else: a date, a time, a bar, a role, an address.
_AFTER_NAME = re.compile(
    rf"\s*(?:\b(?:{_MONTH})\.?\s+\d|\b\d{{1,2}}\.?\s+(?:{_MONTH})\b|\b\d{{1,4}}[./-]\d|\b\d{{4}}\b|"
    rf"\b\d{{1,2}}:\d\d|[|•·]|\s[-–—]\s|\b(?:mon|tues?|wednes|thurs?|fri|satur|sun)day\b|"
    r"\b(?:updated|published|posted|last modified|on)\b\s*[:\d]|@|https?:|www\.)",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"^(?:(?:senior|chief|staff|special|associate|deputy|managing|political|science|business|sports?)"
    r"\s+)*(?:reporter|editor|writer|correspondent|contributor|columnist|journalist|producer|"
    r"photographer|analyst|critic|redakteur(?:in)?|korrespondent(?:in)?|freelance\w*)\b",
    re.IGNORECASE,
)
_PARTICLES = frozenset(
    ("de", "da", "van", "von", "der", "den", "la", "le", "di", "del", "bin", "al", "dos", "ten")
)
_BETWEEN = re.compile(r"\s*(?:;|,?\s+\b(?:and|und|et|y|e|dan|en|og|och)\b\s+|\s+&\s+|\n)\s*")
_OUTSIDE = ("nav", "header", "footer", "aside", "form")
_OUTSIDE_NAMES = re.compile(
    r"comment|menu|nav|footer|related|sidebar|widget|user-|login|account|teaser|promo|bio",
    re.IGNORECASE,
)
_BYLINES = (
    "//*[@itemprop='author' or @rel='author' or contains(concat(' ', @rel, ' '), ' author ')]"
    "|//*[contains(translate(@class, 'ABCDEFGHILNORTUWY', 'abcdefghilnortuwy'), 'byline')"
    " or contains(translate(@class, 'ABCDEFGHILNORTUWY', 'abcdefghilnortuwy'), 'author')]"
)


def clean_authors(values: Iterable[object]) -> str | None:
    """Return the names among what a page states, with commas between; None where none is left."""
    names: dict[str, str] = {}
    for value in islice(values, MAX_AUTHORS * 3):
        if not isinstance(value, str):
            continue
        for part in _BETWEEN.split(" ".join(value.split())[: MAX_BYLINE_CHARS * 2]):
            for name in _names(part):
                names.setdefault(name.casefold(), name)
    return ", ".join(list(names.values())[:MAX_AUTHORS])[:MAX_AUTHOR_CHARS] or None


def visible_author(tree: Any) -> str | None:
    """Return who the visible byline names; None where there is none that can be told for sure."""
    for element in islice(tree.xpath(_BYLINES), MAX_LOOKED_AT):
        if any(_is_outside(node) for node in (element, *element.iterancestors())):
            continue
        text = " ".join(" ".join(element.itertext()).split())
        if not 2 < len(text) <= MAX_BYLINE_CHARS:
            continue
        found = clean_authors([text])
        if found and all(_looks_like_a_name(name) for name in found.split(", ")):
            return found
    return None


def _names(text: str) -> list[str]:
    text = _BY.sub("", text.strip(" ,;:|·•-–—")).strip()
    cut = _AFTER_NAME.search(text)
    text = (text[: cut.start()] if cut else text).strip(" ,;:|·•-–—(")
    # "Anna Lindqvist, Senior Reporter" is one name, "Anna Lindqvist, Bo Ek" are two.
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 2 and " " not in parts[0] and " " not in parts[1] and parts[1]:
        parts = [text]
    return [part for part in parts if _is_a_name(part)]


def _is_a_name(text: str) -> bool:
    if not 2 <= len(text) <= MAX_NAME_CHARS or not any(map(str.isalpha, text)):
        return False
    folded = text.casefold()
    if folded in _NOT_A_NAME or folded.replace(" ", "-") in _NOT_A_NAME:
        return False
    if "://" in text or "@" in text or "/" in text or "www." in folded or _UI_PHRASE.match(text):
        return False
    if _ROLE.match(text) or sum(map(str.isdigit, text)) > 2:
        return False
    return len(text.split()) <= 8


def _looks_like_a_name(text: str) -> bool:
    """Say whether every word begins as a name's does; some scripts have no such sign."""
    words = [word for word in re.split(r"[\s\-.'’]+", text) if word]
    return 1 <= len(words) <= 6 and all(
        not word[0].islower() or word in _PARTICLES for word in words
    )


def _is_outside(element: Any) -> bool:
    if element.tag in _OUTSIDE and element.tag != "header":
        return True
    if element.tag == "header":
        # The header of an article has its byline; that of the page has its menus.
        return not any(node.tag in ("article", "main") for node in element.iterancestors())
    return bool(_OUTSIDE_NAMES.search(f"{element.get('class') or ''} {element.get('id') or ''}"))
