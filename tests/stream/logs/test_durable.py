"""What only the durable logs do: connect processes with each other, on SQLite and on Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from app.core.errors import SessionBusy
from app.stream.event import Draft, Event
from app.stream.log import EventLog, Header
from app.stream.logs.memory import KEPT_EVENTS
from app.stream.logs.open import open_log
from app.stream.sessions import Sessions
from tests.redis_server import redis_server, redis_url
from tests.stream.logs.writer_program import failure
from tests.stream.test_session import Source, all_events, texts

__all__ = ["redis_server", "redis_url"]

WAIT_S = 5.0
END = Draft("result", {"ok": True}, terminal=True)
Two = tuple[EventLog, EventLog]


def header(
    run: str = "r1", session_id: str = "s1", owner: str = "", *, fingerprint: str = ""
) -> Header:
    return Header(run, session_id, "k", owner, fingerprint)


def text(value: str) -> Draft:
    return Draft("", value)


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    return f"sqlite:{tmp_path / 'sessions.db'}"


@pytest.fixture
async def two(url: str) -> AsyncIterator[Two]:
    """Two logs on one store, which see each other as two processes do."""
    logs = open_log(url), open_log(url)
    yield logs
    for each in logs:
        await each.aclose()


@pytest.fixture
async def servers(url: str) -> AsyncIterator[tuple[Sessions, Sessions]]:
    """Two servers on one store, with what they do beside requests."""
    both = open_server(url), open_server(url)
    async with asyncio.TaskGroup() as group:
        maintaining = [group.create_task(sessions.maintain()) for sessions in both]
        yield both
        for task in maintaining:
            task.cancel()
    for sessions in both:
        await sessions.aclose()


def open_server(url: str) -> Sessions:
    return Sessions(open_log(url), endings={"k": failure})


async def follow(log: EventLog, run: str, after: int = -1) -> list[Event]:
    """Read a run to its end with the loop of all followers."""
    seen: list[Event] = []
    async with asyncio.timeout(WAIT_S):
        while True:
            page = await log.read(run, after)
            seen += page.events
            if page.ended:
                return seen
            if page.events:
                after = page.events[-1].index
            else:
                await log.wait(run, after, WAIT_S)


async def lost_runs(log: EventLog, timeout_s: float = 15.0) -> list[Header]:
    """Send heartbeats until a run was lost with its process."""
    async with asyncio.timeout(timeout_s):
        while True:
            if lost := await log.heartbeat():
                return lost
            await asyncio.sleep(0.1)


async def test_many_followers_elsewhere_see_each_event_promptly(two: Two) -> None:
    """S4.34: resume works on any process; pitfall: two listeners split one queue."""
    ours, theirs = two
    await ours.open(header())
    following = [asyncio.create_task(follow(theirs, "r1")) for _ in range(20)]
    count = 10
    # Each event is awaited before the next one is written: a wake-up that only comes with the
    # next look for a lost run, every second, would take too long.
    async with asyncio.timeout(WAIT_S):
        for index in range(count):
            await ours.append("r1", [text(str(index))])
            while not (await theirs.read("r1", index - 1)).events:
                await theirs.wait("r1", index - 1, 60)
    await ours.append("r1", [END])
    expected = [*map(str, range(count)), END.data]
    for events in await asyncio.gather(*following):
        assert [event.data for event in events] == expected


async def test_a_claim_holds_across_processes(two: Two) -> None:
    """Contract 3: asked for twice at once, generated once, in any process."""
    ours, theirs = two
    first = header("r1", "s1", fingerprint="f")
    assert await ours.open(first, shared=True) == first
    assert await theirs.open(header("r2", "s1")) == first
    assert await theirs.open(header("r3", "s3", fingerprint="f"), shared=True) == first
    assert await theirs.find("", "s1") == first
    await theirs.request_stop("", "s1")
    again = header("r4", "s1", fingerprint="f")
    assert await theirs.open(again, shared=True) == again
    assert await ours.find("", "s1") == again


async def test_of_many_claims_in_two_processes_one_holds(two: Two) -> None:
    opened = await asyncio.gather(
        *(log.open(header(f"{n}-{m}")) for n, log in enumerate(two) for m in range(10))
    )
    assert len(set(opened)) == 1


async def test_a_stop_reaches_the_owner_once(two: Two) -> None:
    """S1.25 in any process."""
    ours, theirs = two
    await ours.open(header("r1", "s1"))
    await theirs.open(header("r2", "s2"))
    waiting = asyncio.create_task(ours.stop_requests(60))
    await asyncio.sleep(0)
    await theirs.request_stop("", "s1")
    await theirs.request_stop("", "s1")
    assert await asyncio.wait_for(waiting, WAIT_S) == ["r1"]
    assert await ours.stop_requests(0.3) == []
    assert await theirs.stop_requests(0.05) == []


async def test_the_longest_lease_of_a_follower_elsewhere_counts(two: Two) -> None:
    ours, theirs = two
    await ours.open(header())
    await theirs.renew_lease("r1", 3000.0)
    await theirs.renew_lease("r1", 1000.0)
    assert 2000.0 < await ours.lease_left_s("r1") <= 3000.0
    await theirs.renew_lease("unknown", 3.0)


async def test_a_lease_that_ran_out_says_since_when(two: Two) -> None:
    ours, theirs = two
    await ours.open(header())
    await theirs.renew_lease("r1", -1000.0)
    assert -2000.0 < await ours.lease_left_s("r1") <= -1000.0


async def test_runs_of_a_process_that_left_are_lost_and_those_of_a_living_one_not(
    two: Two, url: str
) -> None:
    """Contract 3: a session that a crash cut short ends when read again."""
    ours, theirs = two
    gone = open_log(url)
    await ours.open(header("living", "s1"))
    await gone.open(header("lost", "s2"))
    await gone.open(header("ended", "s3"))
    await gone.append("ended", [END])
    await gone.aclose()
    assert await lost_runs(theirs) == [header("lost", "s2")]
    assert await theirs.open(header("again", "s2")) == header("again", "s2")
    await theirs.append("lost", [END])
    assert await theirs.heartbeat() == []


async def test_a_process_believed_dead_sees_the_end_that_another_wrote(two: Two) -> None:
    """Rule 2: one terminal event, whoever writes it; what comes late changes nothing."""
    ours, theirs = two
    await ours.open(header())
    await ours.append("r1", [text("a")])
    following = asyncio.create_task(follow(ours, "r1"))
    await asyncio.sleep(0)
    await theirs.append("r1", [Draft("error", {"code": "interrupted"}, terminal=True)])
    await ours.append("r1", [text("late")])
    for events in (await following, await follow(ours, "r1"), await follow(theirs, "r1")):
        assert [event.data for event in events] == ["a", {"code": "interrupted"}]


async def test_no_event_is_lost_to_the_ring(two: Two) -> None:
    """S4.26: only without persistence are the earliest events lost."""
    ours = two[0]
    await ours.open(header())
    count = KEPT_EVENTS + 500
    for start in range(0, count, 500):
        drafts = [text(str(n)) for n in range(start, min(start + 500, count))]
        await ours.append("r1", drafts)
    await ours.append("r1", [END])
    for log in two:
        events = await follow(log, "r1")
        assert [event.data for event in events] == [*map(str, range(count)), {"ok": True}]


async def test_a_session_is_resumed_and_cancelled_on_the_other_server(
    servers: tuple[Sessions, Sessions],
) -> None:
    """Contract 3: resume and cancel work on any of them."""
    first, second = servers
    source = Source()
    started_header = await first.start("k", source, session_id="mine")
    source.put(text("a"), text("b"))
    found = await second.find("", "mine")
    assert found == started_header
    resumed = asyncio.create_task(all_events(second, started_header, 0))
    source.put(text("c"))
    async with asyncio.timeout(WAIT_S), aclosing(second.follow(started_header)) as events:
        seen = [(await anext(events)).data for _ in range(3)]
    assert seen == ["a", "b", "c"]
    await second.cancel("", "mine")
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    events_seen = await resumed
    assert texts(events_seen) == ["b", "c"]
    assert events_seen[-1].data == {"code": "cancelled"}
    again = Source()
    again.put(text("new"), END)
    assert texts(await all_events(first, await second.start("k", again, session_id="mine"))) == [
        "new"
    ]


async def test_the_same_request_on_two_servers_is_one_session(
    servers: tuple[Sessions, Sessions],
) -> None:
    """Contract 3: never a second generation."""
    source, other = Source(), Source()
    first = await servers[0].start("k", source, fingerprint="f")
    joined = await servers[1].start("k", other, fingerprint="f")
    assert joined == first
    source.put(text("a"), END)
    assert texts(await all_events(servers[1], joined)) == ["a"]
    assert other.started == 0


async def test_an_id_that_another_server_runs_is_busy(
    servers: tuple[Sessions, Sessions],
) -> None:
    first = await servers[0].start("k", Source(), session_id="mine", fingerprint="f")
    with pytest.raises(SessionBusy):
        await servers[1].start("k", Source(), session_id="mine", fingerprint="g")
    same = await servers[1].start("k", Source(), session_id="mine", fingerprint="f")
    assert same == first
    other_owner = await servers[1].start("k", Source(), owner="anna", session_id="mine")
    assert other_owner != first


async def test_a_session_is_not_cancelled_while_it_is_followed_on_the_other_server(
    servers: tuple[Sessions, Sessions],
) -> None:
    """S1.30, S2.12: only when the last follower has left, wherever it was."""
    source = Source()
    started_header = await servers[0].start("k", source, linger_s=0.3)
    source.put(text("a"))
    async with aclosing(servers[1].follow(started_header)) as elsewhere:
        await asyncio.wait_for(anext(elsewhere), WAIT_S)
        async with aclosing(servers[0].follow(started_header)) as here:
            await asyncio.wait_for(anext(here), WAIT_S)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(source.closed.wait()), 1.5)
    await asyncio.wait_for(source.closed.wait(), 6.0)
    events = await all_events(servers[1], started_header)
    assert events[-1].data == {"code": "cancelled"}
