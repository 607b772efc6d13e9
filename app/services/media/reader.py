"""Images and videos that a stranger gave, by address or as base64, to images an engine can take.

Never a local path. Everything is fetched under the policy of contract 6, measured before it is
decoded, and encoded anew. It knows nothing of messages, models or HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from app.core.errors import AppError, InvalidInput, ScrapeFailed
from app.core.worker import WorkerKilled, WorkerPool
from app.services.fetching.fetch import FetchPolicy, Page, fetch
from app.services.media.images import IMAGE_KINDS, encode_image
from app.services.media.videos import encode_frames

Kind = Literal["image", "video"]
Result = TypeVar("Result")

MAX_IMAGES = 16
MAX_VIDEOS = 2
MAX_IMAGE_BYTES = 10_000_000
MAX_VIDEO_BYTES = 50_000_000
FETCHES = 4
# A 40-megapixel image takes 160 MB and a second or two.
IMAGES = WorkerPool("images", processes=2, cpu_s=10.0, memory_bytes=1_000_000_000)
VIDEOS = WorkerPool("videos", processes=1, cpu_s=60.0, memory_bytes=1_000_000_000)
VIDEO_TIMEOUT_S = 30.0

# "" is binary data that came without a type; what it is, the decoders say.
_UNTYPED = ("application/octet-stream", "binary/octet-stream", "")
_IMAGE_TYPES = "image/jpeg image/jpg image/pjpeg image/png image/x-png image/webp image/gif"
_VIDEO_TYPES = (
    "video/mp4 video/quicktime video/webm video/x-matroska video/matroska video/x-m4v "
    "video/x-msvideo video/avi video/3gpp application/mp4"
)
_TYPES: dict[Kind, frozenset[str]] = {
    "image": frozenset((*_IMAGE_TYPES.split(), *_UNTYPED)),
    "video": frozenset((*_VIDEO_TYPES.split(), *_UNTYPED)),
}
_MAX_BYTES: dict[Kind, int] = {"image": MAX_IMAGE_BYTES, "video": MAX_VIDEO_BYTES}
_ACCEPT: dict[Kind, str] = {
    "image": "image/png,image/jpeg,image/webp,image/gif;q=0.9",
    "video": "video/mp4,video/webm,video/*;q=0.8",
}
_KINDS: dict[Kind, str] = {
    "image": IMAGE_KINDS,
    "video": "an MP4, MOV, WebM, MKV or AVI video",
}
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_WEB = re.compile(r"https?://", re.IGNORECASE)

Fetch = Callable[[str, FetchPolicy], Awaitable[Page]]


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image or a video of a message: an http(s) URL, a data URL or base64.

    `param`: where it stands in the request, as errors name it.
    """

    kind: Kind
    source: str = field(repr=False)
    param: str


class MediaReader:
    """Reads the media of requests. `policy`: which hosts, ports and redirects are admitted.

    `fetch_page` is the network's seam.
    """

    def __init__(
        self,
        policy: FetchPolicy | None = None,
        *,
        max_video_frames: int = 16,
        fetch_page: Fetch = fetch,
    ) -> None:
        policy = policy or FetchPolicy()
        self._policies: dict[Kind, FetchPolicy] = {
            "image": _policy(policy, "image", policy.timeout_s),
            "video": _policy(policy, "video", max(policy.timeout_s, VIDEO_TIMEOUT_S)),
        }
        self._max_video_frames = max_video_frames
        self._fetch = fetch_page
        self._fetching = asyncio.Semaphore(FETCHES)

    async def read(self, parts: Sequence[MediaPart]) -> list[list[bytes]]:
        """Return the encoded images of every part, in order: one for an image, a video's frames.

        Raises:
            InvalidInput: invalid_image, invalid_video, image_too_large, video_too_large,
                too_many_images, too_many_videos; `param` names the part.
            ScrapeFailed: blocked_url.
        """
        for kind, limit in (("image", MAX_IMAGES), ("video", MAX_VIDEOS)):
            of_kind = [part for part in parts if part.kind == kind]
            if len(of_kind) > limit:
                raise InvalidInput(
                    f"A request may hold at most {limit} {kind}s: leave some out.",
                    code=f"too_many_{kind}s",
                    param=of_kind[limit].param,
                )
        for part in parts:
            _check_source(part)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read(part)) for part in parts]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0]  # noqa: B904 - it has a cause of its own
        return [task.result() for task in tasks]

    async def read_image(self, data: bytes, *, param: str) -> bytes:
        """Return an uploaded file as an image that an engine takes, upright and in RGB.

        Raises:
            InvalidInput: invalid_image, image_too_large.
        """
        if len(data) > MAX_IMAGE_BYTES:
            raise _too_large("image", param)
        return await _decoded("image", param, IMAGES.run(encode_image, data, param=param))

    async def _read(self, part: MediaPart) -> list[bytes]:
        if _WEB.match(part.source.lstrip()):
            data = await self._download(part)
        else:
            data = await asyncio.to_thread(_decode_base64, part)
        if part.kind == "image":
            return [await self.read_image(data, param=part.param)]
        frames = VIDEOS.run(encode_frames, data, self._max_video_frames, param=part.param)
        return await _decoded("video", part.param, frames)

    async def _download(self, part: MediaPart) -> bytes:
        try:
            async with self._fetching:
                page = await self._fetch(part.source, self._policies[part.kind])
        except ScrapeFailed as exc:
            raise _not_fetched(exc, part) from exc
        return page.body


