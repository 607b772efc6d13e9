"""What a sequence is guessed to say next."""

from __future__ import annotations

from itertools import pairwise

from app.engine.decoding.prompt_lookup import LONGEST_REST, PromptLookup


def test_what_followed_the_last_tokens_before_is_guessed() -> None:
    """Issue 5: the latest place counts, and three tokens before two."""
    ids = [1, 2, 3, 4, 5, 9, 2, 3, 6, 7, 1, 2, 3]
    assert PromptLookup().guess(ids, 3) == [4, 5, 9]
    assert PromptLookup().guess([8, *ids[1:-3], 8, 2, 3], 2) == [4, 5]
    assert PromptLookup().guess([0, 2, 3, 5, 0, 2, 3, 6, 1, 2, 3], 2) == [6, 1]


def test_nothing_is_guessed_where_nothing_repeats() -> None:
    """Issue 5: nor where there is no room, nor for the first tokens."""
    for ids in ([], [1], [1, 1], [1, 2], [1, 2, 3, 4]):
        assert PromptLookup().guess(ids, 3) == []
    assert PromptLookup().guess([1, 2, 3, 1, 2], 0) == []
    assert PromptLookup().guess([1, 1, 1], 3) == [1]


def test_what_is_written_counts_as_what_was_read() -> None:
    """Issue 5: the index grows with the sequence."""
    lookup, ids = PromptLookup(), [5, 6, 7]
    assert lookup.guess(ids, 3) == []
    ids += [8, 5, 6]
    assert lookup.guess(ids, 3) == [7, 8, 5]
    ids += [7, 1]
    assert lookup.guess(ids, 3) == []


def test_who_guesses_wrong_guesses_rarely_and_who_is_right_goes_on() -> None:
    """Issue 5: where guesses never hit they cost next to nothing."""
    lookup, ids = PromptLookup(), [1, 2] * 8
    made = []
    for step in range(2000):
        ids += [1, 2] if step % 2 else [2, 1, 2]
        if guess := lookup.guess(ids, 3):
            made.append(step)
            lookup.learn(0)
            assert guess
    gaps = [later - earlier for earlier, later in pairwise(made)]
    assert gaps == sorted(gaps)
    assert max(gaps) == LONGEST_REST - 1
    assert len(made) < 2000 / 25
    while not lookup.guess(ids, 3):
        pass
    lookup.learn(1)
    assert lookup.guess(ids, 3)
    lookup.learn(0)
    assert lookup.guess(ids, 3)
