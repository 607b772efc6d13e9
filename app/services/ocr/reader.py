"""ID cards from images: one read at a time in a thread of its own, a vision model beside it.

Nothing of an image or of what it says is logged, kept or written anywhere.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from app.core.errors import AppError, EngineUnavailable, GenerationFailed, InvalidInput
from app.engine.base import Engine
from app.schemas.ktp import CardDetails, CardField, card_of
from app.services.media.images import Decoded, decode_image, encode_pixels
from app.services.ocr.engine import FIX, Budget, OcrModels, installed
from app.services.ocr.fields import FIELDS, FieldRead
from app.services.ocr.images import crop_to_text
from app.services.ocr.ktp import Reading
from app.services.ocr.reading import CardImage, read_pixels
from app.services.ocr.vision import is_valid, see_card, with_seen
from app.stream.event import Draft

if TYPE_CHECKING:
    import numpy as np

log = structlog.get_logger(__name__)

FORMATS = ("JPEG", "PNG", "WEBP")
KINDS = "a JPEG, PNG or WebP image"
MAX_BYTES = 10_000_000
TIMEOUT_S = 60.0
DECODERS = 2
# Fewer fields than this, seen by a model alone, are no card.
MIN_SEEN = 6


@dataclass(frozen=True, slots=True)
class Photo:
    """A checked image. `scale`: how much larger the file's own image is."""

    decoded: Decoded = field(repr=False)

    def pixels(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Return it as OCR wants it: (height, width, 3), blue first."""
        import numpy as np

        return np.ascontiguousarray(np.asarray(self.decoded.image)[:, :, ::-1])


class CardReader:
    """Reads cards. `vision`: the engine of that role, used once its model is there."""

    def __init__(self, vision: Engine | None = None, *, timeout_s: float = TIMEOUT_S) -> None:
        self._vision = vision
        self._timeout_s = timeout_s
        self._models = OcrModels()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ocr")
        self._decoding = asyncio.Semaphore(DECODERS)
        self._waiting = 0
        self._memory_bytes = 0

    def info(self) -> dict[str, Any]:
        """Return what is installed and loaded, and the memory that it took."""
        return {
            "installed": installed(),
            "loaded": self._models.loaded,
            "memory_bytes": self._memory_bytes,
        }

    async def require(self) -> None:
        """Raise what a read would, before any work.

        Raises:
            EngineUnavailable: there is neither OCR nor a vision model.
        """
        if not installed() and await self._seeing() is None:
            raise EngineUnavailable(f"ID cards cannot be read here; {FIX}", code="ocr_unavailable")

    async def check(self, data: bytes) -> Photo:
        """Return an uploaded file as a checked, decoded image.

        Raises:
            InvalidInput: invalid_image, image_too_large, each with the status of contract 5.
        """
        if not data:
            raise invalid_image()
        if len(data) > MAX_BYTES:
            raise InvalidInput(
                f"The image is larger than {MAX_BYTES / 1e6:g} MB: send a smaller one.",
                code="image_too_large",
                status=413,
                param="image",
            )
        try:
            async with self._decoding:
                decoded = await asyncio.to_thread(
                    decode_image, data, param="image", formats=FORMATS, kinds=KINDS
                )
        except InvalidInput as wrong:
            status = 413 if wrong.code == "image_too_large" else 400
            # Without its cause, which may quote the file.
            raise InvalidInput(
                wrong.message, code=wrong.code, status=status, param="image"
            ) from None
        return Photo(decoded)

    async def read(self, photo: Photo) -> AsyncGenerator[Draft, None]:
        """Yield `status` drafts and then `result`, terminal, with `CardDetails` as a dictionary.

        Raises:
            InvalidInput: not_a_ktp.
            EngineUnavailable, TimedOut, GenerationFailed.
        """
        card: CardImage | None = None
        if installed():
            if self._waiting:
                yield Draft("status", {"stage": "queued", "position": self._waiting})
            yield Draft("status", {"stage": "reading" if self._models.loaded else "loading"})
            card = await self._read(photo)
            if card.reading.labels < 3 or (not card.reading.is_ktp and self._vision is None):
                raise _not_a_ktp()
        engine = await self._seeing()
        reading, by = (card.reading, "ocr") if card else (_nothing(), "ocr")
        if engine is not None:
            yield Draft("status", {"stage": "writing"})
            reading, by = await self._see(engine, photo, card)
        seen_alone = card is None and (
            is_valid(reading.fields["nik"].value)
            and sum(bool(reading.fields[name].value) for name in FIELDS) >= MIN_SEEN
        )
        if not (reading.is_ktp or seen_alone):
            raise _not_a_ktp()
        yield Draft("result", _details(reading, by, card, photo), terminal=True)

    async def aclose(self) -> None:
        """Take no more; a read that runs ends by its own time."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _read(self, photo: Photo) -> CardImage:
        left = threading.Event()
        self._waiting += 1
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._in_thread, photo, left)
        finally:
            left.set()
            self._waiting -= 1

    def _in_thread(self, photo: Photo, left: threading.Event) -> CardImage:
        before = 0 if self._memory_bytes else _memory()
        try:
            budget = Budget(time.monotonic() + self._timeout_s, left.is_set)
            return read_pixels(self._models, photo.pixels(), budget)
        except AppError:
            raise
        except Exception as failure:
            # Neither its message nor its traceback: they may hold what the card says.
            log.error("card_not_read", error=type(failure).__name__)
            raise GenerationFailed("the card could not be read; send another photo") from None
        finally:
            if before:
                self._memory_bytes = max(0, _memory() - before)

    async def _seeing(self) -> Engine | None:
        """Return the vision engine if its model is there; nothing is loaded for OCR's sake."""
        engine = self._vision
        if engine is None or (installed() and not engine.info().get("loaded")):
            return None
        return engine if await engine.unavailable() is None else None

    async def _see(
        self, engine: Engine, photo: Photo, card: CardImage | None
    ) -> tuple[Reading, str]:
        image = await asyncio.to_thread(_for_model, photo, card)
        reading = card.reading if card else _nothing()
        try:
            seen = await see_card(engine, image)
        except AppError as failed:
            if card is None:
                raise
            log.warning("vision_not_used", code=failed.code)
            return reading, "ocr"
        return with_seen(reading, seen), "vision"


