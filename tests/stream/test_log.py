"""The contract of every event log, run on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.core.errors import EventsGone, UnknownSession
from app.stream.event import Draft
from app.stream.log import EventLog, Header, open_log
from app.stream.memory import MemoryLog

WAIT_S = 5.0


def header(run: str = "r1", session_id: str = "s1", owner: str = "") -> Header:
    return Header(run, session_id, "kind", owner, "")


def text(value: str) -> Draft:
    return Draft("", value)


END = Draft("result", {"ok": True}, terminal=True)


@pytest.fixture(params=["memory"])
async def event_log(request: pytest.FixtureRequest) -> AsyncIterator[EventLog]:
    opened = open_log(f"{request.param}:")
    yield opened
    await opened.aclose()


async def test_events_come_back_in_order_with_indexes_from_zero(event_log: EventLog) -> None:
    """Contract 3."""
    await event_log.open(header())
    assert await event_log.append("r1", [text("a"), text("b")]) == 1
    assert await event_log.append("r1", [END]) == 2
    page = await event_log.read("r1", -1)
    assert [(e.index, e.data) for e in page.events] == [(0, "a"), (1, "b"), (2, {"ok": True})]
    assert page.ended


async def test_reading_after_an_index_gives_only_what_follows(event_log: EventLog) -> None:
    await event_log.open(header())
    await event_log.append("r1", [text(str(i)) for i in range(10)])
    page = await event_log.read("r1", 6, limit=2)
    assert [e.index for e in page.events] == [7, 8]
    assert not page.ended


async def test_nothing_follows_a_terminal_event(event_log: EventLog) -> None:
    """Pitfall: a second terminal event was written."""
    await event_log.open(header())
    await event_log.append("r1", [END, text("late"), END])
    await event_log.append("r1", [text("later")])
    assert [e.terminal for e in (await event_log.read("r1", -1)).events] == [True]


async def test_a_waiter_wakes_when_an_event_comes(event_log: EventLog) -> None:
    await event_log.open(header())
    waiting = asyncio.create_task(event_log.wait("r1", -1, WAIT_S))
    await asyncio.sleep(0)
    await event_log.append("r1", [text("a")])
    await asyncio.wait_for(waiting, WAIT_S)
    assert (await event_log.read("r1", -1)).events


async def test_an_event_between_reading_and_waiting_is_not_missed(event_log: EventLog) -> None:
    """Rule 3: never "replay, then subscribe"."""
    await event_log.open(header())
    assert (await event_log.read("r1", -1)).events == []
    await event_log.append("r1", [text("a")])
    await asyncio.wait_for(event_log.wait("r1", -1, 60), WAIT_S)


async def test_waiting_ends_when_the_time_is_over(event_log: EventLog) -> None:
    await event_log.open(header())
    await asyncio.wait_for(event_log.wait("r1", -1, 0.01), WAIT_S)


async def test_an_index_that_was_never_given_is_gone(event_log: EventLog) -> None:
    await event_log.open(header())
    await event_log.append("r1", [text("a")])
    with pytest.raises(EventsGone):
        await event_log.read("r1", 5)


async def test_an_unknown_run_is_an_error_with_a_code(event_log: EventLog) -> None:
    with pytest.raises(UnknownSession):
        await event_log.read("nothing", -1)


async def test_a_session_id_is_found_for_its_owner_only(event_log: EventLog) -> None:
    """Contract 3: a session belongs to whoever opened it."""
    await event_log.open(header(owner="anna"))
    found = await event_log.find("anna", "s1")
    assert found is not None
    assert found.run == "r1"
    assert await event_log.find("bert", "s1") is None


async def test_a_new_run_of_an_id_leaves_the_old_one_readable(event_log: EventLog) -> None:
    """Pitfall: generated over the old rows."""
    await event_log.open(header("r1"))
    await event_log.append("r1", [text("old"), END])
    await event_log.open(header("r2"))
    await event_log.append("r2", [text("new")])
    found = await event_log.find("", "s1")
    assert found is not None
    assert found.run == "r2"
    assert (await event_log.read("r1", -1)).events[0].data == "old"


async def test_sweeping_spares_what_still_runs(event_log: EventLog) -> None:
    """Pitfall: sessions were collected by age since creation, while they ran."""
    await event_log.open(header("r1", "s1"))
    await event_log.append("r1", [END])
    await event_log.open(header("r2", "s2"))
    await event_log.append("r2", [text("running")])
    assert await event_log.sweep(0) == 1
    assert await event_log.find("", "s1") is None
    assert (await event_log.read("r2", -1)).events


async def test_the_memory_log_keeps_the_last_events_and_says_what_is_gone() -> None:
    """S1.27, S4.26, contract 3: 2,048 events a session; an index no longer kept is 410."""
    ring = MemoryLog()
    await ring.open(header())
    await ring.append("r1", [text(str(i)) for i in range(2050)])
    assert len((await ring.read("r1", 1, limit=5000)).events) == 2048
    with pytest.raises(EventsGone) as gone:
        await ring.read("r1", 0)
    assert (gone.value.status, gone.value.code) == (410, "events_gone")


def test_an_unknown_kind_of_log_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="memory:"):
        open_log("etcd://somewhere")
