"""Bytes of a page to an article: its text, and what is known of it.

Blocking: it runs in a thread. Never fetches, never logs what it read. trafilatura reads HTML;
where it finds little, the page's own structured data speak, and then its plain markup.
"""

from __future__ import annotations

import contextlib
import html as entities
import itertools
import logging
import re
import threading
from dataclasses import dataclass
from typing import Any

import lxml.etree  # type: ignore[import-untyped]  # ships no types
import lxml.html  # type: ignore[import-untyped]  # ships no types

from app.engine.text.sentences import count_words, looks_english, split_sentences
from app.services.extraction.charset import clean_text, decode_text
from app.services.extraction.markup import is_parsable
from app.services.extraction.page_metadata import PageMetadata, iso_date, read_metadata
from app.services.extraction.pdf_text import read_pdf
from app.services.fetching.errors import no_article
from app.services.fetching.fetch import Page

# trafilatura takes 1 s for 20,000 elements, 4 if they are 240 deep; articles have a few thousand.
MAX_ELEMENTS = 30_000
MAX_CONTENT_CHARS = 200_000
# A page whose text is put in by script shows a teaser, while its JSON-LD has the whole article.
JSON_LD_WINS = 2.0

_SKIPPED = ("script", "style", "noscript", "template", "nav", "aside", "footer", "form", "svg")
_BLOCKS = ("p", "h1", "h2", "h3", "h4", "li", "blockquote", "pre", "br", "div", "section", "tr")
# Small boxes that say of themselves that they are not the article, wherever they stand in it.
# The class comes first in the condition: the text of every element is quadratic in the nesting.
_INSERT_CLASSES = ("ad", "ads", "advert", "advertisement", "sponsored", "promo", "newsletter")
_INSERTS = "//*[({}) and string-length(normalize-space(.)) < 600]".format(
    " or ".join(
        f"contains(concat(' ', normalize-space(@class), ' '), ' {name} ')"
        for name in _INSERT_CLASSES
    )
)
_TABLE_RULE = re.compile(r"[|\s:-]+")
# trafilatura reports what it could not parse at error level, for every odd page of a stranger.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
logging.getLogger("htmldate").setLevel(logging.CRITICAL)
_langid_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Article:
    """What a page turned out to be; None is not known. `date`: yyyy-mm-dd."""

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
    word_count: int = 0
    sentence_count: int = 0


def read_article(page: Page, *, min_chars: int = 100) -> Article:
    """Return the article of a page.

    Raises:
        ScrapeFailed: no_article, when fewer than `min_chars` characters of text were found.
    """
    if page.media_type == "application/pdf" or page.body.startswith(b"%PDF-"):
        text, title, author, created = read_pdf(page.body)
        facts = PageMetadata(title=title, author=author, date=created)
        method, reason = "pdf", "The PDF holds no text (a scan needs text recognition first)"
    elif page.media_type == "text/plain":
        text = decode_text(page.body, page.charset, markup=False)
        facts = PageMetadata()
        method, reason = "plain_text", "The file holds hardly any text"
    else:
        text, method, facts = _read_html(page, min_chars)
        reason = "No article was found on this page"
    content = clean_text(text).strip()[:MAX_CONTENT_CHARS]
    if len(content) < min_chars:
        raise no_article(reason)
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
        word_count=count_words(content),
        sentence_count=len(split_sentences(content, language)),
    )


def _read_html(page: Page, min_chars: int) -> tuple[str, str, PageMetadata]:
    """Return the best text, the method that found it, and the page's metadata."""
    tree = _parse(decode_text(page.body, page.charset))
    if tree is None:
        return "", "trafilatura", PageMetadata()
    own = read_metadata(tree)
    # Half of what the scraper's imports cost, and the server must be there in a second.
    import trafilatura

    text, guessed = "", None
    # It promises nothing about broken pages, and one of them must not become a 500.
    with contextlib.suppress(Exception):
        if _is_readable(tree):
            # Measured on 30 pages with known bodies (bench/extraction.py): F1 0.943 by default,
            # 0.963 so and 0.965 with what follows; without tables or in fast mode whole pages are
            # lost (0.929, 0.944).
            text = (
                trafilatura.extract(
                    tree,
                    url=page.url,
                    include_comments=False,
                    favor_precision=True,
                    prune_xpath=_INSERTS,
                )
                or ""
            )
            # extensive would take any date on the page, a copyright line or a neighbour's teaser.
            guessed = trafilatura.extract_metadata(tree, default_url=page.url, extensive=False)
    facts = _completed(own, guessed)
    text = _without_title(_without_bars(clean_text(text)), facts.title)
    body = _plain(own.body or "")
    if len(body) >= min_chars and len(body) > JSON_LD_WINS * len(text):
        return body, "json_ld", facts
    if len(text) >= min_chars:
        return text, "trafilatura", facts
    for candidate, method in (
        (body, "json_ld"),
        (_article_tag(tree), "article_tag"),
        (own.description or "", "description"),
    ):
        if len(candidate) >= min_chars:
            return candidate, method, facts
    return text, "trafilatura", facts


