"""Bytes of a page to an article: its text, and what is known of it.

Blocking: it runs in a thread. Never fetches, never logs what it read.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from app.engine.text.sentences import count_sentences, count_words, looks_english
from app.services.extraction.charset import clean_text, decode_text
from app.services.extraction.html_article import read_html
from app.services.extraction.page_metadata import PageMetadata
from app.services.extraction.pdf.text import read_pdf
from app.services.extraction.plain_text import read_plain_text
from app.services.fetching.errors import broken_off, no_article
from app.services.fetching.fetch import Page

MAX_CONTENT_CHARS = 200_000
PLAIN_TYPES = ("text/plain", "text/markdown", "text/x-markdown")

_langid_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """What a page turned out to be; None is not known.

    `date`: of publication, yyyy-mm-dd. `partial`: only a part of the article could be had.
    """

    content: str
    method: str
    url: str
    title: str | None = None
    author: str | None = None
    date: str | None = None
    site_name: str | None = None
    section: str | None = None
    tags: tuple[str, ...] = ()
    language: str | None = None
    partial: bool = False
    word_count: int = 0
    sentence_count: int = 0


def is_pdf(page: Page) -> bool:
    """Whether a page is a PDF, whatever the site calls it."""
    return page.media_type == "application/pdf" or page.body.startswith(b"%PDF-")


def read_article(page: Page, *, min_chars: int = 100) -> Article:
    """Return the article of a page.

    Raises:
        ScrapeFailed: no_article, when fewer than `min_chars` characters of text were found.
    """
    partial = page.partial
    if is_pdf(page):
        text, title, author, created = read_pdf(page.body)
        facts = PageMetadata(title=title, author=author, date=created)
        method, reason = "pdf", "The PDF holds no text (a scan needs text recognition first)"
    elif page.media_type in PLAIN_TYPES:
        text, title = read_plain_text(decode_text(page.body, page.charset, markup=False))
        facts = PageMetadata(title=title)
        method, reason = "plain_text", "The file holds hardly any text"
    else:
        found = read_html(page, min_chars)
        text, method, facts, reason = found.text, found.method, found.facts, found.reason
        partial = partial or found.partial
    content = clean_text(text).strip()[:MAX_CONTENT_CHARS]
    if len(content) < min_chars:
        raise broken_off() if page.partial else no_article(reason)
    language = facts.language
    # Many templates say "en" whatever is written in them.
    if language is None or (language == "en" and not looks_english(content)):
        language = _detect_language(content)
    return Article(
        content=content,
        method=method,
        url=page.url,
        title=facts.title,
        author=facts.author,
        date=facts.date,
        site_name=facts.site_name,
        section=facts.section,
        tags=facts.tags,
        language=language,
        partial=partial,
        word_count=count_words(content),
        sentence_count=count_sentences(content, language),
    )


def _detect_language(text: str) -> str | None:
    # Loading its model takes 0.3 s and 40 MB, and most pages say their language themselves.
    import py3langid

    with _langid_lock:
        code, _ = py3langid.classify(text[:2_000])
    return str(code) or None
