"""Images and videos that tests make, and a look into those that come back."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def a_file(kind: str = "PNG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """An image, red on its left half and blue on its right."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def a_video(
    kind: str = "mp4", *, frames: int = 50, size: tuple[int, int] = (64, 48), rate: int = 10
) -> bytes:
    """A video whose frame n has the grey value 5 n modulo 250."""
    import av

    codec = {"webm": "libvpx-vp9"}.get(kind, "mpeg4")
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            grey = np.full((size[1], size[0], 3), index * 5 % 250, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