async def _decoded(kind: Kind, param: str, work: Awaitable[Result]) -> Result:
    try:
        return await work
    except WorkerKilled as killed:
        raise InvalidInput(
            f"The {kind} takes more time or memory to decode than any ordinary one: encode it "
            "anew, or send a smaller one.",
            code=f"invalid_{kind}",
            param=param,
        ) from killed


def _check_source(part: MediaPart) -> None:
    """Refuse what is neither an address nor base64, above all a path, before anything is read."""
    source = part.source.strip()
    if _WEB.match(source):
        return
    started = _DATA_URL.match(source)
    data = source[started.end() :] if started else source
    # Line breaks are usual in base64; four characters are three bytes.
    if len(data) * 3 // 4 > _MAX_BYTES[part.kind] * 1.05:
        raise _too_large(part.kind, part.param)
    if not _BASE64.fullmatch("".join(data.split())):
        raise InvalidInput(
            f"Give the {part.kind} as an http(s) URL, a data URL with base64, or base64; files of "
            "the server are never read.",
            code=f"invalid_{part.kind}",
            param=part.param,
        )


def _decode_base64(part: MediaPart) -> bytes:
    source = part.source.strip()
    started = _DATA_URL.match(source)
    text = "".join((source[started.end() :] if started else source).split()).rstrip("=")
    text = text.replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput(
            f"The base64 of the {part.kind} is damaged: encode the file again.",
            code=f"invalid_{part.kind}",
            param=part.param,
        ) from exc
    if len(data) > _MAX_BYTES[part.kind]:
        raise _too_large(part.kind, part.param)
    return data


def _policy(policy: FetchPolicy, kind: Kind, timeout_s: float) -> FetchPolicy:
    return replace(
        policy,
        types=_TYPES[kind],
        accept=_ACCEPT[kind],
        max_bytes=_MAX_BYTES[kind],
        timeout_s=timeout_s,
    )


def _not_fetched(failed: ScrapeFailed, part: MediaPart) -> AppError:
    """Say what a failed fetch means for this part; the fetcher speaks of pages."""
    if failed.code == "blocked_url":
        return ScrapeFailed(
            f"The address of the {part.kind} is not fetched: only public web addresses are. Send "
            "the file as a data URL instead.",
            code="blocked_url",
            param=part.param,
        )
    if failed.code == "too_large":
        return _too_large(part.kind, part.param)
    if failed.code == "unsupported_type":
        return InvalidInput(
            f"The address does not lead to {_KINDS[part.kind]}: use the address of the file.",
            code=f"invalid_{part.kind}",
            param=part.param,
        )
    return InvalidInput(
        f"The {part.kind} could not be fetched ({failed.code.replace('_', ' ')}): check the "
        "address, or send the file as a data URL.",
        code=f"invalid_{part.kind}",
        param=part.param,
    )


def _too_large(kind: Kind, param: str) -> InvalidInput:
    return InvalidInput(
        f"The {kind} is larger than {_MAX_BYTES[kind] / 1e6:g} MB: send a smaller one.",
        code=f"{kind}_too_large",
        param=param,
    )
