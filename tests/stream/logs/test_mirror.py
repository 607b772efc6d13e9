"""The mirror of runs of other processes: contiguous, bounded, never more than was received."""

from __future__ import annotations

import asyncio

import pytest

from app.stream.event import Event
from app.stream.logs.mirror import MIRRORED_EVENTS, MIRRORED_RUNS, Mirror, Mirrors
from tests.turns import next_turn


def events(first: int, last: int) -> list[Event]:
    return [Event(index, "", str(index)) for index in range(first, last + 1)]


def indexes(mirror: Mirror, after: int, limit: int = 1000) -> list[int] | None:
    page = mirror.page(after, limit)
    return None if page is None else [event.index for event in page.events]


def test_what_was_received_can_be_read_from_any_index_of_it() -> None:
    mirror = Mirror()
    mirror.begin_after(4)
    mirror.extend(events(5, 9))
    assert indexes(mirror, 4) == [5, 6, 7, 8, 9]
    assert indexes(mirror, 6, limit=2) == [7, 8]
    assert indexes(mirror, 3) is None
    assert indexes(mirror, 10) is None


async def test_at_the_end_only_a_listener_knows_that_there_is_no_more() -> None:
    mirror = Mirror()
    mirror.extend(events(0, 2))
    assert indexes(mirror, 2) is None
    assert await mirror.wait(2)
    assert indexes(mirror, 2) == []
    mirror.stop_listening()
    assert indexes(mirror, 2) is None


def test_after_the_terminal_event_there_is_no_more() -> None:
    mirror = Mirror()
    mirror.extend([*events(0, 1), Event(2, "result", {}, terminal=True)])
    page = mirror.page(2, 10)
    assert page is not None
    assert (page.events, page.ended) == ([], True)
    whole = mirror.page(-1, 10)
    assert whole is not None
    assert whole.ended
    part = mirror.page(-1, 2)
    assert part is not None
    assert not part.ended


def test_a_gap_is_never_bridged() -> None:
    """Contract 3: no gap."""
    mirror = Mirror()
    mirror.extend(events(0, 3))
    mirror.extend(events(10, 12))
    assert indexes(mirror, 2) is None
    assert indexes(mirror, 6) is None
    assert indexes(mirror, 9) == [10, 11, 12]


def test_a_mirror_keeps_the_last_events_and_the_runs_used_last() -> None:
    mirror = Mirror()
    mirror.extend(events(0, MIRRORED_EVENTS))
    assert indexes(mirror, -1) is None
    assert len(indexes(mirror, 0) or []) == MIRRORED_EVENTS
    mirrors = Mirrors()
    first = mirrors.use("r0")
    for number in range(MIRRORED_RUNS):
        mirrors.use(f"r{number}")
    assert mirrors.use("r0") is first
    mirrors.use("one more")
    assert mirrors.find("r0") is first
    assert mirrors.find("r1") is None


async def test_what_is_there_is_read_while_another_listens_for_more() -> None:
    """Once, who came late for an event waited for all who listened for the next one in turn."""
    mirror = Mirror()
    mirror.extend(events(0, 2))
    assert await mirror.wait(2)
    ahead = [asyncio.create_task(mirror.wait(2)) for _ in range(5)]
    await next_turn()
    assert await mirror.wait(1) is False
    assert not any(task.done() for task in ahead)
    mirror.extend(events(3, 3))
    assert await asyncio.gather(*ahead) == [False] * 5


async def test_an_event_wakes_those_it_is_for_and_no_others() -> None:
    mirror = Mirror()
    mirror.extend(events(0, 2))
    assert await mirror.wait(2)
    waiting = [asyncio.create_task(mirror.wait(after)) for after in (9, 2, 3, 2)]
    await next_turn()
    mirror.extend(events(3, 3))
    await next_turn()
    assert [task.done() for task in waiting] == [False, True, False, True]
    mirror.drop()
    assert await asyncio.gather(*waiting) == [False] * 4


async def test_the_turn_to_listen_goes_to_one_who_still_waits() -> None:
    """Whoever is cancelled at the moment when it is their turn passes it on."""
    mirror = Mirror()
    assert await mirror.wait(-1)
    first, second, third = (asyncio.create_task(mirror.wait(-1)) for _ in range(3))
    await next_turn()
    mirror.stop_listening()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second is True
    assert not third.done()
    mirror.stop_listening()
    assert await third is True


async def test_a_newcomer_who_takes_the_turn_leaves_the_others_waiting() -> None:
    mirror = Mirror()
    assert await mirror.wait(-1)
    waiting = asyncio.create_task(mirror.wait(-1))
    await next_turn()
    mirror.stop_listening()
    assert await mirror.wait(-1) is True
    await next_turn()
    assert not waiting.done()
    mirror.stop_listening()
    assert await waiting is True
