"""The contract of every event log, run on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.core.errors import EventsGone, UnknownSession
from app.stream.event import Draft
from app.stream.log import EventLog, Header
from app.stream.logs.memory import MemoryLog
from app.stream.logs.open import open_log
from tests.redis_server import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]

WAIT_S = 5.0


def header(
    run: str = "r1", session_id: str = "s1", owner: str = "", *, fingerprint: str = ""
) -> Header:
    return Header(run, session_id, "kind", owner, fingerprint)


def text(value: str) -> Draft:
    return Draft("", value)


END = Draft("result", {"ok": True}, terminal=True)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def log_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'sessions.db'}"


@pytest.fixture
async def event_log(log_url: str) -> AsyncIterator[EventLog]:
    opened = open_log(log_url)
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
    for step in (
        event_log.read("nothing", -1),
        event_log.wait("nothing", -1, 0.1),
        event_log.append("nothing", [text("a")]),
    ):
        with pytest.raises(UnknownSession):
            await step


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
    with pytest.raises(UnknownSession):
        await event_log.read("r1", -1)
    assert (await event_log.read("r2", -1)).events


async def test_sweeping_keeps_what_ended_lately(event_log: EventLog) -> None:
    """Contract 3: the TTL counts from the end."""
    await event_log.open(header())
    await event_log.append("r1", [END])
    assert await event_log.sweep(600) == 0
    assert (await event_log.read("r1", -1)).ended


async def test_the_first_of_two_that_open_an_id_holds_it(event_log: EventLog) -> None:
    """Contract 3: never a second generation."""
    assert await event_log.open(header("r1")) == header("r1")
    assert await event_log.open(header("r2")) == header("r1")
    assert await event_log.find("", "s1") == header("r1")
    with pytest.raises(UnknownSession):
        await event_log.append("r2", [text("a")])


async def test_of_many_that_open_an_id_at_once_one_holds_it(event_log: EventLog) -> None:
    """Contract 3: asked for at once, generated once."""
    opened = await asyncio.gather(*(event_log.open(header(f"r{n}")) for n in range(20)))
    assert len(set(opened)) == 1


async def test_an_id_of_another_owner_is_another_id(event_log: EventLog) -> None:
    """Contract 3: a session belongs to whoever opened it."""
    for run, owner, session_id in (("r1", "", "a-b"), ("r2", "a", "b"), ("r3", "a-b", "")):
        opened = header(run, session_id, owner)
        assert await event_log.open(opened) == opened
    assert await event_log.find("a", "b") == header("r2", "b", "a")


async def test_the_same_request_is_joined_only_where_both_are_shared(event_log: EventLog) -> None:
    """Contract 3: the second request follows the first one's session."""
    first = header("r1", "s1", fingerprint="f")
    await event_log.open(first, shared=True)
    for alone in (header("r2", "s2", fingerprint="f"), header("r3", "s3", "anna", fingerprint="f")):
        assert await event_log.open(alone, shared=alone.owner != "") == alone
    assert await event_log.open(header("r4", "s4", fingerprint="f"), shared=True) == first
    other = header("r5", "s5", fingerprint="g")
    assert await event_log.open(other, shared=True) == other
    assert await event_log.find("", "s4") is None


async def test_an_ended_run_frees_its_id_and_its_request(event_log: EventLog) -> None:
    """Contract 3: a later session with that id may start afresh."""
    await event_log.open(header("r1", fingerprint="f"), shared=True)
    await event_log.append("r1", [END])
    for again in (header("r2"), header("r3", "s3", fingerprint="f")):
        assert await event_log.open(again, shared=again.fingerprint == "f") == again


async def test_a_stopped_run_frees_its_id_at_once_and_still_gets_its_end(
    event_log: EventLog,
) -> None:
    """Pitfall: a cancelled session id stayed cancelled for ever."""
    await event_log.open(header("r1", fingerprint="f"), shared=True)
    await event_log.append("r1", [text("a")])
    await event_log.request_stop("", "s1")
    await event_log.request_stop("", "never-opened")
    for again in (header("r2"), header("r3", "s3", fingerprint="f")):
        assert await event_log.open(again, shared=again.fingerprint == "f") == again
    assert await event_log.append("r1", [END]) == 1
    assert (await event_log.read("r1", -1)).ended
    await event_log.append("r2", [text("new")])
    assert await event_log.find("", "s1") == header("r2")


async def test_nobody_of_another_owner_stops_a_run(event_log: EventLog) -> None:
    """Contract 3: another key's session is not cancelled."""
    await event_log.open(header("r1", "s1", "anna"))
    await event_log.request_stop("bert", "s1")
    await event_log.request_stop("", "s1")
    assert await event_log.open(header("r2", "s1", "anna")) == header("r1", "s1", "anna")


