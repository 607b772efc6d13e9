"""A stranger's URL to bytes, without letting it reach anything that is not public (contract 6).

Every hop is read, resolved and checked, and the connection goes to the very address that passed;
the name is only used for TLS and the Host header. Knows nothing of articles or character sets.
"""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import certifi
import httpcore

from app.services.fetching.addresses import Target, check_addresses, check_target, read_url
from app.services.fetching.content_coding import (
    ACCEPT_ENCODING,
    GZIP_MAGIC,
    codings_of,
    decode_content,
)
from app.services.fetching.cookies import Cookies
from app.services.fetching.errors import (
    connection_failed,
    http_error,
    timed_out,
    too_large,
    too_many_redirects,
    unresolved,
    unsupported_type,
)
from app.services.fetching.header_lines import LenientStream
from app.services.fetching.media_type import (
    ARTICLE_TYPES,
    HTML,
    article_type,
    declared_type,
    may_hold_an_article,
)
from app.services.fetching.refresh import refresh_target

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

ARTICLE_ACCEPT = (
    "text/html,application/xhtml+xml,application/pdf;q=0.9,text/markdown;q=0.9,text/plain;q=0.9,"
    "*/*;q=0.5"
)
ARTICLE_LANGUAGES = "en-US,en;q=0.9,*;q=0.5"
USER_AGENT = "Mozilla/5.0 (compatible; Precis/1.0)"
REDIRECTS = frozenset((301, 302, 303, 307, 308))
# One address that swallows packets may not use up the time of those after it.
CONNECT_TIMEOUT_S = 2.5
MAX_ADDRESSES = 6

_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE)
# Names that take for ever to resolve hold these threads, not the default pool's, which others need.
_DNS = ThreadPoolExecutor(8, thread_name_prefix="dns")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """What may be fetched. `allow_hosts`: exact host:port entries admitted at any address.

    `types`: the media types let through; "" is binary data that came without a type.
    """

    allow_hosts: frozenset[str] = frozenset()
    timeout_s: float = 10.0
    max_bytes: int = 5_000_000
    max_redirects: int = 5
    ports: frozenset[int] = frozenset((80, 443, 8080, 8443))
    types: frozenset[str] = ARTICLE_TYPES
    accept: str = ARTICLE_ACCEPT
    user_agent: str = USER_AGENT

    @property
    def wants_article(self) -> bool:
        """Whether an article is wanted: its type is looked at, and half of it is worth having."""
        return "text/html" in self.types


@dataclass(frozen=True, slots=True)
class Page:
    """What came: the final URL, the media type ("" if none was sent), its charset, the body.

    `partial`: the body broke off before its end.
    """

    url: str
    media_type: str
    charset: str | None
    body: bytes
    partial: bool = False


