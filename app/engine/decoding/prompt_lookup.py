"""Proposes the next tokens of a sequence: what followed when its last ones occurred before.

A summary repeats names, numbers and phrases of its article. The model computes proposed tokens
beside the one that is due, and those that it would not have chosen are dropped: a proposal changes
how sums are rounded, and nothing else. Known as prompt lookup decoding:
https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections.abc import Sequence

# So many tokens must have occurred before; more of them are better evidence.
SAME_TOKENS = (3, 2)
# After proposals of which no token was accepted, at most so many calls propose nothing.
MAX_PAUSE = 64


class PromptLookup:
    """The proposals of one sequence; they become rare while none is accepted."""

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}
        self._seen = 0
        self._rejected = 0
        self._pause = 0

    def propose(self, ids: Sequence[int], most: int) -> list[int]:
        """Return up to `most` tokens for the end of `ids`, which only grow from call to call."""
        for at in range(self._seen, len(ids)):
            for count in SAME_TOKENS:
                if at >= count:
                    self._follows[tuple(ids[at - count : at])] = at
        self._seen = len(ids)
        if self._pause > 0:
            self._pause -= 1
            return []
        for count in SAME_TOKENS:
            found = self._follows.get(tuple(ids[-count:]))
            if found is not None:
                return list(ids[found : found + most])
        return []

    def record(self, accepted: int) -> None:
        """Note how many tokens of the last proposal the model chose too."""
        self._rejected = 0 if accepted else self._rejected + 1
        # The first rejection says little.
        self._pause = max(0, min(MAX_PAUSE, 1 << self._rejected) - 2)