async def test_what_a_run_forgot_wakes_its_waiters(event_log: EventLog) -> None:
    """A session whose end cannot be written does not leave its followers waiting."""
    await event_log.open(header())
    waiting = [asyncio.create_task(event_log.wait("r1", -1, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    event_log.forget("r1")
    event_log.forget("never-opened")
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)


async def test_the_end_of_a_run_wakes_every_waiter(event_log: EventLog) -> None:
    await event_log.open(header())
    waiting = [asyncio.create_task(event_log.wait("r1", -1, 60)) for _ in range(20)]
    await asyncio.sleep(0)
    await event_log.append("r1", [END])
    await asyncio.wait_for(asyncio.gather(*waiting), WAIT_S)
    await asyncio.wait_for(event_log.wait("r1", 0, 60), WAIT_S)


async def test_a_cancelled_waiter_takes_nothing_from_the_others(event_log: EventLog) -> None:
    """Pitfall: two listeners split one queue."""
    await event_log.open(header())
    gone, stays = (asyncio.create_task(event_log.wait("r1", -1, 60)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await event_log.append("r1", [text("a")])
    await asyncio.wait_for(stays, WAIT_S)
    assert (await event_log.read("r1", -1)).events[0].data == "a"


async def test_long_runs_are_read_a_page_at_a_time(event_log: EventLog) -> None:
    await event_log.open(header())
    for start in range(0, 1500, 100):
        await event_log.append("r1", [text(str(n)) for n in range(start, start + 100)])
    await event_log.append("r1", [END])
    seen: list[object] = []
    pages, ended, after = 0, False, -1
    while not ended:
        page = await event_log.read("r1", after, limit=256)
        seen += [event.data for event in page.events]
        pages, ended, after = pages + 1, page.ended, page.events[-1].index
    assert seen == [*map(str, range(1500)), {"ok": True}]
    assert pages == 6


async def test_appending_nothing_changes_nothing(event_log: EventLog) -> None:
    await event_log.open(header())
    assert await event_log.append("r1", []) == -1
    await event_log.append("r1", [text("a")])
    assert await event_log.append("r1", []) == 0


async def test_appends_of_many_runs_at_once_keep_their_order(event_log: EventLog) -> None:
    async def produce(run: str) -> None:
        await event_log.open(header(run, f"s-{run}"))
        for number in range(20):
            await event_log.append(run, [text(f"{run} {number}")])

    runs = [f"r{number}" for number in range(20)]
    await asyncio.gather(*map(produce, runs))
    for run in runs:
        events = (await event_log.read(run, -1)).events
        assert [event.data for event in events] == [f"{run} {number}" for number in range(20)]


async def test_a_cancelled_append_takes_nothing_from_the_others(event_log: EventLog) -> None:
    """A session that is cancelled while its event is written does not end another one."""
    for run in ("r1", "r2"):
        await event_log.open(header(run, f"s-{run}"))
    first, second = (
        asyncio.create_task(event_log.append(run, [text("a")])) for run in ("r1", "r2")
    )
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.wait_for(second, WAIT_S) == 0
    await event_log.append("r1", [END])
    events = (await event_log.read("r1", -1)).events
    assert [event.index for event in events] == list(range(len(events)))
    assert events[-1].terminal


async def test_nobody_is_elsewhere_when_there_is_one_process(event_log: EventLog) -> None:
    await event_log.open(header())
    assert await event_log.lease_left_s("r1") == float("-inf")
    assert await event_log.heartbeat() == []
    assert await asyncio.wait_for(event_log.stop_requests(0.05), WAIT_S) == []


async def test_a_log_that_was_closed_can_be_closed_again(log_url: str) -> None:
    event_log = open_log(log_url)
    await event_log.open(header())
    waiting = asyncio.create_task(event_log.wait("r1", -1, 60))
    await asyncio.sleep(0)
    await event_log.aclose()
    await event_log.aclose()
    await asyncio.wait_for(waiting, WAIT_S)


HARD_DATA = [
    "", " ", "\n", "\x00", "\u2028\x85", "\ud800", "\ud83d\ude00", "😀", "مرحبا", "a" * 100_000,
    {"b": 1, "a": 2, "c": {"z": 0, "y": [1.5, 1e-7, 0.1 + 0.2, -0.0, 12345678901234567890]}},
    {"\ud800": "\udfff", "ключ": None, "": [True, False, {}]},
]  # fmt: skip


async def test_data_comes_back_exactly(event_log: EventLog, log_url: str) -> None:
    """S1.23: what is replayed is what was sent, to the byte, whoever reads it."""
    await event_log.open(header())
    await event_log.append("r1", [Draft("kind", data) for data in HARD_DATA])
    readers = [event_log] if log_url == "memory:" else [event_log, open_log(log_url)]
    for reader in readers:
        events = (await reader.read("r1", -1)).events
        assert [repr(event.data) for event in events] == [repr(data) for data in HARD_DATA]
        assert [event.kind for event in events] == ["kind"] * len(HARD_DATA)
    for reader in readers[1:]:
        await reader.aclose()


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
