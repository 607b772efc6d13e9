"""What a page says of itself in <head> and in JSON-LD; never looks at the article's own text.

Every value is whatever the publisher wrote, cut to a sane length; what is not known is None.
"""

from __future__ import annotations

import contextlib
import html
import re
from dataclasses import dataclass
from datetime import date
from email.utils import parsedate_to_datetime
from typing import Any

from app.services.extraction.bylines import MAX_AUTHORS, clean_authors, visible_author
from app.services.extraction.charset import clean_text
from app.services.extraction.json_ld import OwnNode, body_of, is_free, own_node
from app.services.extraction.titles import choose_title, document_title, headings_of

MAX_TAGS = 20
MAX_VALUE_CHARS = 300

_ISO_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?!\d)")
_PUBLISHED = ("article:published_time", "datepublished", "og:published_time", "parsely-pub-date")
_DATED = ("date", "dc.date", "dc.date.issued", "citation_publication_date", "pubdate")
_URL_DATE = re.compile(r"/((?:19|20)\d\d)/(0[1-9]|1[0-2])/(0[1-9]|[12]\d|3[01])(?=/|$)")
_ASIDE = frozenset(("aside", "nav", "footer", "li"))
_LANGUAGE = re.compile(r"[a-z]{2,3}(?![a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageMetadata:
    """`body`: the article as JSON-LD repeats it. `date`: of publication, yyyy-mm-dd.

    `is_live`: the body is the updates of a live blog. `is_free`: whether all of it can be read.
    """

    title: str | None = None
    author: str | None = None
    date: str | None = None
    site_name: str | None = None
    section: str | None = None
    tags: tuple[str, ...] = ()
    language: str | None = None
    description: str | None = None
    body: str | None = None
    is_live: bool = False
    is_free: bool | None = None
    modified: str | None = None


def read_metadata(tree: Any, url: str = "") -> PageMetadata:
    """Return the metadata of an lxml document that was fetched from `url`."""
    meta: dict[str, list[str]] = {}
    for element in tree.iter("meta"):
        for name in ("property", "name", "itemprop", "http-equiv"):
            key, value = element.get(name), _line(element.get("content"))
            if key and value:
                meta.setdefault(key.strip().lower(), []).append(value)
    headings, document = headings_of(tree), document_title(tree)
    og_title = _first(meta, "og:title")
    called = [text for text in (og_title, document, *headings) if text]
    own = own_node(tree, url, called)
    site_name = _first(meta, "og:site_name", "application-name") or _name(own.get("publisher"))
    stated = (
        og_title,
        _name(own.node.get("headline")),
        _name(own.node.get("name")),
        _first(meta, "twitter:title"),
    )
    return PageMetadata(
        title=choose_title(stated, headings, document, site_name),
        author=_author(tree, meta, own),
        date=_date(tree, meta, own, url),
        site_name=site_name,
        section=_first(meta, "article:section", "parsely-section", "section")
        or _name(own.node.get("articleSection")),
        tags=_tags(meta, own.node),
        language=_language(tree, meta, own.node),
        description=_longest(meta, "og:description", "description", "twitter:description"),
        body=body_of(own),
        is_live=isinstance(own.node.get("liveBlogUpdate"), list),
        is_free=is_free(own),
        modified=_modified(meta, own),
    )


def completed(own: PageMetadata, found: Any) -> PageMetadata:
    """Fill what the page's own data leave open with what trafilatura guessed from the layout."""

    def guess(name: str) -> str | None:
        value = getattr(found, name, None)
        return clean_text(value).strip()[:300] or None if isinstance(value, str) else None

    categories = getattr(found, "categories", None) or [None]
    return PageMetadata(
        title=own.title or guess("title"),
        # An author that only the layout suggests is as often somebody else.
        author=own.author,
        date=own.date or _unmodified(iso_date(guess("date")), own.modified),
        site_name=own.site_name or guess("sitename"),
        section=own.section or categories[0] or None,
        tags=own.tags or tuple(getattr(found, "tags", None) or ())[:20],
        language=own.language,
        description=own.description,
        body=own.body,
        is_live=own.is_live,
        is_free=own.is_free,
    )


def _unmodified(day: str | None, modified: str | None) -> str | None:
    """Return a day that is not known to be the one of the last change."""
    return day if day != modified else None


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


def _name(value: object) -> str | None:
    """Return the name of a string, an object with a name, or the first of a list of either."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("name")
    line = _line(value)
    return line[:MAX_VALUE_CHARS] if line else None


def _author(tree: Any, meta: dict[str, list[str]], own: OwnNode) -> str | None:
    authors = own.get("author")
    listed = authors if isinstance(authors, list) else [authors]
    stated = clean_authors(_name(one) for one in listed[:MAX_AUTHORS])
    stated = stated or clean_authors(meta.get("author") or meta.get("article:author") or ())
    return stated or visible_author(tree)


def _date(tree: Any, meta: dict[str, list[str]], own: OwnNode, url: str) -> str | None:
    values: list[object] = [own.node.get("datePublished")]
    for name in _PUBLISHED:
        values += meta.get(name, [])
    times = [time for time in tree.iter("time") if time.get("datetime")]
    values += [t.get("datetime") for t in times if t.get("itemprop") == "datePublished"]
    values += [t.get("datetime") for t in times if t.get("pubdate") is not None]
    for name in _DATED:
        values += meta.get(name, [])
    # Modified is not published; what stands beside neither says which it is.
    values += [t.get("datetime") for t in times if _is_the_articles(t)]
    if match := _URL_DATE.search(url):
        values.append("-".join(match.groups()))
    return next((iso for value in values if (iso := iso_date(value))), None)


def _modified(meta: dict[str, list[str]], own: OwnNode) -> str | None:
    stated = [own.node.get("dateModified")]
    for name in ("article:modified_time", "og:updated_time", "datemodified", "last-modified"):
        stated += meta.get(name, [])
    return next((iso for value in stated if (iso := iso_date(value))), None)


def _is_the_articles(time: Any) -> bool:
    """Say whether a `<time>` is the date of the article: in its header, and of no change."""
    named = f"{time.get('class') or ''} {time.get('itemprop') or ''}".lower()
    if any(word in named for word in ("modif", "updat")):
        return False
    before = " ".join((time.getprevious().text_content() if _has_text(time) else "").split())
    said = f"{before} {(time.getparent().text or '') if time.getparent() is not None else ''}"
    if any(word in said.lower() for word in ("updated", "modified", "aktualisiert", "mis à jour")):
        return False
    inside = [node.tag for node in time.iterancestors()]
    return ("article" in inside or "main" in inside) and not _ASIDE & set(inside)


def _has_text(element: Any) -> bool:
    previous = element.getprevious()
    return previous is not None and isinstance(previous.tag, str)


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
