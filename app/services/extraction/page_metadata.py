"""What a page says of itself in <head> and in JSON-LD; never looks at the article's own text.

Every value is whatever the publisher wrote, cut to a sane length; what is not known is None.
"""

from __future__ import annotations

import contextlib
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

from app.services.extraction.charset import clean_text

MAX_TAGS = 20
MAX_VALUE_CHARS = 300
# JSON-LD of a shop can list a thousand products; an article is found in the first few nodes.
MAX_NODES = 5_000

_ARTICLE_TYPE = re.compile(r"(?:Article|BlogPosting|Report|Review)$")
_ISO_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?!\d)")
_TITLE_END = re.compile(r"\s+(?:[|\u2013\u2014\-:\u00b7\u2022»]|::|//)\s+")
_PUBLISHED = ("article:published_time", "datepublished", "og:published_time", "parsely-pub-date")
_DATED = ("date", "dc.date", "dc.date.issued", "citation_publication_date", "pubdate")
_LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])")
_BY = re.compile(r"^by\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageMetadata:
    """`body`: the article as JSON-LD repeats it. `date`: yyyy-mm-dd."""

    title: str | None = None
    author: str | None = None
    date: str | None = None
    site_name: str | None = None
    section: str | None = None
    tags: tuple[str, ...] = ()
    language: str | None = None
    description: str | None = None
    body: str | None = None


def read_metadata(tree: Any) -> PageMetadata:
    """Return the metadata of an lxml document."""
    meta: dict[str, list[str]] = {}
    for element in tree.iter("meta"):
        for name in ("property", "name", "itemprop", "http-equiv"):
            key, value = element.get(name), _line(element.get("content"))
            if key and value:
                meta.setdefault(key.strip().lower(), []).append(value)
    nodes = list(_json_ld_nodes(tree))
    article: dict[str, Any] = next((node for node in nodes if _is_article(node)), {})
    site_name = _first(meta, "og:site_name", "application-name") or _name(article.get("publisher"))
    return PageMetadata(
        title=_title(tree, meta, article, site_name),
        author=_author(meta, article),
        date=_date(tree, meta, article),
        site_name=site_name,
        section=_first(meta, "article:section", "parsely-section", "section")
        or _name(article.get("articleSection")),
        tags=_tags(meta, article),
        language=_language(tree, meta, article),
        description=_longest(meta, "og:description", "description", "twitter:description"),
        body=_body(nodes),
    )


def _line(value: object) -> str | None:
    """Return a value on one line, None if it is no text or empty."""
    if not isinstance(value, str):
        return None
    return clean_text(" ".join(html.unescape(value).split()))[: MAX_VALUE_CHARS * 10] or None


def _first(meta: dict[str, list[str]], *names: str) -> str | None:
    found = next((meta[name][0] for name in names if name in meta), None)
    return found[:MAX_VALUE_CHARS] if found else None


def _longest(meta: dict[str, list[str]], *names: str) -> str | None:
    return max((value for name in names for value in meta.get(name, [])), key=len, default=None)


def _json_ld_nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every object of every block, however nested in lists, @graph or properties."""
    left = MAX_NODES
    for script in tree.iter("script"):
        if "ld+json" not in (script.get("type") or "").lower():
            continue
        try:
            # strict=False: real pages have raw line breaks inside strings.
            stack: list[Any] = [json.loads(script.text or "", strict=False)]
        except (ValueError, RecursionError):
            continue
        while stack and left > 0:
            left -= 1
            node = stack.pop()
            if isinstance(node, dict):
                yield node
                stack.extend(reversed(list(node.values())))
            elif isinstance(node, list):
                stack.extend(reversed(node[:MAX_NODES]))


def _is_article(node: dict[str, Any]) -> bool:
    types = node.get("@type")
    names = types if isinstance(types, list) else [types]
    return any(isinstance(name, str) and _ARTICLE_TYPE.search(name) for name in names)


def _body(nodes: list[dict[str, Any]]) -> str | None:
    bodies = (node.get("articleBody") for node in nodes)
    return max((body for body in bodies if isinstance(body, str)), key=len, default=None)


def _name(value: object) -> str | None:
    """Return the name of a string, an object with a name, or the first of a list of either."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("name")
    line = _line(value)
    return line[:MAX_VALUE_CHARS] if line else None


def _title(
    tree: Any, meta: dict[str, list[str]], article: dict[str, Any], site_name: str | None
) -> str | None:
    # Two are enough to know that there is more than one; a page can nest a thousand.
    some = (_line(h1.text_content()) for h1 in islice(tree.iter("h1"), 2))
    headings = [line for line in some if line]
    heading = headings[0][:MAX_VALUE_CHARS] if len(headings) == 1 else None
    title = (
        _first(meta, "og:title")
        or _name(article.get("headline"))
        or _first(meta, "twitter:title")
        or heading
        or next((line for el in tree.iter("title") if (line := _line(el.text_content()))), None)
    )
    if title is None:
        return headings[0][:MAX_VALUE_CHARS] if headings else None
    ends = [match.start() for match in _TITLE_END.finditer(title)]
    if heading and any(title[:end] == heading for end in ends):
        return heading
    if site_name and ends and _TITLE_END.split(title)[-1].casefold() == site_name.casefold():
        title = title[: ends[-1]]
    return title[:MAX_VALUE_CHARS]


def _author(meta: dict[str, list[str]], article: dict[str, Any]) -> str | None:
    authors = article.get("author")
    names = [_name(a) for a in (authors if isinstance(authors, list) else [authors])[:10]]
    names = names if any(names) else list(meta.get("author") or meta.get("article:author") or [])
    people = [_BY.sub("", name) for name in names if name and "://" not in name]
    return ", ".join(dict.fromkeys(people))[:MAX_VALUE_CHARS] or None


def _date(tree: Any, meta: dict[str, list[str]], article: dict[str, Any]) -> str | None:
    values: list[object] = [article.get("datePublished")]
    for name in _PUBLISHED:
        values += meta.get(name, [])
    values += [el.get("datetime") for el in tree.iter("time") if el.get("itemprop")]
    for name in _DATED:
        values += meta.get(name, [])
    return next((iso for value in values if (iso := iso_date(value))), None)


def iso_date(value: object) -> str | None:
    """Return yyyy-mm-dd of an ISO or RFC 5322 date, as it was written, without any time zone."""
    if not isinstance(value, str):
        return None
    if match := _ISO_DATE.match(value.strip()):
        with contextlib.suppress(ValueError):
            return _plausible(date(*map(int, match.groups())))
        return None
    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
        return _plausible(parsedate_to_datetime(value).date())
    return None


def _plausible(day: date) -> str | None:
    """Return the day, None for the zero dates that templates print where none was set."""
    return day.isoformat() if 1900 <= day.year <= 2100 else None


def _tags(meta: dict[str, list[str]], article: dict[str, Any]) -> tuple[str, ...]:
    keywords = article.get("keywords")
    found: list[object] = list(meta.get("article:tag", []))
    found += keywords if isinstance(keywords, list) else [keywords]
    found += meta.get("news_keywords", []) + meta.get("keywords", [])
    tags: dict[str, str] = {}
    for value in found:
        for tag in (_line(value) or "").split(","):
            if 1 < len(tag.strip()) <= 60:
                tags.setdefault(tag.strip().casefold(), tag.strip())
    return tuple(tags.values())[:MAX_TAGS]


def _language(tree: Any, meta: dict[str, list[str]], article: dict[str, Any]) -> str | None:
    root = tree.getroottree().getroot()
    written = (
        root.get("lang"),
        root.get("{http://www.w3.org/XML/1998/namespace}lang") or root.get("xml:lang"),
        _first(meta, "content-language", "og:locale", "language"),
        article.get("inLanguage"),
    )
    matches = (_LANGUAGE.match((_line(value) or "").lower()) for value in written)
    return next((match[0] for match in matches if match), None)
