"""Pieces joined to events: as often as a client draws, and never more than a log holds."""

from __future__ import annotations

import operator

import pytest

from app.stream.coalesce import SINGLE_EVENTS, Coalescer, Throttle

RING_EVENTS = 2_048


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_without_an_interval_every_piece_is_an_event() -> None:
    words: Coalescer[str] = Coalescer(operator.add)
    pieces = [f"{number}," for number in range(SINGLE_EVENTS)]
    assert [words.feed(piece) for piece in pieces] == [[piece] for piece in pieces]
    assert words.flush() == []


@pytest.mark.parametrize("pieces", [2_048, 100_000, 1_000_000])
def test_an_answer_of_any_length_fits_the_log(pieces: int) -> None:
    """Contract 3: a session can be replayed from its start."""
    counted: Coalescer[int] = Coalescer(operator.add)
    events = [event for _ in range(pieces) for event in counted.feed(1)]
    events += counted.flush()
    assert sum(events) == pieces
    assert len(events) < RING_EVENTS - 100
    # The longest summary comes at most in pairs.
    assert max(events) <= 2 or pieces > 2_048


def test_pieces_that_come_faster_than_they_are_drawn_come_together() -> None:
    """A17: at most 33 events a second are useful."""
    clock = Clock()
    words: Coalescer[str] = Coalescer(operator.add, interval_s=0.03, clock=clock)
    assert words.feed("a") == ["a"]
    clock.now_s += 0.01
    assert words.feed("b") == []
    clock.now_s += 0.01
    assert words.feed("c") == []
    clock.now_s += 0.011
    assert words.feed("d") == ["bcd"]
    assert words.feed("e") == []
    assert words.flush() == ["e"]


def test_pieces_that_cannot_be_joined_keep_their_order() -> None:
    def same_sign(before: int, piece: int) -> int | None:
        return before + piece if before * piece > 0 else None

    clock = Clock()
    numbers: Coalescer[int] = Coalescer(same_sign, interval_s=1.0, clock=clock)
    assert numbers.feed(1) == [1]
    assert numbers.feed(2) == []
    assert numbers.feed(3) == []
    assert numbers.feed(-1) == [5]
    clock.now_s += 1.0
    assert numbers.feed(4) == [-1]
    assert numbers.flush() == [4]


def test_a_throttle_stays_due_until_its_event_is_sent() -> None:
    """What a piece completes may have nothing to show: the next one is then in time."""
    throttle = Throttle(0.1)
    assert throttle.due(1.0)
    assert throttle.due(1.0)
    throttle.sent(1.0)
    assert not throttle.due(1.05)
    assert throttle.due(1.11)
