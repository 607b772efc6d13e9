"""Images and videos of strangers: S2.7, S2.8, contract 2 (sources) and 6, and the pitfalls.

Nothing local is ever read, nothing is decoded before its size is known, no video whole.
"""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import zlib
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.core.errors import AppError, InvalidInput, ScrapeFailed
from app.core.worker import WorkerKilled
from app.services.fetching.fetch import FetchPolicy, Page, fetch
from app.services.media import reader
from app.services.media.reader import Kind, MediaPart, MediaReader
from tests.services.media.files import a_file, a_video, data_url, opened
from tests.services.origin import Origin, redirect, response, serving

LIMIT_S = 20.0
PARAM = "messages.0.content.1"


async def read(source: str, kind: Kind = "image", **options: Any) -> list[bytes]:
    """Read one part with a reader that no network call may leave."""
    reader = MediaReader(**{"fetch_page": no_network, **options})
    async with asyncio.timeout(LIMIT_S):
        (found,) = await reader.read([MediaPart(kind, source, PARAM)])
    return found


async def no_network(url: str, policy: FetchPolicy) -> Page:
    raise AssertionError("nothing may be fetched")


async def refused(call: Awaitable[Any]) -> AppError:
    with pytest.raises(AppError) as caught:
        await call
    assert caught.value.param == PARAM
    return caught.value


def allowing(origin: Origin) -> MediaReader:
    return MediaReader(FetchPolicy(allow_hosts=frozenset((origin.authority,)), timeout_s=5))


async def fetched(origin: Origin, path: str, kind: Kind = "image") -> list[bytes]:
    async with asyncio.timeout(LIMIT_S):
        (found,) = await allowing(origin).read([MediaPart(kind, origin.url(path), PARAM)])
    return found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_an_image_is_read_from_every_source_and_format(kind: str) -> None:
    """S2.7, contract 2: an http(s) URL, a data URL, base64; JPEG, PNG, WebP, GIF."""
    file = a_file(kind)
    async with serving() as origin:
        origin.scripts["/a"] = response(file, content_type=f"image/{kind.lower()}")
        found = [
            await read(data_url(file)),
            await read(base64.b64encode(file).decode()),
            await read(base64.encodebytes(file).decode()),
            await read(base64.urlsafe_b64encode(file).decode().rstrip("=")),
            await fetched(origin, "/a"),
        ]
    for (image,) in found:
        pixels = opened(image)
        assert (pixels.format, pixels.mode, pixels.size) == (
            "JPEG" if kind == "JPEG" else "PNG", "RGB", (40, 30),
        )  # fmt: skip
        left, right = pixels.getpixel((5, 15)), pixels.getpixel((35, 15))
        assert left[0] > 200 > 60 > left[2]  # type: ignore[index, operator]
        assert right[2] > 200 > 60 > right[0]  # type: ignore[index, operator]


@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://{}", "file:{}", " {}", "{}\n"])
async def test_a_file_of_the_server_is_never_read(form: str, tmp_path: Path) -> None:
    """Pitfall: `image_url` read local files."""
    file = tmp_path / "secret.png"
    file.write_bytes(a_file())
    for kind in ("image", "video"):
        error = await refused(read(form.format(file), kind))
        assert error.code == f"invalid_{kind}"
        assert "secret" not in error.message