async def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system resolves it."""
    call = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_DNS, call)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the checked addresses, in order, whatever host it is told."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend, addresses: Sequence[str]) -> None:
        self._inner = inner
        self._addresses = addresses[:MAX_ADDRESSES]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("no address")
        for address in self._addresses:
            try:
                stream = await self._inner.connect_tcp(
                    address, port, CONNECT_TIMEOUT_S, local_address, socket_options
                )
                return LenientStream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def fetch(
    url: str,
    policy: FetchPolicy,
    *,
    resolve: Resolve = resolve_name,
    backend: httpcore.AsyncNetworkBackend | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Page:
    """Fetch a page and undo its compression, following redirects by hand.

    Raises:
        ScrapeFailed: with every code except no_article.
    """
    try:
        async with asyncio.timeout(policy.timeout_s):
            target = read_url(url)
            cookies = Cookies()
            for _ in range(policy.max_redirects + 1):
                addresses = await _admitted(target, policy, resolve)
                pinned = PinnedBackend(backend or httpcore.AnyIOBackend(), addresses)
                if ssl_context is None and target.scheme == "https":
                    ssl_context = await asyncio.to_thread(_public_tls)
                answer = await _get(target, policy, pinned, ssl_context, cookies)
                if isinstance(answer, Page):
                    return answer
                target = read_url(_joined(target.url, answer))
    except TimeoutError as exc:
        raise timed_out(policy.timeout_s) from exc
    raise too_many_redirects(policy.max_redirects)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return location  # `read_url` says what is wrong with it


async def _admitted(target: Target, policy: FetchPolicy, resolve: Resolve) -> list[str]:
    allowed = check_target(target, ports=policy.ports, allow_hosts=policy.allow_hosts)
    addresses: Sequence[str] = [target.host]
    if target.address is None:
        try:
            addresses = await resolve(target.host, target.port)
        except (OSError, UnicodeError) as exc:
            raise unresolved(target.host) from exc
    if not addresses:
        raise unresolved(target.host)
    return check_addresses(addresses, allowed=allowed)


async def _get(
    target: Target,
    policy: FetchPolicy,
    backend: httpcore.AsyncNetworkBackend,
    ssl_context: ssl.SSLContext | None,
    cookies: Cookies,
) -> Page | str:
    """Return the page, or where it redirects to."""
    url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
    headers = [
        ("Host", target.host_header),
        ("User-Agent", policy.user_agent),
        ("Accept", policy.accept),
        ("Accept-Language", ARTICLE_LANGUAGES),
        ("Accept-Encoding", ACCEPT_ENCODING),
        ("Connection", "close"),
        *cookies.header(target.url),
    ]
    try:
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=ssl_context, network_backend=backend, max_connections=1
            ) as pool,
            pool.stream("GET", url, headers=headers) as response,
        ):
            cookies.keep(target.url, response.headers)
            return await _read(target, policy, response)
    except (
        httpcore.NetworkError,
        httpcore.ProtocolError,
        httpcore.TimeoutException,
        httpcore.UnsupportedProtocol,
        ssl.SSLError,
    ) as exc:
        raise connection_failed(exc) from exc


async def _read(target: Target, policy: FetchPolicy, response: httpcore.Response) -> Page | str:
    head = {
        name.lower().decode("ascii", "replace"): _header_text(value)
        for name, value in response.headers
    }
    if response.status in REDIRECTS and "location" in head:
        return head["location"]
    if not 200 <= response.status < 300:
        raise http_error(response.status)
    content_type = head.get("content-type", "")
    declared = declared_type(content_type)
    if policy.wants_article:
        if not may_hold_an_article(declared):
            raise unsupported_type()
    elif declared and declared not in policy.types:
        raise unsupported_type()
    codings = codings_of(head.get("content-encoding", ""))
    length = head.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > policy.max_bytes:
        raise too_large(policy.max_bytes)
    raw, whole = await _body(response, policy)
    if policy.wants_article and not codings and raw.startswith(GZIP_MAGIC):
        codings = ["gzip"]
    if codings:
        raw = await asyncio.to_thread(
            decode_content, raw, codings, max_bytes=policy.max_bytes, whole=whole
        )
    if policy.wants_article:
        declared = article_type(declared, raw)
        following = refresh_target(head.get("refresh", ""), raw) if declared == HTML else None
        if following is not None and _joined(target.url, following) != target.url:
            return following
    if declared not in policy.types:
        raise unsupported_type()
    charset = _CHARSET.search(content_type)
    return Page(target.url, declared, charset[1] if charset else None, raw, not whole)


async def _body(response: httpcore.Response, policy: FetchPolicy) -> tuple[bytes, bool]:
    """Return the body, and whether all of it came: half an article is better than none."""
    body = bytearray()
    try:
        async for chunk in response.aiter_stream():
            body += chunk
            if len(body) > policy.max_bytes:
                raise too_large(policy.max_bytes)
    except (httpcore.RemoteProtocolError, httpcore.ReadError):
        if not body or not policy.wants_article:
            raise
        return bytes(body), False
    return bytes(body), True


def _header_text(value: bytes) -> str:
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


@functools.cache
def _public_tls() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certifi.where())
