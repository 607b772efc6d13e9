"""Text that a page has twice: a copy for small screens beside the one for large ones."""

from __future__ import annotations

# A refrain or a slogan is repeated as well; a copy is much of the text.
COPY_SHARE = 0.25
COPY_CHARS = 200


def without_copies(text: str) -> str:
    """Drop a run of lines that repeats an earlier run and is a large part of the text."""
    lines = text.split("\n")
    first_at: dict[str, int] = {}
    kept: list[str] = []
    at = 0
    while at < len(lines):
        earlier = first_at.setdefault(lines[at], at)
        run = 0
        while (
            earlier + run < at and at + run < len(lines) and lines[earlier + run] == lines[at + run]
        ):
            run += 1
        same = lines[at : at + run]
        if sum(map(len, same)) < max(COPY_CHARS, COPY_SHARE * len(text)):
            kept += same or lines[at : at + 1]
        at += max(1, run)
    return "\n".join(kept).strip()
