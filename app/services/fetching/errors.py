"""What a fetch that failed says to people: one sentence with the reason and what to do.

Never an address that a name resolved to, which would map our network for whoever asks.
"""

from __future__ import annotations

import ssl

from app.core.errors import ScrapeFailed


def blocked(message: str) -> ScrapeFailed:
    return ScrapeFailed(message, code="blocked_url")


def unresolved(host: str) -> ScrapeFailed:
    return ScrapeFailed(
        f"No site of the name {host} was found; check the address.", code="dns_failed"
    )


def timed_out(limit_s: float) -> ScrapeFailed:
    return ScrapeFailed(
        f"The site took longer than {limit_s:g} s; try again or paste the text.",
        code="fetch_timeout",
    )


def too_costly() -> ScrapeFailed:
    return ScrapeFailed(
        "The page takes more time or memory to read than any article does: it may be damaged, or "
        "made to do so; paste the text instead.",
        code="page_too_complex",
    )


def too_large(max_bytes: int) -> ScrapeFailed:
    return ScrapeFailed(
        f"The page is larger than {max_bytes / 1e6:g} MB; paste the text instead.",
        code="too_large",
    )


def too_many_redirects(limit: int) -> ScrapeFailed:
    return ScrapeFailed(
        f"The address redirects more than {limit} times; open it in a browser and use the final "
        "address.",
        code="too_many_redirects",
    )


def unsupported_type() -> ScrapeFailed:
    return ScrapeFailed(
        "The address is not a web page, a text or a PDF; paste the text instead.",
        code="unsupported_type",
    )


def no_article(reason: str) -> ScrapeFailed:
    return ScrapeFailed(f"{reason}; paste the text of the article instead.", code="no_article")


def broken_off() -> ScrapeFailed:
    return ScrapeFailed(
        "The site broke off before there was an article; try again or paste the text.",
        code="connect_failed",
    )


def connection_failed(exc: BaseException) -> ScrapeFailed:
    """Say whether it was TLS, which the reader may understand, or anything else."""
    reason = "The connection to the site failed or broke off; try again or paste the text."
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            reason = "No safe connection: the site's TLS certificate or version is not accepted."
        cause = cause.__cause__ or cause.__context__
    return ScrapeFailed(reason, code="connect_failed")


def http_error(status: int) -> ScrapeFailed:
    if status in (401, 403, 406, 451):
        reason = "the site refuses automatic readers: paste the text instead"
    elif status in (404, 410):
        reason = "there is no such page: check the address"
    elif status == 999:
        reason = "the site wants its readers to sign in: paste the text instead"
    elif status == 402:
        reason = "the site wants to be paid: paste the text instead"
    elif status == 429:
        reason = "the site says it gets too many requests: try again later"
    elif status >= 500:
        reason = "the site itself has a problem: try again later"
    else:
        reason = "the site did not send the page: paste the text instead"
    return ScrapeFailed(f"HTTP {status}, {reason}.", code="http_error")
