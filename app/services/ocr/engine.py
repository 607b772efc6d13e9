"""The OCR models: text lines of an image, by rapidocr and onnxruntime, with nothing downloaded.

Loaded on first use; the models are files of the wheel. Between any two steps the time is checked,
so that what a stranger's image costs ends. It knows nothing of cards and logs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from app.core.errors import EngineUnavailable, TimedOut
from app.services.ocr.lines import Line

if TYPE_CHECKING:
    import numpy as np

    Pixels = np.ndarray[Any, np.dtype[Any]]

# One thread costs a quarter less processor time a card than two, and leaves a core to the others.
THREADS = 1
MAX_BOXES = 2000
# Recognition costs about 20 ms a line; a card has under forty.
MAX_LINES = 160
DETECT_SIDE = 960
VOTERS = 15
BATCH = 6
LIBRARIES = ("rapidocr", "onnxruntime", "cv2")
FIX = "install what reads cards: pip install -r requirements-ocr.txt, then start the server again"


@dataclass(slots=True)
class Budget:
    """Until when a read may go on, and whether it is still wanted."""

    until_s: float
    cancelled: Callable[[], bool] = lambda: False

    def check(self) -> None:
        """Raise once the time is over or nobody wants the answer."""
        if self.cancelled() or time.monotonic() > self.until_s:
            raise TimedOut("reading the card took too long; send a smaller or sharper image")


def installed() -> bool:
    """Say whether the libraries are there; imports none of them."""
    return all(find_spec(name) is not None for name in LIBRARIES)


class OcrModels:
    """Detector, direction classifier and recognizer; one read at a time, in one thread."""

    def __init__(self) -> None:
        self._models: Any = None

    @property
    def loaded(self) -> bool:
        """Whether the models are in memory."""
        return self._models is not None

    def load(self) -> None:
        """Load the models, unless they are loaded. Blocks for about a second.

        Raises:
            EngineUnavailable: the libraries are missing, or do not work here.
        """
        if self._models is not None:
            return
        try:
            import cv2
            from rapidocr import RapidOCR

            cv2.setNumThreads(1)
            models = RapidOCR(
                params={
                    # Its log would name files of this machine.
                    "Global.log_level": "critical",
                    "Global.text_score": 0.0,
                    "Global.use_vertical_padding": False,
                    "Det.limit_type": "max",
                    "Det.limit_side_len": DETECT_SIDE,
                    "Det.max_candidates": MAX_BOXES,
                    "Rec.rec_batch_num": BATCH,
                    "EngineConfig.onnxruntime.intra_op_num_threads": THREADS,
                    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                }
            )
        except Exception as failure:
            raise EngineUnavailable(
                f"ID cards cannot be read here; {FIX}", code="ocr_unavailable"
            ) from failure
        self._models = models

    def read(self, pixels: Pixels, budget: Budget) -> tuple[list[Line], Pixels, int]:
        """Return the lines of an image, and the image turned so that they stand upright.

        `pixels`: (height, width, 3) uint8. The lines are in pixels of the image that is returned;
        last comes by how many quarters it was turned against the clock.
        """
        import numpy as np

        turns = 0
        boxes = self._detect(pixels, budget)
        if len(boxes) and _upright_share(boxes) > 0.5:
            pixels, turns = np.ascontiguousarray(np.rot90(pixels)), 1
            boxes = self._detect(pixels, budget)
        if not len(boxes):
            return [], pixels, turns
        crops = self._models.crop_text_regions(pixels, boxes)
        budget.check()
        if self._upside_down(crops):
            pixels, turns = np.ascontiguousarray(np.rot90(pixels, 2)), turns + 2
            height, width = pixels.shape[:2]
            corners = np.array([width, height], np.float32) - boxes
            boxes = corners[:, [2, 3, 0, 1]]
            crops = [np.ascontiguousarray(np.rot90(crop, 2)) for crop in crops]
        said = self.recognize(crops, budget)
        lines = [
            Line(text, score, tuple((float(x), float(y)) for x, y in box))  # type: ignore[arg-type]
            for (text, score), box in zip(said, boxes, strict=True)
            if text.strip()
        ]
        return lines, pixels, turns

    def crop(self, pixels: Pixels, line: Line) -> Pixels:
        """Return a line's own pixels, straight."""
        import numpy as np

        crops = self._models.crop_text_regions(pixels, np.array([line.points], np.float32))
        found: Pixels = crops[0]
        return found

    def recognize(self, crops: Sequence[Pixels], budget: Budget) -> list[tuple[str, float]]:
        """Return text and score of each straight line, in order."""
        by_shape = sorted(range(len(crops)), key=lambda i: crops[i].shape[1] / crops[i].shape[0])
        said: dict[int, tuple[str, float]] = {}
        for start in range(0, len(by_shape), BATCH):
            budget.check()
            batch = by_shape[start : start + BATCH]
            read = self._models.recognize_txt([crops[i] for i in batch])
            said |= {
                i: (str(text), float(score))
                for i, text, score in zip(batch, read.txts, read.scores, strict=True)
            }
        return [said[i] for i in range(len(crops))]

    def _detect(self, pixels: Pixels, budget: Budget) -> Pixels:
        import numpy as np

        budget.check()
        found = self._models(pixels, use_det=True, use_cls=False, use_rec=False)
        budget.check()
        if found.boxes is None or not len(found.boxes):
            return np.zeros((0, 4, 2), np.float32)
        boxes = np.asarray(found.boxes, np.float32)
        if len(boxes) > MAX_LINES:
            widths = np.linalg.norm(boxes[:, 0] - boxes[:, 1], axis=1)
            boxes = boxes[np.sort(np.argsort(-widths)[:MAX_LINES])]
        return boxes

    def _upside_down(self, crops: Sequence[Pixels]) -> bool:
        """Let the longest lines vote: a short one alone is often wrong."""
        longest = sorted(crops, key=lambda crop: crop.shape[1], reverse=True)[:VOTERS]
        votes = self._models.cls_and_rotate(longest)[1].cls_res
        turned = sum(score if "180" in label else -score for label, score in votes)
        return bool(turned > 0)


def _upright_share(boxes: Pixels) -> float:
    """Return which part of the boxes has its long side nearer to upright than to level."""
    import numpy as np

    # Which corner of a tilted box comes first says nothing: the long side itself decides.
    across, down = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 0]
    wide, high = np.linalg.norm(across, axis=1), np.linalg.norm(down, axis=1)
    sides = np.abs(np.where((wide >= high)[:, None], across, down))
    # A box of one or two letters has no direction.
    long = np.maximum(wide, high) > 2.0 * np.minimum(wide, high)
    return float(np.mean(sides[long, 1] > sides[long, 0])) if long.any() else 0.0
