"""Contract 6 and the pitfalls under "Fetching": what a stranger's URL can reach, and at what cost.

S0.18, S0.19: every failure is a `ScrapeFailed` whose code says why.
"""

from __future__ import annotations

import asyncio
import gzip
import ssl
import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]  # ships no types
import httpcore
import pytest
import zstandard

from app.core.errors import ScrapeFailed
from app.services.fetching.addresses import is_public, read_url
from app.services.fetching.fetch import FetchPolicy, Page, fetch
from tests.services.origin import Exchange, Origin, on_loopback, redirect, response, serving

LIMIT_S = 10.0
PUBLIC = "93.184.216.34"

REFUSED_ADDRESSES = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.0.0.2
    169.254.169.254 168.63.129.16 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1
    192.168.1.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.250 240.0.0.1
    255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254
    64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 64:ff9b:1::808:808 100::1 2001::1
    2001:db8::1 2002:7f00:1:: 2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1
    fe80::1%eth0 fec0::1 ff02::1
"""

REFUSED_HOSTS = """
    169.254.169.254 0.0.0.0 127.0.0.1 127.0.0.2 10.1.2.3 100.64.0.1 192.168.0.1 172.20.0.1
    2130706433 017700000001 0x7f000001 0x7f.1 0X7F.0.0.1 0177.0.0.1 127.1 127.0.1 0 0x0
    2852039166 0xa9fea9fe 127.0.0.1. 127.1. localhost localhost. LOCALHOST
    １２７.0.0.1 127。0。0。1 １６９．２５４．１６９．２５４ %31%32%37.0.0.1 127%2e0.0.1 ⑫7.0.0.1
    [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:7f00:1] [64:ff9b::7f00:1]
    [64:ff9b:1::1] [2002:7f00:1::] [2001::7f00:1] [fe80::1] [fec0::1] [fd00::1] [ff02::1]
    [::127.0.0.1]
"""

NO_WEB_ADDRESSES = (
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "ftp://example.com/",
    "javascript:alert(1)",
    "data:text/html,hello",
    "//example.com/",
    "example.com",
    "http://",
    "http:///path",
    "http://user:secret@example.com/",
    "http://user@example.com/",
    "http://@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://exa mple.com/",
    "http://example.com/\r\nHost: internal",
    "http://example.com/\x00",
    "http://1.2.3.4.5/",
    "http://256.256.256.256/",
    "http://4294967296/",
    "http://[::1/",
    "http://[fe80::1%25eth0]/",
    "http://example..com/",
    "http://" + "a" * 254 + ".com/",
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://example.com:http/",
)


class Recorder(httpcore.AsyncNetworkBackend):
    """Stands for the network: notes where a connection was asked to go; reaches only loopback."""

    def __init__(self, port: int = 0, *, dead: Iterable[str] = ()) -> None:
        self.asked: list[str] = []
        self._port = port
        self._dead = set(dead)
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, *args: Any, **kwargs: Any
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append(host)
        if host in self._dead or not self._port:
            raise httpcore.ConnectError("dead")
        return await self._inner.connect_tcp("127.0.0.1", self._port)


class Names:
    """A resolver whose answers are scripted, one list a call; the last one is repeated."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def policy(origin: Origin, **options: Any) -> FetchPolicy:
    return FetchPolicy(allow_hosts=frozenset((origin.authority,)), **options)


async def get(url: str, rules: FetchPolicy, **seams: Any) -> Page:
    async with asyncio.timeout(LIMIT_S):
        return await fetch(url, rules, **seams)


async def code_of(url: str, rules: FetchPolicy, **seams: Any) -> str:
    with pytest.raises(ScrapeFailed) as failure:
        await get(url, rules, **seams)
    assert failure.value.message
    assert "Traceback" not in failure.value.message
    return failure.value.code


