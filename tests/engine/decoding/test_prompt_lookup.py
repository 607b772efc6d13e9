"""Which tokens are proposed for a sequence."""

from __future__ import annotations

from itertools import pairwise

from app.engine.decoding.prompt_lookup import MAX_PAUSE, PromptLookup


def test_what_followed_the_last_tokens_before_is_proposed() -> None:
    """Issue 5: the latest place counts, and three tokens before two."""
    ids = [1, 2, 3, 4, 5, 9, 2, 3, 6, 7, 1, 2, 3]
    assert PromptLookup().propose(ids, 3) == [4, 5, 9]
    assert PromptLookup().propose([8, *ids[1:-3], 8, 2, 3], 2) == [4, 5]
    assert PromptLookup().propose([0, 2, 3, 5, 0, 2, 3, 6, 1, 2, 3], 2) == [6, 1]


def test_nothing_is_proposed_where_nothing_repeats() -> None:
    """Issue 5: nor where there is no room, nor for the first tokens."""
    for ids in ([], [1], [1, 1], [1, 2], [1, 2, 3, 4]):
        assert PromptLookup().propose(ids, 3) == []
    assert PromptLookup().propose([1, 2, 3, 1, 2], 0) == []
    assert PromptLookup().propose([1, 1, 1], 3) == [1]


def test_what_is_written_counts_as_what_was_read() -> None:
    """Issue 5: the index grows with the sequence."""
    lookup, ids = PromptLookup(), [5, 6, 7]
    assert lookup.propose(ids, 3) == []
    ids += [8, 5, 6]
    assert lookup.propose(ids, 3) == [7, 8, 5]
    ids += [7, 1]
    assert lookup.propose(ids, 3) == []


def test_proposals_become_rare_while_rejected_and_go_on_once_accepted() -> None:
    """Issue 5: where no proposal is accepted they cost next to nothing."""
    lookup, ids = PromptLookup(), [1, 2] * 8
    made = []
    for step in range(2000):
        ids += [1, 2] if step % 2 else [2, 1, 2]
        if proposal := lookup.propose(ids, 3):
            made.append(step)
            lookup.record(0)
            assert proposal
    gaps = [later - earlier for earlier, later in pairwise(made)]
    assert gaps == sorted(gaps)
    assert max(gaps) == MAX_PAUSE - 1
    assert len(made) < 2000 / 25
    while not lookup.propose(ids, 3):
        pass
    lookup.record(1)
    assert lookup.propose(ids, 3)
    lookup.record(0)
    assert lookup.propose(ids, 3)
