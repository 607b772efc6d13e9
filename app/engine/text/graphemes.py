"""Where a text may be cut without splitting what is read as one character."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200d\ufe0e\ufe0f"


def grapheme_border(text: str, end: int) -> int:
    """Move `end` back, at most 32 characters, until it splits no combining or joined sequence."""
    for border in range(end, max(0, end - 32), -1):
        if not _continues(text, border):
            return border
    return end


def _continues(text: str, at: int) -> bool:
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if after in _JOINERS or before == "\u200d" or unicodedata.category(after).startswith("M"):
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff":
        return True
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return True
    flags = "\U0001f1e6\U0001f1ff"
    return flags[0] <= before <= flags[1] and flags[0] <= after <= flags[1]
