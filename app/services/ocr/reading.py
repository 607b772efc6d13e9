"""One card from pixels to fields: read, read again if little was found, look twice at some lines.

Blocks for seconds: call it in a thread. It knows nothing of files, requests or models of language.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.services.ocr.engine import Budget, OcrModels
from app.services.ocr.fields import FieldRead, check
from app.services.ocr.images import cleared, moved, stretched, within
from app.services.ocr.ktp import Reading, read_card
from app.services.ocr.lines import Box, Line
from app.services.ocr.nik import agrees, birth_of_nik, known_province

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[Any]]

# Of 30 points; a card that is read well has 29 or 30.
ENOUGH = 27
# With fewer lines there is no card to be read better.
MIN_LINES = 4
# Where a lost space between two words would be seen.
SPACED = ("nama", "alamat", "kel_desa", "kecamatan", "ttl")
STRETCH = 1.35


@dataclass(frozen=True, slots=True)
class CardImage:
    """A card as read, and its image, upright; boxes are in its pixels.

    `turns`: by how many quarters against the clock the image was turned.
    """

    reading: Reading
    pixels: Pixels
    lines: tuple[Line, ...]
    turns: int

    def box_before(self, box: Box) -> Box:
        """Return a box in the pixels of the image before it was turned."""
        x, y, width, height = box
        high, wide = self.pixels.shape[:2]
        for _ in range(self.turns):
            x, y, width, height = high - y - height, x, height, width
            high, wide = wide, high
        return x, y, width, height


def read_pixels(models: OcrModels, pixels: Pixels, budget: Budget) -> CardImage:
    """Return what an image says as a card.

    Raises:
        EngineUnavailable: the models cannot be loaded.
        TimedOut: it took too long, or nobody wants it any more.
    """
    models.load()
    lines, upright, turns = models.read(within(pixels), budget)
    reading = _spaced(models, upright, lines, budget)
    if reading.score < ENOUGH and len(lines) >= MIN_LINES:
        clearer, corner, scale = cleared(upright, lines)
        again, _, turned = models.read(clearer, budget)
        if turned == 0:
            moved_lines = [moved(line, corner, scale) for line in again]
            second = _spaced(models, upright, moved_lines, budget)
            reading = merged(reading, second)
    return CardImage(reading, upright, tuple(lines), turns)


def merged(one: Reading, two: Reading) -> Reading:
    """Return the better of two readings with what only the other has."""
    best, other = (two, one) if two.score > one.score else (one, two)
    fields = {
        name: read if read.value else other.fields[name] for name, read in best.fields.items()
    }
    fields["nik"] = _likelier_nik(best, other, fields["tgl_lahir"].value)
    fields, warnings = check(fields)
    return replace(
        best,
        fields=fields,
        warnings=warnings,
        labels=max(one.labels, two.labels),
        rows=max(one.rows, two.rows),
        header=one.header or two.header,
    )


def _likelier_nik(best: Reading, other: Reading, birth: str) -> FieldRead:
    """Of two readings of the number the one that the rest of the card confirms."""
    read = [reading.fields["nik"] for reading in (best, other) if reading.fields["nik"].value]
    if not read:
        return FieldRead()

    def confirmed(nik: FieldRead) -> tuple[bool, bool, bool]:
        return (
            bool(birth) and agrees(nik.value, birth),
            known_province(nik.value),
            birth_of_nik(nik.value) is not None,
        )

    return max(read, key=confirmed)


def _spaced(models: OcrModels, pixels: Pixels, lines: list[Line], budget: Budget) -> Reading:
    """Read a card, and its wide lines once more, stretched, for spaces that were lost.

    The second look is taken only if its letters are those of the first.
    """
    reading = read_card(lines)
    wide = [
        line
        for name in SPACED
        for line in reading.lines.get(name, [])
        if line.width > 3 * line.height and line in lines
    ]
    if not wide:
        return reading
    looks = [stretched(models.crop(pixels, line), STRETCH) for line in wide]
    texts: dict[int, str] = {}
    for line, (text, _) in zip(wide, models.recognize(looks, budget), strict=True):
        same = text.replace(" ", "") == line.text.replace(" ", "")
        if same and text.count(" ") > line.text.count(" "):
            texts[id(line)] = text
    if not texts:
        return reading
    return read_card([replace(line, text=texts.get(id(line), line.text)) for line in lines])
