"""The text of a PDF and what its information dictionary says; opens no network and no file."""

from __future__ import annotations

import io
import logging
import time
from typing import TYPE_CHECKING

from app.services.extraction.charset import clean_text
from app.services.fetching.errors import no_article

if TYPE_CHECKING:
    from pypdf import PdfReader

MAX_PAGES = 200
# A page of drawing commands can take pypdf seconds; an article never needs as long.
READING_LIMIT_S = 15.0
MAX_TEXT_CHARS = 200_000

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
        text = _text_of(reader)
        info = reader.metadata
        title = clean_text(info.title or "").strip() or None if info else None
        author = clean_text(info.author or "").strip() or None if info else None
        created = info.creation_date if info else None
    # pypdf raises nearly anything on a hostile file: KeyError, AttributeError, RecursionError, ...
    except Exception as exc:
        if getattr(exc, "code", None) == "no_article":
            raise
        raise no_article("The PDF is damaged or protected") from exc
    return text, title, author, created.date().isoformat() if created else None


def _text_of(reader: PdfReader) -> str:
    started_s = time.monotonic()
    pages: list[str] = []
    chars = 0
    for number, page in enumerate(reader.pages):
        late = time.monotonic() - started_s > READING_LIMIT_S
        if number >= MAX_PAGES or chars > MAX_TEXT_CHARS or late:
            break
        pages.append(page.extract_text())
        chars += len(pages[-1])
    return clean_text("\n\n".join(pages)).strip()
