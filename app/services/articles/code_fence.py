"""A streamed text without the white space and the code fence that a model may put around all of it.

What has been handed over is never taken back, so the pieces join to the whole. It knows nothing of
where the text comes from.
"""

from __future__ import annotations

import re

_OPENING = re.compile(r"```(?:markdown|md|text)?[ \t]*\r?\n", re.I)
_LONGEST_OPENING = 24


class CodeFenceStripper:
    """Takes a text piece by piece and returns what of it is certain."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False
        self._shown = False
        self._fenced: bool | None = None

    def feed(self, piece: str) -> str:
        """Return what a piece adds to the text; it may add nothing yet."""
        self._held += piece
        if self._fenced is None and not self._opened():
            return ""
        if not self._begun:
            self._held = self._held.lstrip()
            self._begun = self._held != ""
        end = self._certain()
        found, self._held = self._held[:end], self._held[end:]
        self._shown = self._shown or found != ""
        return found

    def finish(self) -> str:
        """Return the rest."""
        left = self._held.rstrip() if self._begun else self._held.strip()
        self._held = ""
        return self._without_closing(left)

    def _opened(self) -> bool:
        """Say whether it is known if the text stands in a fence; the fence's first line goes."""
        start = self._held.lstrip()
        if not start:
            return False
        found = _OPENING.match(start)
        undecided = "```".startswith(start[:3]) and "\n" not in start
        if found is None and undecided and len(start) < _LONGEST_OPENING:
            return False
        self._fenced = found is not None
        self._held = start[found.end() :] if found else start
        return True

    def _certain(self) -> int:
        """Return how much of what is held can be no end of the text."""
        return len(self._without_closing(self._held.rstrip()))

    def _without_closing(self, text: str) -> str:
        """Take away what may be the end of the fence: up to three ticks that begin a line.

        White space is held back, so a line begins within what is held, or with the text itself.
        """
        before = text.rstrip("`")
        ticks = len(text) - len(before)
        begins = before.endswith("\n") or (not before and not self._shown)
        return before.rstrip() if self._fenced and 0 < ticks <= 3 and begins else text
