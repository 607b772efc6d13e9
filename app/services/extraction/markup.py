"""Markup that a parser may be given: libxml2's time grows with the square of a tag's attributes.

A page of half a megabyte with one such tag takes it 5 s, one of two megabytes 90 s (measured), and
nothing can stop it. So the attributes are counted before, by the HTML standard's own tokenisation:
https://html.spec.whatwg.org/multipage/parsing.html#tag-open-state
"""

from __future__ import annotations

import re
import time

MAX_ATTRIBUTES = 2_000
# A page on which even the counting takes long is hostile as well.
COUNTING_S = 1.0

_START = re.compile(r"<[a-zA-Z]")
_ATTRIBUTES = re.compile(
    r"[^\s/>]{0,100}+"
    r"((?:[\s/]*+[^\s/>=][^\s/>=]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s>\"'][^\s>]*+)?)?+)"
    rf"{{{MAX_ATTRIBUTES}}})?+"
)


def is_parsable(markup: str) -> bool:
    """Return whether no tag has so many attributes that parsing would take for ever.

    Every `<` is taken as a start, wherever it stands: what is a comment or a string to one parser
    may be a tag to another.
    """
    deadline_s = time.monotonic() + COUNTING_S
    for start in _START.finditer(markup):
        found = _ATTRIBUTES.match(markup, start.end())
        if (found is not None and found[1]) or time.monotonic() > deadline_s:
            return False
    return True