async def test_no_path_of_any_shape_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall: `image_url` read local files; here also relative ones, homes and bare names."""
    for name in ("picture", "picture.png", "etc/passwd"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(a_file())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    sources = (
        "/etc/passwd", "etc/passwd", "picture", "./picture.png", "../picture.png", "picture.png",
        "~/picture.png", "~", "file:///etc/passwd", "file://localhost/etc/passwd", "C:\\a.png",
        "\\\\host\\share\\a.png", "ftp://example.com/a.png", "gopher://127.0.0.1/", "", " ",
        "data:image/png,picture.png", "data:image/png;base64,./picture.png", "javascript:alert(1)",
        "<bytes>", "imageio:chelsea.png", "<video0>", "tcp://127.0.0.1:1", "concat:/etc/passwd",
    )  # fmt: skip
    for source in sources:
        for kind in ("image", "video"):
            assert (await refused(read(source, kind))).code == f"invalid_{kind}", source


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1/a.png",
        "http://[::1]/a.png",
        "http://10.0.0.1/a.png",
        "http://2130706433/",
        "http://user:pass@example.com/a.png",
        "https://example.com:22/a.png",
    ],
)
async def test_a_host_that_is_not_public_stays_blocked(url: str) -> None:
    """Contract 6: the same policy for images and videos as for pages."""
    for kind in ("image", "video"):
        error = await refused(read(url, kind, fetch_page=fetch))
        assert (type(error), error.code) == (ScrapeFailed, "blocked_url")


async def test_a_redirect_to_a_private_host_is_blocked() -> None:
    """Contract 6, pitfall: redirects to private addresses got through."""
    async with serving() as origin:
        origin.scripts["/a"] = redirect("http://127.0.0.1/inside.png")
        origin.scripts["/file"] = redirect("file:///etc/passwd")
        assert (await refused(fetched(origin, "/a"))).code == "blocked_url"
        assert (await refused(fetched(origin, "/file"))).code == "blocked_url"


async def test_an_address_that_leads_to_no_image_says_so() -> None:
    """Contract 6: types and sizes are limited; the part that is at fault is named."""
    async with serving() as origin:
        origin.scripts["/page"] = response("<html><p>hello</p></html>")
        origin.scripts["/lie"] = response("<html><p>hello</p></html>", content_type="image/png")
        origin.scripts["/big"] = response(b"", content_type="image/png", length=10_000_001)
        origin.scripts["/bare"] = response(a_file(), content_type=None)
        origin.scripts["/octets"] = response(a_file(), content_type="application/octet-stream")
        codes = {
            path: (await refused(fetched(origin, path))).code
            for path in ("/page", "/lie", "/big", "/missing")
        }
        assert codes == {
            "/page": "invalid_image",
            "/lie": "invalid_image",
            "/big": "image_too_large",
            "/missing": "invalid_image",
        }
        for path in ("/bare", "/octets"):
            assert opened((await fetched(origin, path))[0]).size == (40, 30)
        assert "text/html" not in origin.heads[-1]
        assert "Accept: image/png" in origin.heads[-1]


async def test_a_photograph_stands_upright_and_tells_no_place() -> None:
    """The orientation in the EXIF data is applied, and no metadata goes on to the model."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    (image,) = await read(data_url(a_file("JPEG", exif=exif.tobytes())))
    upright = opened(image)
    assert upright.size == (30, 40)
    assert upright.getpixel((15, 5))[0] > 200  # type: ignore[index, operator]
    assert not upright.getexif()
    assert b"camera" not in image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK", "I;16"])
async def test_every_colour_mode_becomes_rgb_on_white(mode: str) -> None:
    """What is transparent is white, not black; 16 bits are scaled, not cut off."""
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((0, 128, 0, 255), (0, 0, 10, 10))
    if mode == "I;16":
        ramp = np.full((10, 20), 65535, np.uint16)
        ramp[:, :10] = 16384
        image = Image.fromarray(ramp)
    elif mode != "RGBA":
        image = image.convert(mode) if mode in ("LA", "P") else on_white(image).convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG" if mode == "CMYK" else "PNG")
    (found,) = await read(data_url(out.getvalue()))
    pixels = np.asarray(opened(found)).astype(int)
    assert pixels.shape == (10, 20, 3)
    assert pixels[5, 15].min() > 245
    assert 40 < pixels[5, 5].mean() < 130 or mode == "1"


def on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


