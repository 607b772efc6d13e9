"""API keys and rates: who a request belongs to, and whether it may come now."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence

from starlette.datastructures import Headers
from starlette.types import Scope

from app.core.errors import Unauthorized
from app.core.rates import Rates

OPEN_PATHS = frozenset(
    {
        "/",
        "/chat",
        "/write",
        "/health",
        "/ready",
        "/docs",
        "/redoc",
        "/openapi.json",
        "/openapi.yaml",
        "/favicon.ico",
    }
)
OPEN_PREFIXES = ("/assets/",)


def owner_of(key: str) -> str:
    """Return the name under which a key owns sessions; the key cannot be read back from it."""
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def _keys_in(headers: Headers) -> list[str]:
    """Return the keys that a request shows; a gateway's own bearer token may stand beside ours."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    shown = [headers.get("x-api-key", ""), value if scheme.lower() == "bearer" else ""]
    # Headers are bytes that Starlette reads as Latin-1; a key may have been sent as UTF-8.
    return [
        key.strip().encode("latin-1").decode("utf-8", "replace") for key in shown if key.strip()
    ]


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("unknown",))[0])


def authenticator(
    api_keys: Sequence[str], rate_limit: str | None, *, storage_url: str | None = None
) -> Callable[[Scope], Awaitable[None]]:
    """Return the check that every request passes; it sets `owner` in the request's state.

    `storage_url`: where several processes count together, see `Rates`.

    Raises (the returned check):
        Unauthorized: keys are configured and the request has none of them.
        Overloaded: the key, or the address when there are no keys, came too often.
    """
    owners = [owner_of(key) for key in api_keys]
    rates = Rates(rate_limit, storage_url) if rate_limit else None

    async def admit(scope: Scope) -> None:
        state = scope.setdefault("state", {})
        state["owner"] = ""
        path = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_PREFIXES) or scope["method"] == "OPTIONS":
            return
        if owners:
            given = [owner_of(key) for key in _keys_in(Headers(scope=scope))]
            known = [o for o in owners if any(hmac.compare_digest(o, g) for g in given)]
            if not known:
                # Keys are not to be guessed without limit either.
                if rates is not None:
                    await rates.count(f"no key {_address(scope)}")
                raise Unauthorized(
                    "this server needs an API key: send it as 'Authorization: Bearer <key>' or "
                    "'X-API-Key: <key>'"
                )
            state["owner"] = known[0]
        if rates is not None:
            await rates.count(state["owner"] or _address(scope))

    return admit
