"""What a follower costs the others, and when the lack of one ends a session."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from app.core.errors import EventsGone, GenerationFailed, UnknownSession
from app.stream.event import Draft
from app.stream.log import Header
from app.stream.logs.memory import MemoryLog
from app.stream.sessions import Sessions
from tests.stream.test_session import END, WAIT_S, Source, all_events, failure, texts


def open_sessions() -> Sessions:
    return Sessions(MemoryLog(), endings={"k": failure})


@pytest.mark.parametrize(
    ("followers", "pauses_s"), [(1, set()), (13, set()), (14, {0.0021}), (700, {0.1})]
)
async def test_the_more_follow_the_more_events_go_out_together(
    followers: int, pauses_s: set[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured by bench.streams: the event loop stays free, and nobody sees the pause."""
    slept_s: set[float] = set()
    turn = asyncio.sleep

    async def sleep(delay_s: float) -> None:
        slept_s.add(round(delay_s, 6))
        await turn(0)

    async def crowd(size: int) -> None:
        source = Source()
        header = await sessions.start("k", source)
        following = [asyncio.create_task(all_events(sessions, header)) for _ in range(size)]
        await turn(0)
        source.put(Draft("", "a"))
        for _ in range(10):
            await turn(0)
        source.put(END)
        for events in await asyncio.gather(*following):
            assert texts(events) == ["a"]

    sessions = open_sessions()
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await crowd(followers)
    assert slept_s == pauses_s
    # Those who have left count no more.
    slept_s.clear()
    await crowd(1)
    assert slept_s == set()
    await crowd(followers)
    assert slept_s == pauses_s
    await sessions.aclose()


def skip(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    """Move the clock of the running loop."""
    loop = asyncio.get_running_loop()
    now_s = loop.time
    monkeypatch.setattr(loop, "time", lambda: now_s() + by_s)


async def turns() -> None:
    """Let everything that is due happen."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_session_waits_five_seconds_for_its_first_follower(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = open_sessions()
    source = Source()
    header = await sessions.start("k", source, linger_s=0.0)
    await turns()
    skip(monkeypatch, 4.5)
    await turns()
    assert not source.closed.is_set()
    skip(monkeypatch, 0.6)
    await turns()
    assert source.closed.is_set()
    events = await all_events(sessions, header)
    assert [event.data for event in events] == [{"code": "cancelled"}]
    await sessions.aclose()


class Leases(MemoryLog):
    """A memory log that counts how often a lease is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def lease_left_s(self, run: str) -> float:
        self.reads += 1
        return await super().lease_left_s(run)


@pytest.mark.parametrize("followed_to_the_end", [True, False])
async def test_an_ended_session_has_no_timer(
    followed_to_the_end: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Leases()
    sessions = Sessions(log, endings={"k": failure})
    source = Source()
    header = await sessions.start("k", source, linger_s=3600.0)
    await sessions.snapshot(header)
    following = asyncio.create_task(all_events(sessions, header)) if followed_to_the_end else None
    await turns()
    source.put(GenerationFailed("no"))
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    if following is not None:
        assert len(await following) == 1
    await turns()
    assert sessions.active == 0
    skip(monkeypatch, 3601.0)
    await turns()
    assert log.reads == 0
    await sessions.aclose()


async def test_pages_start_at_the_first_event_and_are_never_empty() -> None:
    sessions = open_sessions()
    source = Source()
    source.put(*(Draft("", str(number)) for number in range(600)), END)
    header = await sessions.start("k", source)
    await sessions.wait_stopped(header)
    async with asyncio.timeout(WAIT_S), aclosing(sessions.pages(header)) as pages:
        sizes = [len(page) async for page in pages]
    assert sum(sizes) == 601
    assert min(sizes) > 0
    await sessions.aclose()


async def test_what_following_would_raise_is_known_before_it_starts() -> None:
    """Rule 1: while an HTTP status can still say it."""
    sessions = open_sessions()
    header = await sessions.start("k", Source())
    await sessions.check(header, -1)
    with pytest.raises(EventsGone):
        await sessions.check(header, 7)
    unknown = Header("r9", "s9", "k", "", "")
    with pytest.raises(UnknownSession):
        await sessions.check(unknown, -1)
    await sessions.wait_stopped(unknown)
    await sessions.aclose()


async def test_only_requests_without_an_id_of_their_own_share_a_session() -> None:
    """Contract 3: and only those with the same non-empty fingerprint."""
    sessions = open_sessions()
    named = await sessions.start("k", Source(), session_id="mine", fingerprint="f")
    shared = await sessions.start("k", Source(), fingerprint="f")
    assert shared.session_id != named.session_id
    assert await sessions.start("k", Source(), fingerprint="f") == shared
    alone = [await sessions.start("k", Source()) for _ in range(2)]
    assert alone[0] != alone[1]
    await sessions.aclose()


async def test_an_id_whose_session_is_stopping_starts_afresh_without_a_fingerprint() -> None:
    sessions = open_sessions()
    old = await sessions.start("k", Source(), session_id="mine")
    await sessions.cancel("", "mine")
    new = await sessions.start("k", Source(), session_id="mine")
    assert new.run != old.run
    await sessions.aclose()


async def test_closing_sessions_closes_their_log() -> None:
    sessions = open_sessions()
    source = Source()
    source.put(END)
    header = await sessions.start("k", source)
    await all_events(sessions, header)
    assert await sessions.find("", header.session_id) == header
    await sessions.aclose()
    assert await sessions.find("", header.session_id) is None