@pytest.mark.parametrize("address", REFUSED_ADDRESSES.split())
def test_an_address_that_is_not_global_unicast_is_refused(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_a_global_address_is_admitted(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("host", REFUSED_HOSTS.split())
async def test_a_host_is_decided_by_the_address_that_results(host: str) -> None:
    """Pitfalls, Fetching: string tests let these through. The real resolver decides names."""
    network = Recorder()
    assert await code_of(f"http://{host}/", FetchPolicy(), backend=network) == "blocked_url"
    assert network.asked == []


@pytest.mark.parametrize("url", NO_WEB_ADDRESSES)
async def test_what_is_no_plain_web_address_is_refused_before_any_look_up(url: str) -> None:
    names, network = Names([PUBLIC]), Recorder()
    rules = FetchPolicy()
    assert await code_of(url, rules, resolve=names, backend=network) == "blocked_url"
    assert names.asked == network.asked == []


@pytest.mark.parametrize("address", REFUSED_ADDRESSES.split())
async def test_a_name_with_one_refused_address_is_refused(address: str) -> None:
    network = Recorder()
    names = Names([PUBLIC, address])
    with pytest.raises(ScrapeFailed) as failure:
        await get("http://rebind.example/", FetchPolicy(), resolve=names, backend=network)
    assert failure.value.code == "blocked_url"
    assert address not in failure.value.message.split()
    assert network.asked == []


@pytest.mark.parametrize(
    "location",
    [f"http://{host}:{{port}}/secret" for host in REFUSED_HOSTS.split()]
    + ["file:///etc/passwd", "gopher://localhost:{port}/", "javascript:alert(1)"]
    + ["//127.0.0.1:{port}/secret", "http://user:pw@localhost:{port}/secret"],
)
async def test_a_redirect_into_the_inside_never_arrives(location: str) -> None:
    """Contract 6: every hop is checked anew; the stand-in internal service gets no connection."""
    async with serving() as internal, serving() as outside:
        internal.scripts["/secret"] = response("secret")
        outside.scripts["/"] = redirect(location.format(port=internal.port))
        ports = frozenset((internal.port,))
        assert await code_of(outside.url(), policy(outside, ports=ports)) == "blocked_url"
        assert (outside.hits("/"), internal.connections) == (1, 0)


async def test_an_allowed_host_does_not_admit_its_neighbours() -> None:
    async with serving() as inside, serving() as allowed:
        allowed.scripts["/"] = response("<p>hello")
        assert (await get(allowed.url(), policy(allowed))).body == b"<p>hello"
        for url in (inside.url(), f"http://127.0.0.1:{allowed.port}/", "http://localhost/"):
            assert await code_of(url, policy(allowed)) == "blocked_url"
        assert (inside.connections, allowed.connections) == (0, 1)


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    """DNS rebinding: the second answer is private, and nobody ever asks for it."""
    async with serving() as origin:
        origin.scripts["/"] = response("<p>public")
        names, network = Names([PUBLIC], ["127.0.0.1"]), Recorder(origin.port)
        page = await get("http://rebind.example/", FetchPolicy(), resolve=names, backend=network)
        assert page.body == b"<p>public"
        assert names.asked == ["rebind.example"]
        assert network.asked == [PUBLIC]
        assert "Host: rebind.example\r\n" in origin.heads[0]


async def test_a_name_that_rebinds_between_two_hops_is_refused() -> None:
    async with serving() as origin:
        origin.scripts["/"] = redirect("/next")
        names, network = Names([PUBLIC], ["127.0.0.1"]), Recorder(origin.port)
        rules = FetchPolicy()
        code = await code_of("http://rebind.example/", rules, resolve=names, backend=network)
        assert code == "blocked_url"
        assert (len(names.asked), network.asked) == (2, [PUBLIC])


async def test_the_next_address_is_tried_when_one_is_dead() -> None:
    async with serving() as origin:
        origin.scripts["/"] = response("<p>hi")
        v6 = ["2606:4700::1", "2606:4700::2", "2606:4700::3"]
        network = Recorder(origin.port, dead=v6)
        names = Names([*v6, PUBLIC])
        await get("http://many.example/", FetchPolicy(), resolve=names, backend=network)
        assert network.asked == [v6[0], PUBLIC]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://studio.photography/", "studio.photography"),
        ("http://bücher.example/", "xn--bcher-kva.example"),
        ("http://例え。テスト/", "xn--r8jz45g.xn--zckzah"),
        ("http://example.com/guides/localhost/127.0.0.1", "example.com"),
        ("http://localhost.example.com/", "localhost.example.com"),
        ("http://10.example.com/", "10.example.com"),
        ("http://under_score.example.com./", "under_score.example.com"),
    ],
)
async def test_an_unusual_but_public_address_is_fetched(url: str, host: str) -> None:
    """Pitfalls, Fetching: the rules that let 127.0.0.2 through refused these."""
    async with serving() as origin:
        origin.scripts[read_url(url).path] = response("<p>hi")
        names, network = Names([PUBLIC]), Recorder(origin.port)
        await get(url, FetchPolicy(), resolve=names, backend=network)
        assert names.asked == [host]


