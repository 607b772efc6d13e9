"""What is done to the pixels of a card that was not read at first: blur, light, contrast, crop.

It knows nothing of cards but where their text stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.services.ocr.lines import Line

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[Any]]

MAX_SIDE = 2000


def within(pixels: Pixels, side: int = MAX_SIDE) -> Pixels:
    """Return an image whose longer side is at most `side` pixels."""
    import cv2

    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def cleared(pixels: Pixels, lines: Sequence[Line]) -> tuple[Pixels, tuple[int, int], float]:
    """Return the part with text, without noise, shadow and glare, in full contrast.

    Returns:
        The image, where its left top corner was, and how much larger it is than that part was.
    """
    import cv2
    import numpy as np

    left, top, right, bottom = _around(pixels, lines)
    part = cv2.medianBlur(np.ascontiguousarray(pixels[top:bottom, left:right]), 3)
    # Letters are thinner than this, so that what is left is the light alone.
    kernel = max(15, (max(part.shape[:2]) // 24) | 1)
    light = cv2.GaussianBlur(cv2.dilate(part, np.ones((7, 7), np.uint8)), (kernel, kernel), 0)
    even = part.astype(np.float32) / np.maximum(light, 1).astype(np.float32)
    dark, bright = np.percentile(even, (1, 90))
    stretched = (even - dark) * (255.0 / max(float(bright - dark), 1e-3))
    result = stretched.clip(0, 255).astype(np.uint8)
    scale = min(1.6, max(1.0, 1400 / max(result.shape[:2])))
    if scale > 1:
        result = cv2.resize(result, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    return result, (left, top), scale


def stretched(pixels: Pixels, factor: float) -> Pixels:
    """Return a line of text wider than it was, so that the spaces between its words are too."""
    import cv2

    return cv2.resize(pixels, None, fx=factor, fy=1.0, interpolation=cv2.INTER_CUBIC)


def moved(line: Line, corner: tuple[int, int], scale: float) -> Line:
    """Return a line of a part of an image where it stands in the whole."""
    first, second, third, fourth = (
        (x / scale + corner[0], y / scale + corner[1]) for x, y in line.points
    )
    return Line(line.text, line.score, (first, second, third, fourth))


def crop_to_text(pixels: Pixels, lines: Sequence[Line]) -> Pixels:
    """Return the part of an image around its lines."""
    left, top, right, bottom = _around(pixels, lines)
    return pixels[top:bottom, left:right]


def _around(pixels: Pixels, lines: Sequence[Line]) -> tuple[int, int, int, int]:
    height, width = pixels.shape[:2]
    if not lines:
        return 0, 0, width, height
    boxes = [line.box() for line in lines]
    edge = 2 * max(8, round(sum(line.height for line in lines) / len(lines)))
    left, top = min(x for x, _, _, _ in boxes) - edge, min(y for _, y, _, _ in boxes) - edge
    right = max(x + w for x, _, w, _ in boxes) + edge
    bottom = max(y + h for _, y, _, h in boxes) + edge
    return max(0, left), max(0, top), min(width, right), min(height, bottom)
