"""The cookies of one fetch: sites set one with a redirect and look for it behind that.

They are never kept beyond the fetch. Which host may see which is the standard library's to decide.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.request import Request

MAX_COOKIES = 50


class Cookies:
    """A jar that takes what the answers of a fetch set, up to a number of them."""

    def __init__(self) -> None:
        strict = DefaultCookiePolicy.DomainStrictNonDomain
        self._jar = CookieJar(DefaultCookiePolicy(strict_ns_domain=strict))

    def keep(self, url: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Take what an answer sets."""
        said = Message()
        for name, value in headers:
            if name.lower() == b"set-cookie" and len(said) < MAX_COOKIES:
                said["Set-Cookie"] = value.decode("latin-1")
        if len(said) and len(self._jar) < MAX_COOKIES:
            self._jar.extract_cookies(_Answer(said), _request(url))  # type: ignore[arg-type]

    def header(self, url: str) -> list[tuple[str, str]]:
        """Return the header that a request sends; no line where there is nothing to send."""
        request = _request(url)
        self._jar.add_cookie_header(request)
        value = request.get_header("Cookie")
        return [("Cookie", value)] if value else []


class _Answer:
    def __init__(self, headers: Message) -> None:
        self._headers = headers

    def info(self) -> Message:
        return self._headers


def _request(url: str) -> Request:
    # Only a description for the jar: nothing is opened.
    return Request(url)  # noqa: S310
