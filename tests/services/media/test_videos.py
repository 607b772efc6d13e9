"""Videos of strangers: S2.8, and the pitfalls: never whole in memory, no temporary file left.

No container that names other files or hosts ever gets to a decoder.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from app.core.errors import InvalidInput
from app.services.media.videos import sample_frames
from tests.services.media.files import a_file, a_video, data_url, opened
from tests.services.media.test_reader import PARAM, fetched, read, refused
from tests.services.origin import response, serving

ROOT = Path(__file__).parents[3]


def greys(frames: list[bytes]) -> list[int]:
    return [round(float(np.asarray(opened(frame)).mean()) / 5) for frame in frames]


@pytest.mark.parametrize("kind", ["mp4", "mov", "webm", "matroska", "avi"])
async def test_a_video_is_its_frames_spread_evenly(kind: str) -> None:
    """S2.8: uniformly sampled to MAX_VIDEO_FRAMES, also where the container counts no frames."""
    frames = await read(data_url(a_video(kind), "video/mp4"), "video", max_video_frames=8)
    numbers = greys(frames)
    assert len(numbers) == 8
    assert numbers == sorted(numbers)
    assert numbers[0] <= 1
    assert numbers[-1] >= 43
    assert {opened(frame).mode for frame in frames} == {"RGB"}
    gaps = np.diff(numbers)
    assert gaps.min() >= 4
    assert gaps.max() <= 9


async def test_a_video_is_read_from_an_address_and_from_base64() -> None:
    """S2.8, contract 2: the same sources as images; a short video is all its frames."""
    video = a_video(frames=3)
    async with serving() as origin:
        origin.scripts["/v"] = response(video, content_type="video/mp4")
        origin.scripts["/big"] = response(b"", content_type="video/mp4", length=50_000_001)
        assert len(await fetched(origin, "/v", "video")) == 3
        assert (await refused(fetched(origin, "/big", "video"))).code == "video_too_large"
        assert (await refused(fetched(origin, "/v", "image"))).code == "invalid_image"
    assert len(await read(base64.b64encode(video).decode(), "video")) == 3


@pytest.mark.parametrize("kind", ["mp4", "matroska"])
def test_a_video_is_never_whole_in_memory(kind: str, tmp_path: Path) -> None:
    """Pitfall: videos were decoded whole into memory. 200 frames of this size are 138 MB."""
    (tmp_path / "small").write_bytes(a_video(kind, frames=20, size=(640, 360)))
    (tmp_path / "large").write_bytes(a_video(kind, frames=200, size=(640, 360)))
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from app.services.media.videos import sample_frames\n"
        "for name in ('small', 'large'):\n"
        "    data = (Path(sys.argv[1]) / name).read_bytes()\n"
        "    frames = sample_frames(data, max_frames=16, max_side=64, param='x')\n"
        "    print(len(frames), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    (few, before_kb), (many, after_kb) = (
        map(int, line.split()) for line in done.stdout.split("\n")[:2]
    )
    assert (few, many) == (16, 16)
    assert after_kb - before_kb < 40_000


async def test_no_temporary_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfall: temporary files were kept; imageio needs none, good video or bad."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    await read(data_url(a_video()), "video")
    await refused(read(data_url(a_video()[:2000]), "video"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1/\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'/>",
        a_file("GIF"),
        b"",
    ],
)
async def test_a_playlist_is_no_video(data: bytes) -> None:
    """FFmpeg opens the files and hosts that playlists name: only plain containers get to it."""

    assert (await refused(read(data_url(data), "video"))).code == "invalid_video"


@pytest.mark.parametrize(
    "head", [b"\0\0\0\0free", b"    ftyp", b"\x1a\x45\xdf\xa3", b"RIFF    AVI "]
)
@pytest.mark.parametrize("playlist", ["dash", "sdp"])
def test_a_playlist_behind_the_first_bytes_of_a_video_opens_nothing(
    head: bytes, playlist: str
) -> None:
    """FFmpeg guesses by what it finds anywhere; nothing may reach the address in the playlist."""
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0.2)
        port = inside.getsockname()[1]
        text = {
            "dash": "<MPD profiles='urn:mpeg:dash:profile:isoff-on-demand:2011' type='static' "
            "mediaPresentationDuration='PT5S'><Period><AdaptationSet mimeType='video/mp4'>"
            f"<Representation id='1'><BaseURL>http://127.0.0.1:{port}/a.mp4</BaseURL>"
            "</Representation></AdaptationSet></Period></MPD>",
            "sdp": f"\nv=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
        }[playlist]
        data = head + text.encode() + b" " * 2000
        with pytest.raises(InvalidInput) as caught:
            sample_frames(data, max_frames=4, max_side=64, param=PARAM)
        assert caught.value.code == "invalid_video"
        with pytest.raises(TimeoutError):
            inside.accept()


async def test_a_long_or_large_video_is_refused_by_its_header() -> None:
    """Ten minutes, 4K, 50 MB."""
    long = a_video(frames=602, size=(16, 16), rate=1)
    assert (await refused(read(data_url(long), "video"))).code == "video_too_large"
    large = a_video(frames=1, size=(4112, 2320))
    assert (await refused(read(data_url(large), "video"))).code == "video_too_large"
    heavy = a_video(frames=1) + bytes(50_000_000)
    assert (await refused(read(data_url(heavy), "video"))).code == "video_too_large"


def test_decoding_ends_at_its_deadline() -> None:
    """A thread cannot be stopped from outside, so that the decoder watches the clock."""
    for kind in ("mp4", "webm"):
        with pytest.raises(InvalidInput) as caught:
            sample_frames(a_video(kind), max_frames=4, max_side=64, param=PARAM, timeout_s=0)
        assert caught.value.code == "video_too_large"
