"""API keys and rates: who a request belongs to, and whether it may come now."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.types import Scope

from app.core.client import current_client
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


def network_of(scope: Scope) -> str:
    """Return where a request comes from: an IPv4 address, or the /64 network of an IPv6 address.

    A household or a rented machine gets a whole /64 (RFC 6177), so that its addresses are one
    client.
    """
    given = str((scope.get("client") or ("unknown",))[0])
    try:
        address = ip_address(given)
    except ValueError:
        return given
    if not isinstance(address, IPv6Address):
        return given
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((address.packed[:8] + bytes(8), 64)))


def authenticator(
    api_keys: Sequence[str], rate_limit: str | None, *, storage_url: str | None = None
) -> Callable[[Scope], Awaitable[None]]:
    """Return the check that every request passes; it sets `owner` in the request's state.

    It sets `current_client` too: the key, or the network where there are no keys.

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
                    await rates.count(f"no key {network_of(scope)}")
                raise Unauthorized(
                    "this server needs an API key: send it as 'Authorization: Bearer <key>' or "
                    "'X-API-Key: <key>'"
                )
            state["owner"] = known[0]
        client = state["owner"] or network_of(scope)
        current_client.set(client)
        if rates is not None:
            await rates.count(client)

    return admit
