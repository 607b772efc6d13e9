"""Where a stranger's URL may lead: how it is read, and which addresses may be connected to.

Pure decisions (contract 6): nothing here resolves a name or opens a connection.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

import idna

from app.services.fetching.errors import blocked

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}

# https://www.iana.org/assignments/iana-ipv4-special-registry and -ipv6-special-registry. Written
# out because `is_global` differs between Python releases and calls 224.0.0.0/4 global.
_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
        # Azure's host agent: a public address that only a virtual machine's own host answers.
        "168.63.129.16/32",
    )
)
# The only global unicast space that has ever been given out; the rest is refused unread.
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(net)
    for net in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_NOT_IN_A_URL = re.compile(r"[\x00-\x1f\x7f\\]")
_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_-])?")
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*")
# Everything a request target may hold as it is; the rest is percent-encoded as UTF-8.
_TARGET_SAFE = "/%:@!$&'()*+,;=~-._?[]|^{}"


@dataclass(frozen=True, slots=True)
class Target:
    """One hop: `host` is a lower-case ASCII name or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Return host:port, the form of an `allow_hosts` entry."""
        return f"{self._bracketed}:{self.port}"

    @property
    def host_header(self) -> str:
        return self._bracketed if self.port == DEFAULT_PORTS[self.scheme] else self.authority

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host_header}{self.path}"

    @property
    def address(self) -> IPAddress | None:
        """Return the address that the host spells out, None for a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


def read_url(url: str) -> Target:
    """Take a URL apart once; nothing else ever parses it again, so no two parsers can disagree.

    Raises:
        ScrapeFailed: blocked_url.
    """
    url = url.strip()
    # urlsplit drops tabs and line breaks unseen, and browsers read a backslash as a slash.
    if _NOT_IN_A_URL.search(url):
        raise blocked("The address holds characters that no web address may hold.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise blocked("This is not a valid web address.") from exc
    if parts.scheme not in DEFAULT_PORTS:
        raise blocked("Only http:// and https:// addresses can be fetched.")
    if "@" in parts.netloc:
        raise blocked("Addresses with a user name or password are not fetched; remove them.")
    path = quote(parts.path or "/", safe=_TARGET_SAFE, errors="replace")
    if parts.query:
        path += "?" + quote(parts.query, safe=_TARGET_SAFE, errors="replace")
    host = _read_host(parts.hostname or "", bracketed=parts.netloc.startswith("["))
    if port is None:
        port = DEFAULT_PORTS[parts.scheme]
    return Target(parts.scheme, host, port, path)


def check_target(target: Target, *, ports: Iterable[int], allow_hosts: Iterable[str]) -> bool:
    """Return whether the target is on the allow list; refuse a port that is not.

    Raises:
        ScrapeFailed: blocked_url.
    """
    if target.authority in allow_hosts:
        return True
    if target.port not in ports:
        raise blocked(f"Port {target.port} is not fetched; only the usual web ports are.")
    return False


def check_addresses(addresses: Sequence[str], *, allowed: bool) -> list[str]:
    """Return the addresses to try, both families taking turns.

    One refused address refuses them all: a name that is public and private at once is an attack.
    The message never says which address, or the answer would map our network.

    Raises:
        ScrapeFailed: blocked_url.
    """
    if not allowed and not all(is_public(address) for address in addresses):
        raise blocked("This address does not lead to a public web site; paste the text instead.")
    unique = list(dict.fromkeys(addresses))
    families = ([a for a in unique if ":" in a], [a for a in unique if ":" not in a])
    if unique and ":" not in unique[0]:
        families = (families[1], families[0])
    longest = max(map(len, families), default=0)
    return [family[i] for i in range(longest) for family in families if i < len(family)]


def is_public(address: str) -> bool:
    """Say whether an address is global unicast, also when it is written inside an IPv6 one."""
    try:
        ip: IPAddress = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id is not None:
            return False
        # An IPv6-only network reaches every IPv4 site through NAT64, so the prefix itself is fine.
        if ip.ipv4_mapped is None and ip not in _NAT64:
            return ip in _UNICAST_V6 and not any(ip in net for net in _REFUSED_V6)
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return not any(ip in net for net in _REFUSED_V4)


def _read_host(host: str, *, bracketed: bool) -> str:
    if bracketed:
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as exc:
            raise blocked("This is not a valid IPv6 address.") from exc
    try:
        host = unquote(host, errors="strict") if "%" in host else host
        if not host.isascii():
            # UTS 46 also folds full-width digits and the ideographic full stop, as browsers do.
            host = idna.encode(host, uts46=True, transitional=False).decode("ascii")
    except UnicodeError as exc:
        raise blocked("The host name of this address is not valid.") from exc
    host = host.lower().removesuffix(".")
    if len(host) > 253 or not _HOST.fullmatch(host) or ".." in host:
        raise blocked("The host name of this address is not valid.")
    if not _NUMERIC.fullmatch(host.rpartition(".")[2]):
        return host
    try:
        # C libraries read 0x7f.1, 0177.0.0.1, 127.1 and 2130706433 as addresses: so do we, before
        # anyone decides whether the host is one.
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError as exc:
        raise blocked("The host of this address is not a valid IP address.") from exc
