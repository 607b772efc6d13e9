"""Header lines that a strict parser refuses, mended the way browsers read them.

One bad line would cost the whole page: a name that is no token or has spaces before its colon, a
line without a colon, a zero byte. What cannot be mended is left out (RFC 9112, section 5.1).
"""

from __future__ import annotations

import re
import ssl
from typing import Any

import httpcore

MAX_HEAD_BYTES = 64_000

_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"\r?\n")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:([^\x00\r]*)")
# An answer before the answer, such as 103 Early Hints; after 101 no HTTP follows.
_INTERIM = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d")


def mended(head: bytes) -> bytes:
    """Return a response's head, up to its empty line, with the lines that can be read."""
    status, *lines = _LINE.split(head)
    kept: list[bytes] = []
    going_on = False
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if going_on:
                kept[-1] += b" " + line.strip().replace(b"\x00", b"")
            continue
        field = _FIELD.fullmatch(line)
        going_on = field is not None
        if field is not None:
            kept.append(field[1] + b": " + field[2].strip())
    return b"\r\n".join([status, *kept, b"", b""])


class LenientStream(httpcore.AsyncNetworkStream):
    """A connection whose response heads are mended as they come; the bodies pass untouched."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._head: bytes | None = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._head is None:
            return await self._inner.read(max_bytes, timeout)
        mended_heads = b""
        while True:
            while (end := _END.search(self._head)) is not None:
                head, rest = self._head[: end.start()], self._head[end.end() :]
                mended_heads += mended(head)
                if not _INTERIM.match(head):
                    self._head = None
                    return mended_heads + rest
                self._head = rest
            if mended_heads:
                return mended_heads
            chunk = await self._inner.read(max_bytes, timeout)
            if not chunk or len(self._head) > MAX_HEAD_BYTES:
                unfinished, self._head = self._head + chunk, None
                return unfinished
            self._head += chunk

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
    ) -> httpcore.AsyncNetworkStream:
        return LenientStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
