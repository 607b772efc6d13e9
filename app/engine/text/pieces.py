"""Chunks of generated text, and which tokens a stretch of that text is made of.

Characters and positions only: knows neither tokenizers nor models.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from app.engine.base import TokenLogprob


class TextChunk(str):
    """A chunk of output; `logprobs`: its tokens, when they were asked for (C24: text pieces)."""

    __slots__ = ("logprobs",)
    logprobs: tuple[TokenLogprob, ...]

    def __new__(cls, text: str, logprobs: Sequence[TokenLogprob] = ()) -> TextChunk:
        """Make a chunk of text that carries its tokens."""
        chunk = super().__new__(cls, text)
        chunk.logprobs = tuple(logprobs)
        return chunk


class TokenTrack:
    """Follows a text that is cut anew: every token goes where its first character goes."""

    def __init__(self) -> None:
        self._tokens: deque[tuple[int, TokenLogprob]] = deque()
        self._fed = 0
        self._taken = 0

    def feed(self, chars: int, tokens: Sequence[TokenLogprob]) -> None:
        """Append a stretch of text and the tokens that make it up, in order."""
        start = self._fed
        self._fed += chars
        for token in tokens:
            # Half a character is a token of one character too: the last ones share a place.
            self._tokens.append((min(start, max(self._fed - 1, 0)), token))
            start += len(token.text)

    def take(self, chars: int) -> tuple[TokenLogprob, ...]:
        """Take the next stretch, and the tokens that begin in it."""
        self._taken += chars
        taken = []
        while self._tokens and self._tokens[0][0] < self._taken:
            taken.append(self._tokens.popleft()[1])
        return tuple(taken)


class StopStringFilter:
    """Passes text on up to the first stop string, which may span chunks (S1.18)."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.found = False

    def feed(self, chunk: str) -> str:
        """Return what may be sent now; the rest is held while it may begin a stop string."""
        text = self._held + chunk
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
            self._held = ""
            return text[: min(places)]
        held = max((overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """Return what was held back, at the end."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, marker: str) -> int:
    """Return how many characters at the end of `text` may begin the marker."""
    longest = min(len(marker) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)
