"""Guesses the next tokens of a sequence: what followed when its last ones occurred before.

A summary repeats names, numbers and phrases of its article. The model computes guessed tokens
beside the one that is due, and those that it would not have chosen are dropped: a guess changes
how sums are rounded, and nothing else. Known as prompt lookup decoding:
https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections.abc import Sequence

# So many tokens must have occurred before; more of them are better evidence.
SAME_TOKENS = (3, 2)
# After guesses that were all wrong, so many tokens at most go by without one.
LONGEST_REST = 64


class PromptLookup:
    """The guesses of one sequence; they become rare while they are wrong."""

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}
        self._seen = 0
        self._wrong = 0
        self._rest = 0

    def guess(self, ids: Sequence[int], most: int) -> list[int]:
        """Return up to `most` tokens for the end of `ids`, which only grow from call to call."""
        for at in range(self._seen, len(ids)):
            for count in SAME_TOKENS:
                if at >= count:
                    self._follows[tuple(ids[at - count : at])] = at
        self._seen = len(ids)
        if self._rest > 0:
            self._rest -= 1
            return []
        for count in SAME_TOKENS:
            found = self._follows.get(tuple(ids[-count:]))
            if found is not None:
                return list(ids[found : found + most])
        return []

    def learn(self, right: int) -> None:
        """Take note of how many tokens of a guess were right."""
        self._wrong = 0 if right else self._wrong + 1
        # The first one that is wrong says little.
        self._rest = max(0, min(LONGEST_REST, 1 << self._wrong) - 2)