def invalid_image() -> InvalidInput:
    """The error of a request without an image."""
    return InvalidInput(
        f"Send {KINDS} of the card as the form field `image`.",
        code="invalid_image",
        status=400,
        param="image",
    )


def _not_a_ktp() -> InvalidInput:
    return InvalidInput(
        "This is no Indonesian ID card (KTP), or nothing of it can be read: photograph the whole "
        "card, straight and in even light.",
        code="not_a_ktp",
    )


def _nothing() -> Reading:
    return Reading({name: FieldRead() for name in FIELDS})


def _for_model(photo: Photo, card: CardImage | None) -> bytes:
    """Return a JPEG of the card alone, upright where OCR knows how it stands."""
    from PIL import Image

    image = photo.decoded.image
    if card is not None:
        part = crop_to_text(card.pixels, card.lines)
        image = Image.fromarray(part[:, :, ::-1].copy())
    return encode_pixels(image, lossy=True)


def _details(reading: Reading, by: str, card: CardImage | None, photo: Photo) -> dict[str, Any]:
    scale = photo.decoded.scale
    if card is not None:
        scale *= max(photo.decoded.image.size) / max(card.pixels.shape[:2])
    fields: dict[str, CardField] = {}
    for name, read in reading.fields.items():
        if read.value:
            box = card.box_before(read.box) if card and read.box else None
            placed = [round(max(0, side) * scale) for side in box] if box else None
            fields[name] = CardField(confidence=min(1.0, read.confidence), box=placed)
    details = CardDetails(
        card=card_of({name: read.value for name, read in reading.fields.items()}),
        fields=fields,
        warnings=list(dict.fromkeys(reading.warnings)),
        engine="vision" if by == "vision" else "ocr",
    )
    return details.model_dump(exclude_none=True)


def _memory() -> int:
    import psutil  # type: ignore[import-untyped, unused-ignore]

    return int(psutil.Process().memory_info().rss)
