"""The text of a PDF and what its information dictionary says; opens no network and no file."""

from __future__ import annotations

import io
import logging
import re
import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from app.engine.text.sentences import ends_sentence
from app.services.extraction.bylines import clean_authors
from app.services.extraction.charset import clean_text
from app.services.extraction.pdf.lines import Line, lines_of, without_furniture
from app.services.extraction.plain_text import paragraphs_of
from app.services.fetching.errors import no_article

if TYPE_CHECKING:
    from pypdf import PdfReader

MAX_PAGES = 200
# A page of drawing commands can take pypdf seconds; an article never needs as long.
READING_LIMIT_S = 15.0
MAX_TEXT_CHARS = 200_000
MAX_TITLE_CHARS = 300

_NO_TITLE = frozenset(
    ("untitled", "(anonymous)", "anonymous", "unknown", "document", "none", "title", "(untitled)")
)
# What word processors and type-setters write there by themselves.
_MADE_UP = re.compile(
    r"^(?:microsoft (?:word|powerpoint|excel) ?[-–]|untitled|slide \d|pdf ?document|layout \d)|"
    r"\.(?:docx?|pdf|indd|tex|dvi|rtf|odt|pptx?|xlsx?|qxp|html?|txt|pub|ai|eps)\s*$|^[\w-]+_v?\d+$",
    re.IGNORECASE,
)

# pypdf warns on every irregularity of a stranger's file, with parts of the file in the message.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)


def read_pdf(body: bytes) -> tuple[str, str | None, str | None, str | None]:
    """Return text, title, author and date (yyyy-mm-dd) of at most `MAX_PAGES` pages.

    Raises:
        ScrapeFailed: no_article, for an encrypted or damaged file.
    """
    # Most servers never see a PDF, and the import takes 80 ms.
    from pypdf import PdfReader

    try:
        reader = PdfReader(io.BytesIO(body))
        # Many files are "encrypted" with the empty password, which every reader tries.
        if reader.is_encrypted and not reader.decrypt(""):
            raise no_article("The PDF is protected by a password")
        pages = without_furniture(_pages_of(reader))
        info = reader.metadata
        title = _title(clean_text(info.title or "") if info else "", pages)
        author = _author(clean_text(info.author or "") if info else "")
        created = info.creation_date if info else None
    # pypdf raises nearly anything on a hostile file: KeyError, AttributeError, RecursionError, ...
    except Exception as exc:
        if getattr(exc, "code", None) == "no_article":
            raise
        raise no_article("The PDF is damaged or protected") from exc
    return _text_of(pages), title, author, created.date().isoformat() if created else None


def _pages_of(reader: PdfReader) -> list[list[Line]]:
    started_s = time.monotonic()
    pages: list[list[Line]] = []
    chars = 0
    for number, page in enumerate(reader.pages):
        late = time.monotonic() - started_s > READING_LIMIT_S
        if number >= MAX_PAGES or chars > MAX_TEXT_CHARS or late:
            break
        pages.append(lines_of(page))
        chars += sum(len(line.text) for line in pages[-1])
    return pages


def _text_of(pages: Sequence[Sequence[Line]]) -> str:
    """Return the paragraphs; one that a page break cuts goes on behind it."""
    lines: list[str] = []
    for page in pages:
        for number, line in enumerate(page):
            if line.gap and number:
                lines.append("")
            lines.append(line.text)
    return clean_text("\n\n".join(paragraphs_of(lines))).strip()


def _title(stated: str, pages: Sequence[Sequence[Line]]) -> str | None:
    """Return the title that the file states, or the first heading if a program made that up."""
    stated = " ".join(stated.split())
    if stated and not _MADE_UP.search(stated) and stated.casefold() not in _NO_TITLE:
        return stated[:MAX_TITLE_CHARS]
    first = [line for line in (pages[0] if pages else ()) if line.text.strip()]
    if not first:
        return None
    largest = max(line.size for line in first[:20])
    usual = median(line.size for line in first)
    if largest > 1.1 * usual:
        start = next(i for i, line in enumerate(first) if line.size > 0.98 * largest)
        heading = [first[start].text]
        for line in first[start + 1 : start + 4]:
            if line.size < 0.98 * largest:
                break
            heading.append(line.text)
        return " ".join(heading)[:MAX_TITLE_CHARS]
    # A first line that stands apart and ends without a stop is a heading in the text's own size.
    apart = len(first) > 1 and first[1].gap
    heading_text = first[0].text.strip()
    return heading_text[:MAX_TITLE_CHARS] if apart and not ends_sentence(heading_text) else None


def _author(stated: str) -> str | None:
    """Return who the file says wrote it; a log-in name is nobody."""
    found = clean_authors([stated])
    if found is None or found.strip("()").casefold() in _NO_TITLE:
        return None
    return None if " " not in found and not found[:1].isupper() and found.isascii() else found
