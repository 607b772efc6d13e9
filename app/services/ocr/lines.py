"""A line of text that was read in an image, and where it stands on a sheet seen at an angle.

It knows nothing of OCR libraries or of cards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

Point = tuple[float, float]
# x, y, width, height in pixels of the image.
Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Line:
    """`points`: the corners in reading order from the top left; `score`: 0 to 1."""

    text: str = field(repr=False)
    score: float
    points: tuple[Point, Point, Point, Point]

    @property
    def width(self) -> float:
        """The length of the line."""
        return math.dist(self.points[0], self.points[1])

    @property
    def height(self) -> float:
        """The height of its letters."""
        return math.dist(self.points[0], self.points[3])

    def box(self) -> Box:
        """Return the upright rectangle around the line."""
        xs, ys = [x for x, _ in self.points], [y for _, y in self.points]
        left, top = math.floor(min(xs)), math.floor(min(ys))
        return left, top, math.ceil(max(xs)) - left, math.ceil(max(ys)) - top


@dataclass(frozen=True, slots=True)
class Placed:
    """A line on the sheet laid straight: `row` is the same for all that stands side by side."""

    line: Line
    row: float
    left: float
    right: float
    height: float

    @property
    def text(self) -> str:
        """What the line says."""
        return self.line.text


def lay_straight(lines: Sequence[Line]) -> list[Placed]:
    """Return the lines as on a sheet without rotation and, nearly, without perspective.

    The slope of the long lines is fitted as a straight function of their height on the sheet.
    """
    if not lines:
        return []
    long = sorted(lines, key=lambda line: line.width, reverse=True)[: max(3, len(lines) // 2)]
    slopes = [(_middle(line)[1], _slope(line), line.width) for line in long]
    at_first, per_y = _fit(slopes)
    centre = median(_middle(line)[0] for line in lines)
    placed = []
    for line in lines:
        x, y = _middle(line)
        slope = at_first + per_y * y
        row = y - slope * (x - centre)
        # The slope belongs to the row, not to the height at which this line happens to stand.
        row = y - (at_first + per_y * row) * (x - centre)
        stretch = math.hypot(1.0, slope)
        along = (x - centre) * stretch + slope * row
        half = line.width / 2
        placed.append(Placed(line, row, along - half, along + half, line.height))
    return sorted(placed, key=lambda item: (item.row, item.left))


def _middle(line: Line) -> Point:
    return sum(x for x, _ in line.points) / 4, sum(y for _, y in line.points) / 4


def _slope(line: Line) -> float:
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = line.points
    across = (x1 - x0) + (x2 - x3)
    return ((y1 - y0) + (y2 - y3)) / across if abs(across) > 1e-6 else 0.0


def _fit(slopes: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Fit slope = a + b·y to (y, slope, weight), leaving out what is far from the median."""
    middle = median(slope for _, slope, _ in slopes)
    kept = [s for s in slopes if abs(s[1] - middle) < 0.12] or list(slopes)
    weight = sum(w for _, _, w in kept) or 1.0
    mean_y = sum(y * w for y, _, w in kept) / weight
    mean = sum(s * w for _, s, w in kept) / weight
    spread = sum(w * (y - mean_y) ** 2 for y, _, w in kept)
    if len(kept) < 4 or spread < 1e-6:
        return mean, 0.0
    per_y = sum(w * (y - mean_y) * (s - mean) for y, s, w in kept) / spread
    return mean - per_y * mean_y, per_y
