"""Requests that work as they stand, for `/docs` and for the lines of curl.

The first example of an operation needs no internet, and is the one that its line of curl sends.
"""

from __future__ import annotations

from typing import Any

from app.schemas.summary_v4 import EXAMPLE_TEXT

SESSION_ID = "example"
PAGE = "https://en.wikipedia.org/wiki/Summary"
PAGE_SUMMARY = "A page (the server needs the internet)"
OWN_ID = "Under a session id of your own"
# The first example of `/stream`, and what the description's own line of curl sends.
TEXT = {"text": EXAMPLE_TEXT, "style": "executive"}

Examples = dict[str, dict[str, Any]]


def body_examples(examples: Examples) -> dict[str, Any]:
    """Return what an operation adds to its description: named examples of its JSON body."""
    return {"requestBody": {"content": {"application/json": {"examples": examples}}}}


def example(summary: str, **value: Any) -> dict[str, Any]:
    """Return one request: a JSON body, and what it shows."""
    return {"summary": summary, "value": value}
