"""The article of an HTML page: trafilatura reads it, and the page's own data where it finds little.

Blocking. The tree is made ready first (`page_tree.py`), and what is no part of the article is taken
out (`furniture.py`); what then turns out to be no article is told by what it is.
"""

from __future__ import annotations

import contextlib
import html as entities
import itertools
import logging
import re
from dataclasses import dataclass
from typing import Any

import lxml.etree  # type: ignore[import-untyped]  # ships no types
import lxml.html  # type: ignore[import-untyped]  # ships no types

from app.services.extraction.charset import clean_text, decode_text
from app.services.extraction.copies import without_copies
from app.services.extraction.furniture import drop_furniture
from app.services.extraction.markup import is_parsable
from app.services.extraction.not_articles import why_no_article
from app.services.extraction.page_metadata import PageMetadata, completed, read_metadata
from app.services.extraction.page_tree import (
    collapse_white_space,
    drop_hidden,
    drop_scripts,
    join_wrapped_lines,
    keep_inline_links,
    spell_definitions,
    spell_formulas,
)
from app.services.extraction.titles import document_title, headings_of
from app.services.fetching.fetch import Page

# trafilatura takes 1 s for 20,000 elements, 4 if they are 240 deep; articles have a few thousand.
MAX_ELEMENTS = 30_000
# A page whose text is put in by script shows a teaser, while its JSON-LD has the whole article.
JSON_LD_WINS = 2.0
# What a site gives away of an article that must be paid for.
TEASER_CHARS = 3_000
NO_ARTICLE = "No article was found on this page"

_SKIPPED = ("script", "style", "noscript", "template", "nav", "aside", "footer", "form", "svg")
_BLOCKS = ("p", "h1", "h2", "h3", "h4", "li", "blockquote", "pre", "br", "div", "section", "tr")
# Small boxes that say of themselves that they are not the article, wherever they stand in it.
_INSERT_CLASSES = {"ad", "ads", "advert", "advertisement", "sponsored", "promo", "newsletter"}
INSERT_CHARS = 600
_TABLE_RULE = re.compile(r"[|\s:-]+")
# trafilatura reports what it could not parse at error level, for every odd page of a stranger.
logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
logging.getLogger("htmldate").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Found:
    """What was read. `reason`: why there may be no article in it."""

    text: str
    method: str
    facts: PageMetadata
    partial: bool = False
    reason: str = NO_ARTICLE


def read_html(page: Page, min_chars: int) -> Found:
    """Return the best text, the method that found it, and the page's metadata.

    Raises:
        ScrapeFailed: no_article, for a page that is something else, with what it is.
    """
    source = decode_text(page.body, page.charset)
    tree = _parse(source)
    if tree is None:
        return Found("", "trafilatura", PageMetadata())
    if not _is_readable(tree):
        return _plainly(tree, read_metadata(tree, page.url), min_chars)
    # lxml makes a Python object of an element each time it is met, unless somebody still holds it.
    held = list(tree.iter())
    spell_formulas(tree)
    drop_hidden(tree)
    collapse_white_space(tree)
    titles = [text for text in (document_title(tree), *headings_of(tree)[:1]) if text]
    visible = _text_of(tree)
    own = read_metadata(tree, page.url)
    scripted = drop_scripts(tree)
    _drop_inserts(held, tree)
    called = drop_furniture(tree, own.title)
    join_wrapped_lines(tree)
    spell_definitions(tree)
    keep_inline_links(tree)
    found = _best(tree, page.url, own, min_chars)
    del held
    reason = why_no_article(
        found.text, titles=titles, visible=visible, markup=source, tree=tree, scripted=scripted
    )
    if reason is not None:
        return Found("", found.method, found.facts, reason=reason)
    teaser = own.is_free is False and len(found.text) < TEASER_CHARS
    return Found(found.text, found.method, found.facts, partial=called or teaser)


def _drop_inserts(elements: list[Any], tree: Any) -> None:
    for element in elements:
        named = element.get("class") if isinstance(element.tag, str) else None
        if not named or _INSERT_CLASSES.isdisjoint(named.split()):
            continue
        if element is tree or element.getparent() is None:
            continue
        if len(" ".join(element.text_content().split())) < INSERT_CHARS:
            element.drop_tree()


def _best(tree: Any, url: str, own: PageMetadata, min_chars: int) -> Found:
    # Half of what the scraper's imports cost, and the server must be there in a second.
    import trafilatura

    text, guessed = "", None
    # It promises nothing about broken pages, and one of them must not become a 500.
    with contextlib.suppress(Exception):
        # Measured on 30 pages with known bodies (bench/extraction.py): F1 0.943 by default,
        # 0.963 so and 0.965 with what follows; without tables or in fast mode whole pages are
        # lost (0.929, 0.944).
        text = (
            trafilatura.extract(
                tree,
                url=url,
                include_comments=False,
                favor_precision=True,
            )
            or ""
        )
        # extensive would take any date on the page, a copyright line or a neighbour's teaser.
        # A third of trafilatura's own time, for what most pages say themselves.
        if not (own.title and own.date and own.site_name):
            guessed = trafilatura.extract_metadata(tree, default_url=url, extensive=False)
    facts = completed(own, guessed)
    text = _without_title(without_copies(_without_bars(clean_text(text))), facts.title)
    body = _plain(own.body or "")
    enough = 1.0 if own.is_live else JSON_LD_WINS
    if len(body) >= min_chars and len(body) > enough * len(text):
        return Found(body, "json_ld", facts)
    if len(text) >= min_chars:
        return Found(text, "trafilatura", facts)
    return _plainly(tree, facts, min_chars, text=text, body=body)


def _plainly(
    tree: Any, facts: PageMetadata, min_chars: int, *, text: str = "", body: str = ""
) -> Found:
    for candidate, method in (
        (body, "json_ld"),
        (_article_tag(tree), "article_tag"),
        (facts.description or "", "description"),
    ):
        if len(candidate) >= min_chars:
            return Found(candidate, method, facts)
    return Found(text, "trafilatura", facts)


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


def _without_title(text: str, title: str | None) -> str:
    """Drop a first line that only repeats the title, which callers have on its own."""
    first, _, rest = text.partition("\n")
    return rest.lstrip() if title and first.strip().casefold() == title.casefold() else text


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
