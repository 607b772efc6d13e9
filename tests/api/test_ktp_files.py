"""Contract 5: hostile and odd files are a 4xx before any model runs, or the right answer."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import pytest
from PIL import Image

from app.services.ocr.engine import OcrModels
from tests.api.card_images import card_photo, saved, values
from tests.servers import Running, serving

CARD_S = 50.0


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


def post(server: Running, data: bytes) -> tuple[int, str]:
    with server.client(timeout=CARD_S) as client:
        answer = client.post("/ktp-ocr/", files={"image": ("a.jpg", data, "image/jpeg")})
    return answer.status_code, answer.json().get("code", "")


def png_of(width: int, height: int) -> bytes:
    """Return a PNG whose header promises a size and whose data are a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + (chunk(b"IEND", b""))
    )


def gif() -> bytes:
    frames = [Image.new("P", (40, 40), shade) for shade in range(9)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:], loop=0)


def scans() -> bytes:
    """Return a progressive JPEG whose last scan comes thousands of times."""
    plain = saved(Image.new("RGB", (64, 64), "white"), "JPEG", progressive=True)
    last = plain.rfind(b"\xff\xda")
    return plain[:last] + plain[last:-2] * 5000 + plain[-2:]


def small() -> bytes:
    return saved(Image.new("RGB", (300, 200), "white"), "JPEG")


FILES = {
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "html": b"<html><body>KTP</body></html>",
    "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
    "zip": b"PK\x03\x04" + bytes(200),
    "gif": gif(),
    "tiff": saved(Image.new("RGB", (40, 40)), "TIFF"),
    "bmp": saved(Image.new("RGB", (40, 40)), "BMP"),
    "ico": saved(Image.new("RGB", (40, 40)), "ICO"),
    "heic": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100),
    "truncated jpeg": small()[:200],
    "truncated png": saved(Image.effect_noise((300, 200), 50))[:4000],
    "png header alone": png_of(300, 200)[:33],
    "polyglot": b"GIF89a" + small(),
    "thousands of scans": scans(),
    "path": b"/etc/passwd",
    "address": b"http://169.254.169.254/latest/meta-data/",
}
HUGE = {"wide": (50_000, 900), "bomb": (65_535, 65_535), "high": (7_000, 7_000)}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_sound_jpeg_png_or_webp_is_refused_unread(
    server: Running, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OcrModels, "read", lambda *given: pytest.fail("it was read"))
    assert post(server, FILES[kind]) == (400, "invalid_image")


@pytest.mark.parametrize("kind", HUGE)
def test_huge_dimensions_are_refused_by_the_header_alone(server: Running, kind: str) -> None:
    assert post(server, png_of(*HUGE[kind])) == (413, "image_too_large")


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (20, 30)])
def test_a_tiny_image_is_no_card(server: Running, size: tuple[int, int]) -> None:
    assert post(server, saved(Image.new("RGB", size))) == (422, "not_a_ktp")


@pytest.mark.parametrize("mode", ["I;16", "CMYK", "P", "LA", "RGBA", "1"])
def test_every_mode_of_pixels_is_decoded(server: Running, mode: str) -> None:
    """16 bits, four inks, a palette, transparency: an answer, never a 500."""
    image = (
        Image.new("L", (64, 40), 255).convert("I").convert("I;16")
        if mode == "I;16"
        else (Image.new("RGB", (64, 40), "white").convert(mode))
    )
    assert post(server, saved(image, "JPEG" if mode == "CMYK" else "PNG")) == (422, "not_a_ktp")


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_card_turned_by_its_exif_is_read(server: Running, orientation: int) -> None:
    """EXIF turns the pixels before anything looks at them; all eight ways in tests of media."""
    card, data = card_photo()
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}[orientation]
    with Image.open(io.BytesIO(data)) as image:
        turned = image.transpose(back)
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = saved(turned, "JPEG", quality=92, exif=exif)
    with server.client(timeout=CARD_S) as client:
        answer = client.post("/ktp-ocr/", files={"image": ("a.jpg", file)})
    assert answer.json() == values(card)