def _parse(markup: str) -> Any:
    """Return the lxml document, None where there is none to be had."""
    markup = clean_text(markup)
    if not is_parsable(markup):
        return None
    # Without huge_tree libxml2 refuses to nest deeper than 256, which is what keeps us alive.
    parser = lxml.html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=False
    )
    try:
        return lxml.html.document_fromstring(markup.encode(), parser=parser)
    except (lxml.etree.LxmlError, ValueError, AssertionError, RecursionError):
        return None


def _is_readable(tree: Any) -> bool:
    """Say whether trafilatura would be done with the tree in seconds, not minutes."""
    return sum(1 for _ in itertools.islice(tree.iter(), MAX_ELEMENTS)) < MAX_ELEMENTS


def _completed(own: PageMetadata, found: Any) -> PageMetadata:
    """Fill what the page's own data leave open with what trafilatura guessed from the layout."""

    def guess(name: str) -> str | None:
        value = getattr(found, name, None)
        return clean_text(value).strip()[:300] or None if isinstance(value, str) else None

    categories = getattr(found, "categories", None) or [None]
    return PageMetadata(
        title=own.title or guess("title"),
        author=own.author or (guess("author") or "").replace("; ", ", ") or None,
        date=own.date or iso_date(guess("date")),
        site_name=own.site_name or guess("sitename"),
        section=own.section or categories[0] or None,
        tags=own.tags or tuple(getattr(found, "tags", None) or ())[:20],
        language=own.language,
        description=own.description,
        body=own.body,
    )


def _without_title(text: str, title: str | None) -> str:
    """Drop a first line that only repeats the title, which callers have on its own."""
    first, _, body = text.partition("\n")
    return body.lstrip() if title and first.strip().casefold() == title.casefold() else text


def _without_bars(text: str) -> str:
    """Undo trafilatura's table markup: layout tables leave bars around ordinary sentences."""
    lines = []
    for line in text.split("\n"):
        if line.startswith("|"):
            if _TABLE_RULE.fullmatch(line):
                continue
            cells = (cell.strip() for cell in line.strip("|").split("|"))
            line = " | ".join(cell for cell in cells if cell)
        lines.append(line)
    return "\n".join(lines)


def _plain(body: str) -> str:
    """Return JSON-LD text without the markup that some publishers leave in it."""
    if re.search(r"</?(?:p|br|div|a|strong|em)\b", entities.unescape(body), re.IGNORECASE):
        tree = _parse(f"<div>{entities.unescape(body)}</div>")
        return "" if tree is None else _text_of(tree)
    return clean_text(entities.unescape(body)).strip()


def _article_tag(tree: Any) -> str:
    """Return the longest text of an <article>, else of <main>, else of all paragraphs."""
    for path in ("//article", "//main | //*[@role='main']"):
        if texts := [_text_of(element) for element in tree.xpath(path)[:20]]:
            return max(texts, key=len)
    paragraphs = (" ".join(p.text_content().split()) for p in tree.iter("p"))
    return "\n".join(line for line in paragraphs if len(line) > 40)


def _text_of(element: Any) -> str:
    """Return the text of an element, a line for every block, without navigation and scripts."""
    parts: list[str] = []
    skipping: Any = None
    for event, node in lxml.etree.iterwalk(element, events=("start", "end")):
        if event == "start" and skipping is None:
            if node.tag in _SKIPPED:
                skipping = node
                continue
            parts.append(("\n" if node.tag in _BLOCKS else "") + (node.text or ""))
        elif event == "end" and skipping in (None, node):
            skipping = None
            parts.append(("\n" if node.tag in _BLOCKS else "") + (node.tail or ""))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return clean_text("\n".join(line for line in lines if line))


def _detect_language(text: str) -> str | None:
    # Loading its model takes 0.3 s and 40 MB, and most pages say their language themselves.
    import py3langid

    with _langid_lock:
        code, _ = py3langid.classify(text[:2_000])
    return str(code) or None
