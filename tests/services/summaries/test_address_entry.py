"""What people type or paste where an address belongs."""

from __future__ import annotations

import pytest

from app.core.errors import InvalidInput
from app.services.summaries.sources import check_input

LONG = "The night ferry sailed again on Monday after nine winters, and everybody came to see it."


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("example.com/a", "https://example.com/a"),
        ("www.example.co.id", "https://www.example.co.id"),
        ("  https://example.com/a  ", "https://example.com/a"),
        ("https://example.com/a" + " " * 5_000, "https://example.com/a"),
        ("<https://example.com/a>", "https://example.com/a"),
        ("“https://example.com/a”", "https://example.com/a"),
        ("Look: https://example.com/a.", "https://example.com/a"),
        ("(see https://example.com/a_(b))", "https://example.com/a_(b)"),
        ("Night ferry https://example.com/a?b=1&c=2 via App", "https://example.com/a?b=1&c=2"),
    ],
)
@pytest.mark.parametrize("field", ["url", "text"])
def test_a_link_is_found_in_what_was_pasted(typed: str, url: str, field: str) -> None:
    """A13: a text that is nothing but a link is that link."""
    if field == "text" and "://" not in typed:
        return
    given = {"url": None, "text": None, field: typed}
    assert check_input(given["url"], given["text"]).url == url


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG} https://example.com/a",
        f"https://a.example https://b.example {LONG}",
        "https://example.com/a " + "word " * 2_000,
    ],
)
def test_a_text_with_links_in_it_stays_a_text(text: str) -> None:
    assert check_input(None, text).text == text


@pytest.mark.parametrize("typed", ["not a url", "ftp://example.com/a", "hello", "a.b", "1.5"])
def test_what_is_no_address_is_refused(typed: str) -> None:
    with pytest.raises(InvalidInput):
        check_input(typed, None)


def test_a_v3_url_that_is_a_text_stays_one() -> None:
    """A14."""
    assert check_input(LONG, None, loose_url=True).text == LONG
