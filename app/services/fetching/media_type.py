"""What a body is, whatever its header says: servers leave the type out, double it, or get it wrong.

The idea is that of https://mimesniff.spec.whatwg.org, for the few types that hold an article.
"""

from __future__ import annotations

import re

HTML = "text/html"
PDF = "application/pdf"
PLAIN = "text/plain"
MARKDOWN = "text/markdown"
ARTICLE_TYPES = frozenset((HTML, "application/xhtml+xml", PLAIN, MARKDOWN, PDF))

# Declared types that say nothing of what comes, or say it wrongly often enough to look.
_UNSURE = frozenset(
    (
        "",
        "*/*",
        "application/octet-stream",
        "binary/octet-stream",
        "application/unknown",
        "unknown/unknown",
        "application/download",
        "application/force-download",
        "application/x-download",
        "application/xml",
        "text/xml",
        "application/html",
        "text/htm",
        "text/x-markdown",
        "text",
        "html",
        "application/x-httpd-php",
        "application/x-pdf",
    )
)
# Atomic, since a comment could else be tried with every end that follows.
_MARKUP = re.compile(
    rb"(?:(?><!--.*?-->|<\?xml.*?\?>)\s*+)*+"
    rb"<(?:!doctype\s+html|html|head|body|article|main|meta|title|div|p|h1)\b",
    re.IGNORECASE | re.DOTALL,
)
_SNIFFED_BYTES = 4096


def declared_type(content_type: str) -> str:
    """Return the media type that a header names, the first of several; "" where it names none."""
    first = re.split(r"[;,\s]", content_type.strip(), maxsplit=1)[0]
    return first.strip("\"'").lower()


def may_hold_an_article(declared: str) -> bool:
    """Say whether a body of that type is worth reading."""
    return declared in ARTICLE_TYPES or declared in _UNSURE or "/" not in declared


def article_type(declared: str, body: bytes) -> str:
    """Return which type of article a body is, "" if it is none."""
    start = body[:_SNIFFED_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip()
    if b"%PDF-" in start[:1024]:
        return PDF
    if declared in (HTML, "application/xhtml+xml"):
        return HTML
    # UTF-16 has a zero in every other byte.
    if _MARKUP.match(start.replace(b"\0", b"").removeprefix(b"\xff\xfe").removeprefix(b"\xfe\xff")):
        return HTML
    if declared == PDF or _is_binary(start):
        return ""
    return MARKDOWN if "markdown" in declared else PLAIN


def _is_binary(start: bytes) -> bool:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    controls = sum(byte < 9 or 13 < byte < 27 for byte in start[:1024])
    return controls * 50 > len(start[:1024])
