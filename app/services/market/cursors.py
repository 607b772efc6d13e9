"""Where the next page begins, as a text that only this server can have made."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from app.core.errors import InvalidInput

_MAC_BYTES = 12
MAX_CHARS = 500


class Cursors:
    """Writes and reads cursors. `secret`: what they are signed with."""

    def __init__(self, secret: Callable[[], str]) -> None:
        self._secret = secret

    def write(self, kind: str, *values: Any) -> str:
        """Return the cursor of some values. `kind`: the list and the filters that it belongs to."""
        body = json.dumps(values, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(self._mac(kind, body) + body).decode().rstrip("=")

    def read(self, kind: str, cursor: str) -> list[Any]:
        """Return the values.

        Raises:
            InvalidInput: it is none of this server's, or of another list.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
            whole = base64.urlsafe_b64encode(raw).decode().rstrip("=") == cursor
            if whole and hmac.compare_digest(mac, self._mac(kind, body)):
                values: list[Any] = json.loads(body)
                return values
        except ValueError:
            pass
        raise InvalidInput(
            "cursor: take it from `next_cursor` of the same list with the same filters, or leave "
            "it out to begin anew",
            code="invalid_cursor",
        )

    def _mac(self, kind: str, body: bytes) -> bytes:
        key = hashlib.blake2b(f"cursor {self._secret()}".encode()).digest()
        message = kind.encode("utf-8", "replace") + b"\0" + body
        return hashlib.blake2b(message, key=key, digest_size=_MAC_BYTES).digest()