async def test_an_animation_is_its_first_frame() -> None:
    """GIF: the first frame."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        out = io.BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50)
        (image,) = await read(data_url(out.getvalue()))
        assert opened(image).getpixel((10, 10))[0] > 240, kind  # type: ignore[index, operator]


def png_claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)


@pytest.mark.parametrize("size", [(8000, 5001), (20_000, 20_000), (65_535, 65_535)])
async def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    """40 megapixels, checked before a pixel is decoded."""
    error = await refused(read(data_url(png_claiming(*size))))
    # The pixels are missing: decoding first would find the file damaged.
    assert error.code == "image_too_large"


async def test_a_large_image_comes_out_small_and_a_strip_is_refused() -> None:
    """40 megapixels pass, and are scaled down to what models look at."""
    (image,) = await read(data_url(a_file("JPEG", (8000, 5000))))
    assert opened(image).size == (2048, 1280)
    assert (await refused(read(data_url(a_file(size=(2000, 10)))))).code == "invalid_image"


async def test_a_file_over_ten_megabytes_is_refused_from_every_source() -> None:
    """10 MB an image, base64 or uploaded."""
    big = a_file() + bytes(10_000_000)
    assert (await refused(read(data_url(big)))).code == "image_too_large"
    with pytest.raises(InvalidInput) as caught:
        await MediaReader().read_image(big, param="image")
    assert (caught.value.code, caught.value.param) == ("image_too_large", "image")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        a_file()[:60],
        a_file("JPEG", (400, 300))[:900],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        a_file("BMP"),
        a_file("TIFF"),
    ],
)
async def test_what_is_no_whole_image_of_the_four_formats_is_refused(data: bytes) -> None:
    """Other decoders (PostScript, TIFF) are never tried."""
    error = await refused(read(data_url(data)))
    assert (error.code, error.status) == ("invalid_image", 422)


async def test_too_many_parts_are_refused_before_anything_is_read() -> None:
    """At most 16 images a request; the first one too many is named."""
    for kind, limit in (("image", 16), ("video", 2)):
        parts = [MediaPart(kind, "http://a.example/", f"p{n}") for n in range(limit + 1)]  # type: ignore[arg-type]
        with pytest.raises(InvalidInput) as caught:
            await MediaReader(fetch_page=no_network).read(parts)
        assert (caught.value.code, caught.value.param) == (f"too_many_{kind}s", f"p{limit}")


async def test_parts_are_answered_in_their_order() -> None:
    """One list for every part, whichever is ready first."""
    parts = [
        MediaPart("video", data_url(a_video(), "video/mp4"), "a"),
        MediaPart("image", data_url(a_file(size=(10, 10))), "b"),
        MediaPart("image", data_url(a_file(size=(20, 10))), "c"),
    ]
    video, first, second = await MediaReader(max_video_frames=3).read(parts)
    assert len(video) == 3
    assert [opened(found).size for (found,) in (first, second)] == [(10, 10), (20, 10)]
    assert await MediaReader().read([]) == []


async def test_one_bad_part_ends_the_others_at_once() -> None:
    """A host that never answers does not keep the answer back."""
    cancelled = asyncio.Event()
    asked = asyncio.Event()

    async def for_ever(url: str, policy: FetchPolicy) -> Page:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async def bad(url: str, policy: FetchPolicy) -> Page:
        await asked.wait()
        raise ScrapeFailed("no", code="dns_failed")

    async def either(url: str, policy: FetchPolicy) -> Page:
        return await (bad if "bad" in url else for_ever)(url, policy)

    parts = [MediaPart("image", f"http://{host}.example/", PARAM) for host in ("slow", "bad")]
    async with asyncio.timeout(LIMIT_S):
        error = await refused(MediaReader(fetch_page=either).read(parts))
    assert error.code == "invalid_image"
    assert cancelled.is_set()


async def test_no_pixel_is_decoded_in_this_process() -> None:
    """A hostile image can take its own process down, not the server."""
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "open", lambda *_, **__: seen.append("opened"))
        assert await read(data_url(a_file()))
    assert seen == []


async def test_an_image_that_takes_too_long_is_refused_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that is killed blames the file, not the server."""

    async def killed(*_: object, **__: object) -> bytes:
        raise WorkerKilled("images")

    monkeypatch.setattr(reader.IMAGES, "run", killed)
    error = await refused(read(data_url(a_file())))
    assert (error.code, error.param) == ("invalid_image", PARAM)
    assert "time or memory" in error.message


@pytest.mark.parametrize("scans", [100, 2000])
async def test_a_jpeg_of_endless_scans_is_refused_and_the_next_image_is_read(scans: int) -> None:
    """Two progressive JPEGs with a repeated scan once stopped all image requests."""
    data = a_file("JPEG", (3000, 3000), progressive=True)
    last = data.rindex(b"\xff\xda")
    error = await refused(read(data_url(data[:-2] + data[last:-2] * scans)))
    assert error.code == "invalid_image"
    assert await read(data_url(a_file()))


def test_a_part_does_not_show_its_content() -> None:
    """Pitfall: personal data was logged."""
    assert "passport" not in repr(MediaPart("image", "data:image/png;base64,passport", PARAM))