async def test_the_request_is_honest_and_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1/")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1/")
    async with serving() as origin:
        origin.scripts["/?q=%C3%A9%20x"] = response("<p>hi", "Set-Cookie: track=1")
        await get(origin.url("/?q=é x#part"), policy(origin))
        head = origin.heads[0].lower()
        assert "user-agent: mozilla/5.0 (compatible; precis/1.0)\r\n" in head
        assert "accept-encoding: gzip, deflate, br, zstd\r\n" in head
        assert "cookie" not in head
        assert "authorization" not in head


async def test_redirects_are_followed_and_the_final_address_is_told() -> None:
    async with serving() as origin:
        origin.scripts["/a"] = redirect("b?x=1", "301 Moved Permanently")
        origin.scripts["/b?x=1"] = redirect(origin.url("/c d"), "308 Permanent Redirect")
        origin.scripts["/c%20d"] = response("<p>there")
        page = await get(origin.url("/a"), policy(origin))
        assert (page.url, page.body) == (origin.url("/c%20d"), b"<p>there")


async def test_a_redirect_loop_ends_after_five() -> None:
    async with serving() as origin:
        origin.scripts["/"] = redirect("/")
        assert await code_of(origin.url(), policy(origin)) == "too_many_redirects"
        assert origin.hits("/") == 6


@pytest.mark.parametrize("status", ["403 No", "404 Gone", "429 Slow", "500 Oops", "300 Which"])
async def test_an_http_error_names_its_status_and_what_to_do(status: str) -> None:
    async with serving() as origin:
        origin.scripts["/"] = response("no", status=status)
        with pytest.raises(ScrapeFailed) as failure:
            await get(origin.url(), policy(origin))
        assert failure.value.code == "http_error"
        assert failure.value.message.startswith(f"HTTP {status[:3]}, ")


async def test_a_name_nobody_knows_is_said_to_be_unknown() -> None:
    assert await code_of("http://no.example/", FetchPolicy(), resolve=Names([])) == "dns_failed"


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("coding", PACKERS)
async def test_every_advertised_coding_is_decoded(coding: str) -> None:
    """Pitfalls, Fetching: `br` was advertised with no decoder installed."""
    body = b"<p>" + b"ferry " * 40_000
    async with serving() as origin:
        origin.scripts["/"] = response(PACKERS[coding](body), f"Content-Encoding: {coding}")
        assert (await get(origin.url(), policy(origin))).body == body


async def test_a_gzip_page_in_several_members_is_whole() -> None:
    async with serving() as origin:
        packed = gzip.compress(b"<p>one ") + gzip.compress(b"two") + b"\0\0padding"
        origin.scripts["/"] = response(packed, "Content-Encoding: gzip")
        assert (await get(origin.url(), policy(origin))).body == b"<p>one two"


@pytest.mark.parametrize("coding", PACKERS)
async def test_a_bomb_is_stopped_at_the_limit(coding: str) -> None:
    async with serving() as origin:
        origin.scripts["/"] = response(
            PACKERS[coding](bytes(30_000_000)), f"Content-Encoding: {coding}"
        )
        assert await code_of(origin.url(), policy(origin, max_bytes=100_000)) == "too_large"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate", "br", "zstd"])
