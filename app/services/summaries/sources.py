"""What is to be summarised: a page that the scraper fetches, or a text that the client sent.

Checks the input before any work. Knows nothing of engines or HTTP.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from app.core.errors import InvalidInput, ScrapeFailed
from app.engine.base import Document

MAX_URL_CHARS = 2_000
MIN_TEXT_CHARS = 50
MAX_TEXT_CHARS = 50_000
MIN_VISIBLE_CHARS = 30

_ONLY_A_URL = re.compile(r"https?://\S+", re.IGNORECASE)
_LINK = re.compile(r"https?://[^\s<>\"'“”«»]+", re.IGNORECASE)
# A name with a dot and a known kind of end, as people type it: example.com/a.
_BARE = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?::\d{1,5})?(?:[/?#]\S*)?")


class Scraper(Protocol):
    """The part of the article scraper that is needed here."""

    def scrape_url(self, url: str, *, use_cache: bool = ...) -> Awaitable[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Input:
    """Exactly one of the two is set, and it has been checked."""

    url: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A text to summarise. `facts`: what the metadata event says of it, without unknown values."""

    document: Document
    facts: dict[str, Any]
    scrape_ms: float


def check_input(url: str | None, text: str | None, *, loose_url: bool = False) -> Input:
    """Return the one input of a request.

    A `text` that is nothing but one URL is that URL (A13). `loose_url`: a `url` that is none is
    text (A14).

    Raises:
        InvalidInput: neither or both were given, or the one is out of its limits.
    """
    url = _typed_url(url or "") or None
    text = _legal(text) if text is not None and text.strip() else None
    if (url is None) == (text is None):
        raise InvalidInput("give exactly one of 'url' and 'text'")
    if text is not None and (link := _shared_link(text)) is not None:
        url, text = link, None
    if url is None:
        return Input(text=_checked_text(text or ""))
    if loose_url and not _ONLY_A_URL.fullmatch(url):
        return Input(text=_checked_text(_legal(url)))
    return Input(url=_checked_url(url))


async def read_source(scraper: Scraper, given: Input, *, use_cache: bool) -> Source:
    """Fetch the page, or take the text.

    Raises:
        ScrapeFailed: the page cannot be had, or holds no article.
    """
    if given.text is not None:
        facts = {"input_type": "text", "text_length": len(given.text)}
        return Source(Document(text=given.text), facts, 0.0)
    assert given.url is not None  # noqa: S101  (check_input set one of the two)
    started_s = time.perf_counter()
    if use_cache:
        page = await scraper.scrape_url(given.url)
    else:
        page = await scraper.scrape_url(given.url, use_cache=False)
    scrape_ms = round((time.perf_counter() - started_s) * 1000, 2)
    content = _legal(page["content"])
    if not content.strip():
        raise ScrapeFailed("the page holds no article; paste its text instead", code="no_article")
    facts = {
        "input_type": "url",
        "url": page.get("url") or given.url,
        "title": page.get("title"),
        "author": page.get("author"),
        "date": page.get("date"),
        "site_name": page.get("site_name"),
        "scrape_method": page.get("method"),
        "scrape_latency_ms": scrape_ms,
        "extracted_text_length": len(content),
        "partial": page.get("partial") or None,
    }
    document = Document(
        text=content,
        title=page.get("title"),
        site_name=page.get("site_name"),
        section=page.get("section"),
        tags=tuple(page.get("tags") or ()),
        language=page.get("language"),
    )
    return Source(document, {k: v for k, v in facts.items() if v is not None}, scrape_ms)


def _typed_url(url: str) -> str:
    """Return what somebody who typed or pasted this meant: a scheme is added, words are dropped."""
    if len(url) > MAX_URL_CHARS:
        return url.strip()
    url = url.strip().strip("<>\"'“”«»").strip()
    if _BARE.fullmatch(url):
        return f"https://{url}"
    if not _ONLY_A_URL.fullmatch(url) and (link := _shared_link(url)) is not None:
        return link
    return url


def _shared_link(text: str) -> str | None:
    """Return the one link of a text that says too little without it, as a share sheet sends it."""
    text = text.strip()
    # A link and the few words beside it; a longer text is one, and is not walked through here.
    if len(text) > 2 * MAX_URL_CHARS:
        return None
    links = _LINK.findall(text)
    if len(set(links)) != 1:
        return None
    beside = _LINK.sub("", text)
    if sum(not char.isspace() for char in beside) >= MIN_VISIBLE_CHARS:
        return None
    link = str(links[0])
    # A full stop or a bracket behind a link belongs to the words around it.
    if beside.strip():
        # "https://exa mple.com" is a slip of the keyboard, not a link with words behind it.
        if not re.match(r"https?://(?:[^/?#]+\.[^/?#.]|localhost\b|\[)", link, re.IGNORECASE):
            return None
        link = link.rstrip(".,;:!?…")
        while link.endswith((")", "]")) and link.count("(") < link.count(")") + link.count("]"):
            link = link[:-1]
    return link


def _legal(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot carry, and drop NUL."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def _checked_url(url: str) -> str:
    if len(url) > MAX_URL_CHARS:
        raise InvalidInput(f"'url' is longer than {MAX_URL_CHARS} characters", code="invalid_url")
    fix = "'url' must be an http or https address, such as https://example.com/article"
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        raise InvalidInput(fix, code="invalid_url") from None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f]", url):
        raise InvalidInput(fix, code="invalid_url")
    return url


def _checked_text(text: str) -> str:
    if len(text) < MIN_TEXT_CHARS or len(text) > MAX_TEXT_CHARS:
        raise InvalidInput(
            f"'text' must have {MIN_TEXT_CHARS} to {MAX_TEXT_CHARS} characters; it has {len(text)}",
            code="invalid_text",
        )
    if sum(not char.isspace() for char in text) < MIN_VISIBLE_CHARS:
        raise InvalidInput(
            f"'text' needs at least {MIN_VISIBLE_CHARS} characters that are not white space",
            code="invalid_text",
        )
    return text
