"""Content-Encoding undone under a size limit; knows nothing of HTTP, URLs or text.

Every decompressor is asked for at most what is still allowed, so a bomb is never inflated.
"""

from __future__ import annotations

import io
import zlib

import brotli  # type: ignore[import-untyped]  # ships no types
import zstandard

from app.core.errors import ScrapeFailed
from app.services.fetching.errors import too_large

ACCEPT_ENCODING = "gzip, deflate, br, zstd"

# A page that was compressed by the application and again by a proxy exists; three layers do not.
MAX_CODINGS = 2
# RFC 9659: what a browser offers a zstd stream; a larger window is a request for our memory.
ZSTD_WINDOW_BYTES = 8 * 2**20
# Every member copies what is left of the input: uncapped, 5 MB of tiny ones take minutes.
MAX_GZIP_MEMBERS = 100
GZIP_MAGIC = b"\x1f\x8b"
# What stands in the header of bodies that have no coding at all.
_NO_CODINGS = frozenset(
    ("", "identity", "none", "utf-8", "utf8", "binary", "8bit", "7bit", "chunked", "text", "null")
)


class _TooLarge(Exception):
    """The output passed the limit."""


class _Corrupt(Exception):
    """The stream is not what the header says, or ends early."""


def codings_of(header: str) -> list[str]:
    """Return the codings of a Content-Encoding header in the order they were applied.

    Raises:
        ScrapeFailed: bad_encoding, for one we did not offer or for too many.
    """
    names = [name.strip().lower().removeprefix("x-") for name in header.split(",")]
    names = [name for name in names if name not in _NO_CODINGS]
    if len(names) > MAX_CODINGS or any(name not in _DECODERS for name in names):
        raise ScrapeFailed(
            "The site sent a compression that was not asked for; paste the text instead.",
            code="bad_encoding",
        )
    return names


def decode_content(body: bytes, codings: list[str], *, max_bytes: int, whole: bool = True) -> bytes:
    """Undo the codings, the last applied first; no layer may exceed `max_bytes`.

    `whole`: false for a body that broke off; what can be had of gzip and deflate is returned then.

    Raises:
        ScrapeFailed: too_large or bad_encoding.
    """
    for coding in reversed(codings):
        if not body:
            break
        if coding == "gzip" and not body.startswith(GZIP_MAGIC) and b"\0" not in body[:1024]:
            # Said, and not done: a proxy has undone it and left the header.
            continue
        try:
            body = (_DECODERS if whole else _BROKEN_OFF)[coding](body, max_bytes)
        except _TooLarge:
            raise too_large(max_bytes) from None
        except (_Corrupt, zlib.error, brotli.error, zstandard.ZstdError) as exc:
            raise ScrapeFailed(
                f"The site sent a page whose {coding} compression is damaged; "
                "try again later or paste the text.",
                code="bad_encoding",
            ) from exc
    return body


def _inflate(body: bytes, max_bytes: int, wbits: int) -> tuple[bytes, bytes]:
    stream = zlib.decompressobj(wbits)
    out = stream.decompress(body, max_bytes + 1)
    if len(out) > max_bytes:
        raise _TooLarge
    if not stream.eof:
        raise _Corrupt
    return out, stream.unused_data


def _gunzip(body: bytes, max_bytes: int) -> bytes:
    out = bytearray()
    for _ in range(MAX_GZIP_MEMBERS):
        member, body = _inflate(body, max_bytes - len(out), zlib.MAX_WBITS | 16)
        out += member
        if not body.startswith(GZIP_MAGIC):
            return bytes(out)
    raise _Corrupt


def _deflate(body: bytes, max_bytes: int) -> bytes:
    # Half the servers that say "deflate" mean zlib, the other half the bare stream (RFC 9110
    # 8.4.1.2); only zlib's header is a multiple of 31 with method 8.
    wrapped = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _inflate(body, max_bytes, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)[0]


def _unbrotli(body: bytes, max_bytes: int) -> bytes:
    stream = brotli.Decompressor()
    out = bytearray(stream.process(body, output_buffer_limit=max_bytes + 1))
    while not stream.is_finished():
        more = b""
        if len(out) <= max_bytes:
            more = stream.process(b"", output_buffer_limit=max_bytes + 1 - len(out))
        if not more:
            break
        out += more
    if len(out) > max_bytes:
        raise _TooLarge
    if not stream.is_finished():
        raise _Corrupt
    return bytes(out)


def _unzstd(body: bytes, max_bytes: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
    with decompressor.stream_reader(io.BytesIO(body), read_across_frames=False) as reader:
        out = reader.read(max_bytes + 1)
    if len(out) > max_bytes:
        raise _TooLarge
    # The reader is silent about a stream that ends early. The output is known to fit by now, so
    # the object that does know may expand it again.
    whole = decompressor.decompressobj()
    if whole.decompress(body) != out or not whole.eof:
        raise _Corrupt
    return out


_DECODERS = {"gzip": _gunzip, "deflate": _deflate, "br": _unbrotli, "zstd": _unzstd}


def _broken_off(body: bytes, max_bytes: int) -> bytes:
    """Return what a deflate or gzip stream holds that ends early."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)
    out = stream.decompress(body, max_bytes + 1)
    if len(out) > max_bytes:
        raise _TooLarge
    return out


_BROKEN_OFF = {**_DECODERS, "gzip": _broken_off, "deflate": _broken_off}
