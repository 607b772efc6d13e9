"""A few frames of a video, evenly spread over it, decoded from memory (S2.8).

One frame is decoded at a time: the whole video is never in memory. It knows neither where the
bytes came from nor what the frames are for.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from app.core.errors import AppError, InvalidInput
from app.services.media.images import encode_pixels

if TYPE_CHECKING:
    from PIL import Image

MAX_DURATION_S = 600.0
MAX_FRAME_PIXELS = 4096 * 2304
# 256 tokens of Qwen3-VL a frame: sixteen frames fill half of a context of 8,192 tokens.
MAX_FRAME_SIDE = 512
DECODE_TIMEOUT_S = 60.0
# A player that sees no length takes this many frames for the longest video.
_MAX_FRAMES = int(MAX_DURATION_S * 60)
# The more frames are at hand at the end, the more even are those that are taken.
_SPARE = 4


def encode_frames(data: bytes, max_frames: int, *, param: str) -> list[bytes]:
    """Return frames of a video as images that an engine takes.

    Raises:
        InvalidInput: invalid_video.
    """
    frames = sample_frames(data, max_frames=max_frames, max_side=MAX_FRAME_SIDE, param=param)
    return [encode_pixels(frame, lossy=True) for frame in frames]


def sample_frames(
    data: bytes,
    *,
    max_frames: int,
    max_side: int,
    param: str,
    timeout_s: float = DECODE_TIMEOUT_S,
) -> list[Image.Image]:
    """Return at most `max_frames` frames, first to last, in RGB, no side over `max_side` pixels.

    Blocks: call it in a thread.

    Raises:
        InvalidInput: invalid_video, video_too_large.
    """
    container = _container(data)
    if container is None:
        raise _unreadable(param)
    limits = _Limits(param, max_side, time.monotonic() + timeout_s)
    try:
        frames = _decode(data, container, max_frames, limits)
    except AppError:
        raise
    except Exception as exc:
        raise _unreadable(param) from exc
    if not frames:
        raise _unreadable(param)
    return frames


class _Limits:
    """What one video may cost. `deadline_s`: on the monotonic clock."""

    def __init__(self, param: str, max_side: int, deadline_s: float) -> None:
        self._param = param
        self._max_side = max_side
        self._deadline_s = deadline_s

    def check_header(self, *, width: int, height: int, duration_s: float) -> None:
        if width * height > MAX_FRAME_PIXELS:
            raise self._too_large("its frames are larger than 4K")
        if duration_s > MAX_DURATION_S:
            raise self._too_large(f"it is longer than {MAX_DURATION_S / 60:g} minutes")

    def check_progress(self, frames: int) -> None:
        if frames > _MAX_FRAMES or time.monotonic() > self._deadline_s:
            raise self._too_large("it takes too long to decode")

    def keep(self, frame: Any) -> Image.Image:
        """Copy a frame, made small: its own buffer is used again. frame: (height, width, 3)."""
        from PIL import Image

        self.check_header(width=frame.shape[1], height=frame.shape[0], duration_s=0)
        image = Image.fromarray(frame)
        image.thumbnail((self._max_side, self._max_side))
        return image

    def _too_large(self, reason: str) -> InvalidInput:
        return InvalidInput(
            f"The video cannot be taken: {reason}. Send a shorter or smaller one.",
            code="video_too_large",
            param=self._param,
        )


def _decode(data: bytes, container: str, max_frames: int, limits: _Limits) -> list[Image.Image]:
    """Seek where the container says how many frames there are, else go through them once."""
    import imageio.v3 as iio

    # Named, because FFmpeg's guess may be a playlist hidden behind the first bytes of a video.
    open_video: Any = iio.imopen
    with open_video(data, "r", plugin="pyav", format=container) as video:
        count, height, width = video.properties(index=...).shape[:3]
        about = video.metadata()
        rate = float(about.get("fps") or 0)
        duration_s = float(about.get("duration") or (count / rate if rate else 0))
        limits.check_header(width=width, height=height, duration_s=duration_s)
        if not 0 < count <= _MAX_FRAMES:
            return _thinned(video.iter(), max_frames, limits)
        frames: list[Image.Image] = []
        for index in spread(count, max_frames):
            limits.check_progress(0)
            try:
                frames.append(limits.keep(video.read(index=index)))
            except StopIteration:
                # Containers also count frames that cannot be decoded.
                break
        return frames


def spread(count: int, wanted: int) -> list[int]:
    """Return `wanted` indexes of `count` frames, or all, the first and the last among them."""
    if wanted >= count:
        return list(range(count))
    if wanted == 1:
        return [count // 2]
    return [round(place * (count - 1) / (wanted - 1)) for place in range(wanted)]


def _thinned(
    frames: Generator[Any, None, None], max_frames: int, limits: _Limits
) -> list[Image.Image]:
    """Go through a video of unknown length, keeping every step-th frame; `step` doubles."""
    kept: list[Image.Image] = []
    step = 1
    with closing(frames):
        for index, frame in enumerate(frames):
            limits.check_progress(index)
            if index % step:
                continue
            kept.append(limits.keep(frame))
            if len(kept) > _SPARE * max_frames:
                kept = kept[::2]
                step *= 2
    return [kept[index] for index in spread(len(kept), max_frames)]


def _container(data: bytes) -> str | None:
    """Return FFmpeg's name of a plain container: MP4 or MOV, WebM or MKV, AVI; None otherwise.

    FFmpeg also reads playlists, which name files and hosts for it to open.
    """
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    return "avi" if data[:4] == b"RIFF" and data[8:12] == b"AVI " else None


def _unreadable(param: str) -> InvalidInput:
    return InvalidInput(
        "This is not an MP4, MOV, WebM, MKV or AVI video, or the file is damaged: send another.",
        code="invalid_video",
        param=param,
    )
