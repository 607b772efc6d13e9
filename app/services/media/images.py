"""An image file that a stranger gave, checked and encoded anew for an engine.

Its header is judged before a pixel is decoded. It knows nothing of requests or the network.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.core.errors import AppError, InvalidInput

if TYPE_CHECKING:
    from PIL import Image

IMAGE_KINDS = "a JPEG, PNG, WebP or GIF image"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
MAX_PIXELS = 40_000_000
MAX_ASPECT = 100
# Encoders write about ten; a picture in the metadata has its own.
MAX_SCANS = 64
# No open model looks at more than about four megapixels of one image.
MAX_SIDE = 2048


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image, upright and in RGB. `lossy`: it came as a JPEG; `scale`: how much larger it was."""

    image: Image.Image
    lossy: bool
    scale: float


def encode_image(data: bytes, *, param: str) -> bytes:
    """Check a file and encode it anew, upright, in RGB, the longer side at most 2,048 pixels.

    A JPEG stays one; anything else becomes a PNG, on white where it was transparent; of an
    animation the first frame is taken. Blocks: call it in a thread.

    Raises:
        InvalidInput: invalid_image, image_too_large.
    """
    decoded = decode_image(data, param=param)
    return encode_pixels(decoded.image, lossy=decoded.lossy)


def decode_image(
    data: bytes, *, param: str, formats: tuple[str, ...] = FORMATS, kinds: str = IMAGE_KINDS
) -> Decoded:
    """Check a file and decode it as `encode_image` does. `kinds`: the formats, for people.

    Raises:
        InvalidInput: invalid_image, image_too_large.
    """
    from PIL import Image, ImageOps

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    try:
        _check_scans(data)
        # Only these decoders are tried, whatever else is installed.
        with Image.open(io.BytesIO(data), formats=formats) as image:
            _check_size(image.size, param)
            longest = max(image.size)
            lossy = image.format in ("JPEG", "MPO")
            # JPEG is decoded at a half or a quarter of its size where that is enough.
            image.draft("RGB", (MAX_SIDE, MAX_SIDE))
            pixels = _on_white(ImageOps.exif_transpose(image))
            pixels.thumbnail((MAX_SIDE, MAX_SIDE))
            return Decoded(pixels, lossy, longest / max(pixels.size))
    except AppError:
        raise
    except (*bombs, MemoryError) as exc:
        raise _too_many_pixels(param) from exc
    except Exception as exc:
        raise InvalidInput(
            f"This is not {kinds}, or the file is damaged: send another file.",
            code="invalid_image",
            param=param,
        ) from exc


def _check_scans(data: bytes) -> None:
    """Refuse a progressive JPEG of endless scans: each one costs a pass over all its pixels."""
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > MAX_SCANS:
        raise ValueError("too many scans")


def _check_size(size: tuple[int, int], param: str) -> None:
    """Judge by the header alone, before any pixel is decoded."""
    if size[0] * size[1] > MAX_PIXELS:
        raise _too_many_pixels(param)
    if max(size) > MAX_ASPECT * min(size):
        raise InvalidInput(
            f"The image is more than {MAX_ASPECT} times as long as it is wide: crop it.",
            code="invalid_image",
            param=param,
        )


def _on_white(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Pillow cuts 16 bits off at 255, which turns a scan white.
        return image.convert("I").point(lambda value: value / 256).convert("L").convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")


def encode_pixels(image: Image.Image, *, lossy: bool) -> bytes:
    """Return an image as a JPEG or a PNG without metadata."""
    out = io.BytesIO()
    # Metadata may hold a place or a name: neither kind of file gets any.
    image.info.clear()
    if lossy:
        image.save(out, "JPEG", quality=92)
    else:
        image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _too_many_pixels(param: str) -> InvalidInput:
    return InvalidInput(
        f"The image has more than {MAX_PIXELS / 1e6:g} megapixels: send a smaller one.",
        code="image_too_large",
        param=param,
    )
