"""The lines of a PDF page in the order they are read: columns one after the other.

A page is pieces of text at places; which of them make a line, and which lines a column, is told
from where they stand. Knows nothing of files: it is handed pypdf's page objects.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

# Type-setters draw these pairs as one glyph.
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
MAX_PIECES = 20_000
# Rough width of a letter, in sizes of its font.
LETTER_WIDTH = 0.5
# A page has two columns when this share of its lines begins behind the middle.
COLUMN_SHARE = 0.25
MARK_SHARE = 0.8

_NUMBER = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(r"^(?:page\s+|seite\s+|p\.\s*)?[-–—]?\s*(?:\d{1,4}|[ivxlc]{1,6})\s*[-–—]?"
                          r"(?:\s*(?:of|/|von|de)\s*\d{1,4})?$", re.IGNORECASE)  # fmt: skip
_MARK = re.compile(r"^[\d*†‡§,\s]{1,6}$")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text at a place: `x`, `y` of its start in points from the lower left, and its font's size."""

    x: float
    y: float
    size: float
    text: str

    @property
    def end(self) -> float:
        """Where it ends, roughly."""
        return self.x + len(self.text) * self.size * LETTER_WIDTH


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text. `gap`: it stands apart from the line before, as a paragraph does."""

    text: str
    size: float
    gap: bool = False


def lines_of(page: Any) -> list[Line]:
    """Return the lines of a pypdf page in reading order."""
    pieces: list[Piece] = []

    def visit(text: str, cm: Any, tm: Any, _font: Any, size: Any) -> None:
        if text.strip() and len(pieces) < MAX_PIECES:
            x = tm[4] * cm[0] + tm[5] * cm[2] + cm[4]
            y = tm[4] * cm[1] + tm[5] * cm[3] + cm[5]
            scale = abs(tm[3] * cm[3]) or 1.0
            pieces.append(Piece(x, y, abs(float(size or 0)) * scale or 10.0, text.strip("\n")))

    plain = page.extract_text(visitor_text=visit)
    found = _ordered(pieces, float(page.mediabox.width))
    # Where places say less than pypdf's own order of things (rotated text, forms), that one stays.
    if _letters(line.text for line in found) < 0.9 * _letters([plain]):
        found = [Line(line, 10.0) for line in plain.splitlines()]
    return [Line(line.text.translate(_LIGATURES), line.size, line.gap) for line in found]


def without_furniture(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """Drop page numbers, and the heads and feet that pages repeat."""
    edges = Counter(
        key for page in pages for key in {_key(line) for line in (*page[:2], *page[-2:])} if key
    )
    repeated = {key for key, count in edges.items() if count >= 3 and 2 * count >= len(pages)}
    kept: list[list[Line]] = []
    for page in pages:
        last = len(page) - 1
        kept.append(
            [
                line
                for number, line in enumerate(page)
                if not (
                    (number < 2 or number > last - 2)
                    and (_key(line) in repeated or _PAGE_NUMBER.match(line.text.strip()))
                )
            ]
        )
    return kept


def _ordered(pieces: Sequence[Piece], width: float) -> list[Line]:
    if not pieces:
        return []
    body = median(piece.size for piece in pieces)
    # The figures of footnotes stand above the line in a smaller size, and belong to no sentence.
    pieces = [
        piece
        for piece in pieces
        if not (piece.size < MARK_SHARE * body and _MARK.match(piece.text))
    ]
    rows = _rows(pieces)
    middle = _gutter(rows, width)
    if middle is None:
        return _with_gaps([_line(row) for row in rows])
    ordered: list[tuple[float, Line]] = []
    left: list[tuple[float, Line]] = []
    right: list[tuple[float, Line]] = []
    for row in rows:
        before = [piece for piece in row if piece.x < middle]
        after = [piece for piece in row if piece.x >= middle]
        if before and max(piece.end for piece in before) > middle + 2 * body and not after:
            # A line over both columns: what stands above it is read first.
            ordered += left + right
            left, right = [], []
            ordered.append(_line(row))
            continue
        if before:
            left.append(_line(before))
        if after:
            right.append(_line(after))
    return _with_gaps([*ordered, *left, *right])


def _rows(pieces: Sequence[Piece]) -> list[list[Piece]]:
    rows: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: (-round(piece.y, 1), piece.x)):
        if rows and abs(rows[-1][0].y - piece.y) < 0.4 * max(piece.size, rows[-1][0].size):
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return [sorted(row, key=lambda piece: piece.x) for row in rows]


def _gutter(rows: Sequence[Sequence[Piece]], width: float) -> float | None:
    """Return where the second column begins, None on a page of one."""
    starts = [piece.x for row in rows for piece in row if 0.42 * width < piece.x < 0.68 * width]
    if len(rows) < 4 or len(starts) < max(3, COLUMN_SHARE * len(rows)):
        return None
    at, count = Counter(round(x / 4) for x in starts).most_common(1)[0]
    begins = at * 4 - 4
    if count < max(3, COLUMN_SHARE * len(rows) * 0.6):
        return None
    crossing = sum(
        piece.x < begins - 8 and piece.end > begins + 24 for row in rows for piece in row
    )
    return float(begins) if crossing < 0.4 * len(rows) else None


def _line(row: Sequence[Piece]) -> tuple[float, Line]:
    text = row[0].text
    for before, piece in pairwise(row):
        glued = piece.x - before.end < 0.15 * piece.size and not text[-1:].isspace()
        text += piece.text if glued or piece.text[:1].isspace() else f" {piece.text}"
    return row[0].y, Line(" ".join(text.split()), max(piece.size for piece in row))


def _with_gaps(rows: Sequence[tuple[float, Line]]) -> list[Line]:
    steps = [a[0] - b[0] for a, b in pairwise(rows) if a[0] > b[0]]
    usual = median(steps) if steps else 0.0
    found: list[Line] = []
    for number, (y, line) in enumerate(rows):
        step = rows[number - 1][0] - y if number else 0.0
        other = number > 0 and abs(rows[number - 1][1].size - line.size) > 0.08 * line.size
        found.append(Line(line.text, line.size, other or step > 1.35 * usual > 0))
    return found


def _key(line: Line) -> str:
    return _NUMBER.sub("#", line.text).strip().casefold()


def _letters(texts: Iterable[str]) -> int:
    return sum(sum(map(str.isalnum, text)) for text in texts)