@pytest.mark.parametrize("harm", ["cut", "noise"])
async def test_a_damaged_compression_is_told(coding: str, harm: str) -> None:
    packed = PACKERS[coding](bytes(range(256)) * 400)
    async with serving() as origin:
        origin.scripts["/"] = response(
            packed[: len(packed) // 2] if harm == "cut" else b"\xff\x00not it" * 20,
            f"Content-Encoding: {coding}",
        )
        assert await code_of(origin.url(), policy(origin)) == "bad_encoding"


@pytest.mark.parametrize("coding", ["compress", "exi", "gzip, gzip, gzip", "rot13"])
async def test_a_coding_that_was_not_offered_is_refused(coding: str) -> None:
    async with serving() as origin:
        origin.scripts["/"] = response(b"x", f"Content-Encoding: {coding}")
        assert await code_of(origin.url(), policy(origin)) == "bad_encoding"


async def test_a_body_over_the_limit_is_refused_announced_or_not() -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while True:
            await exchange.send(b"x" * 65_536)

    async with serving() as origin:
        origin.scripts["/announced"] = response(b"x", length=10**9)
        origin.scripts["/endless"] = endless
        for path in ("/announced", "/endless"):
            assert await code_of(origin.url(path), policy(origin, max_bytes=500_000)) == "too_large"


async def test_a_body_that_drips_is_cut_at_the_time_limit() -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        await asyncio.Event().wait()

    async with serving() as origin:
        origin.scripts["/"] = drip
        assert await code_of(origin.url(), policy(origin, timeout_s=0.2)) == "fetch_timeout"


async def test_a_name_that_never_resolves_is_cut_at_the_time_limit() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    rules = FetchPolicy(timeout_s=0.05)
    assert await code_of("http://slow.example/", rules, resolve=never) == "fetch_timeout"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Flood: " + b"a" * 400_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    ],
    ids=["nothing", "not-http", "header-flood", "bad-length", "bad-chunk"],
)
async def test_an_answer_that_breaks_http_is_a_failed_connection(answer: bytes) -> None:
    async with serving() as origin:
        origin.scripts["/"] = answer
        assert await code_of(origin.url(), policy(origin)) == "connect_failed"


async def test_a_closed_port_is_a_failed_connection() -> None:
    async with serving() as origin:
        rules, url = policy(origin), origin.url()
    assert await code_of(url, rules) == "connect_failed"


@pytest.mark.parametrize(
    "kind", ["image/png", "application/json", "video/mp4", "application/zip", "text/css"]
)
async def test_another_type_is_refused_without_reading_it(kind: str) -> None:
    async def stall(exchange: Exchange) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 100000\r\n\r\n"
        await exchange.send(head.encode())
        await asyncio.Event().wait()

    async with serving() as origin:
        origin.scripts["/"] = stall
        assert await code_of(origin.url(), policy(origin)) == "unsupported_type"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"\n <!DOCTYPE html><p>x", "text/html"),
        (b"%PDF-1.4 ...", "application/pdf"),
        (b"Just some words.", "text/plain"),
    ],
)
async def test_a_missing_type_is_told_from_the_body(body: bytes, kind: str) -> None:
    async with serving() as origin:
        origin.scripts["/"] = response(body, content_type=None)
        assert (await get(origin.url(), policy(origin))).media_type == kind


async def test_binary_without_a_type_is_refused() -> None:
    async with serving() as origin:
        origin.scripts["/"] = response(b"\x89PNG\r\n\x1a\n\0\0\0", content_type=None)
        assert await code_of(origin.url(), policy(origin)) == "unsupported_type"


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the server's context for `name` and a client's that trusts it."""
    key, crt = folder / "key.pem", folder / "crt.pem"
    command = (
        f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name}"
    )
    command += f" -addext subjectAltName=DNS:{name} -keyout {key} -out {crt}"
    subprocess.run(["openssl", *command.split()], check=True, capture_output=True, timeout=20)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(crt, key)
    return server, ssl.create_default_context(cafile=str(crt))


async def test_tls_keeps_the_name_while_the_address_is_pinned(tmp_path: Path) -> None:
    server, trust = certificate(tmp_path, "news.example")
    names_sent: list[str] = []
    server.sni_callback = lambda _socket, name, _context: names_sent.append(name)
    async with serving(server) as origin:
        origin.scripts["/"] = response("<p>safe")
        network = Recorder(origin.port)
        seams = {"resolve": Names([PUBLIC]), "backend": network, "ssl_context": trust}
        page = await get("https://news.example/", FetchPolicy(), **seams)
        assert (page.body, page.url) == (b"<p>safe", "https://news.example/")
        assert (names_sent, network.asked) == (["news.example"], [PUBLIC])
        # The same certificate under another name is an impostor's.
        assert await code_of("https://bank.example/", FetchPolicy(), **seams) == "connect_failed"


async def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    server, _ = certificate(tmp_path, "localhost")
    async with serving(server) as origin:
        origin.scripts["/"] = response("<p>unsafe")
        with pytest.raises(ScrapeFailed, match="TLS") as failure:
            await get(origin.url(), policy(origin), resolve=on_loopback)
        assert failure.value.code == "connect_failed"
        assert origin.heads == []
