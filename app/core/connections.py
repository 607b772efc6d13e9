"""What a connection may cost: headers come within a time, and one client has only so many.

uvicorn bounds neither. Its httptools protocol is the one in use wherever httptools is installed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.security import network_of

HEADERS_S = 10.0
MAX_PER_CLIENT = 1000
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 42\r\nconnection: close\r\n\r\nthe headers did not arrive within the time"
)


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose headers are late, and those over the bound of one network.

    `open_per_client`: the connections of each network. `max_per_client`: None where all come
    through a proxy, which has bounds of its own.
    """

    open_per_client: ClassVar[Counter[str]] = Counter()
    max_per_client: ClassVar[int | None] = MAX_PER_CLIENT

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._headers_due: asyncio.TimerHandle | None = None
        self._network = ""
        self._begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._network = network_of({"client": self.client})
        self.open_per_client[self._network] += 1
        limit = self.max_per_client
        if limit is not None and self.open_per_client[self._network] > limit:
            transport.abort()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        self.open_per_client[self._network] -= 1
        if not self.open_per_client[self._network]:
            del self.open_per_client[self._network]
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._begun = True
        self._await_headers()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._begun = False
        self._headers_came()
        super().on_headers_complete()

    def _await_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(HEADERS_S, self._close_late)

    def _headers_came(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _close_late(self) -> None:
        self._headers_due = None
        if self.transport.is_closing():
            return
        # Pipelined headers may be late while an answer is on its way: no words in its midst.
        if self._begun and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(_TOO_SLOW)
        self.transport.close()
