"""Places are shared out among clients, and who left gives way (C34)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import pytest

from app.core.client import current_client
from app.core.errors import Overloaded
from app.stream import admission
from app.stream.event import Draft, Event
from app.stream.log import Header
from app.stream.sessions import Sessions
from tests.stream.test_session import Source, all_events, open_sessions
from tests.turns import next_turn

WAIT_S = 5.0


@contextmanager
def client(name: str) -> Iterator[None]:
    token = current_client.set(name)
    yield
    current_client.reset(token)


async def opened(sessions: Sessions, name: str, linger_s: float | None = 3600.0) -> Header:
    """Open a session as a request of a client does."""
    with client(name):
        async with sessions.reserve() as reservation:
            return await sessions.start("k", Source(), linger_s=linger_s, reservation=reservation)


async def last_event(sessions: Sessions, header: Header) -> Event:
    return (await asyncio.wait_for(all_events(sessions, header), WAIT_S))[-1]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is not followed counts as abandoned at once."""
    monkeypatch.setattr(admission, "ABANDONED_AFTER_S", 0.0)


async def test_one_client_cannot_take_every_place() -> None:
    """Contract 8; eighty streams of one client once held all places."""
    sessions = open_sessions(max_active=8, max_active_per_client=2)
    for _ in range(2):
        await opened(sessions, "loud")
    for _ in range(3):
        with pytest.raises(Overloaded, match="of yours") as refused:
            await opened(sessions, "loud")
        assert refused.value.retry_after_s == admission.RETRY_AFTER_S
    await opened(sessions, "quiet")
    assert sessions.active == 3
    await sessions.aclose()


async def test_who_left_long_ago_gives_way_to_another(at_once: None) -> None:
    sessions = open_sessions(max_active=2)
    first = await opened(sessions, "a")
    await next_turn()
    second = await opened(sessions, "b")
    third = await opened(sessions, "c")
    assert (await last_event(sessions, first)).data == {"code": "cancelled"}
    assert sessions.active == 2
    for header in (second, third):
        assert await sessions.running("", "", header.session_id) is not None
    await sessions.aclose()


async def test_who_left_a_moment_ago_keeps_the_place() -> None:
    """A reader whose connection broke is back within seconds."""
    sessions = open_sessions(max_active=1)
    header = await opened(sessions, "a")
    with pytest.raises(Overloaded):
        await opened(sessions, "b")
    assert await sessions.running("", "", header.session_id) is not None
    await sessions.aclose()


async def test_who_is_followed_never_gives_way(at_once: None) -> None:
    sessions = open_sessions(max_active=1)
    source = Source()
    source.put(Draft("", "a"))
    header = await sessions.start("k", source, linger_s=3600.0)
    async with aclosing(sessions.follow(header)) as events:
        await anext(events)
        with pytest.raises(Overloaded):
            await opened(sessions, "b")
    await opened(sessions, "b")
    await sessions.aclose()


async def test_what_needs_no_followers_never_gives_way(at_once: None) -> None:
    """An article job goes on by itself (S3): nobody has abandoned it."""
    sessions = open_sessions(max_active=1)
    await opened(sessions, "a", linger_s=None)
    with pytest.raises(Overloaded):
        await opened(sessions, "b")
    await sessions.aclose()


async def test_a_client_at_its_limit_takes_the_place_of_its_own_abandoned_run(
    at_once: None,
) -> None:
    sessions = open_sessions(max_active=8, max_active_per_client=1)
    others = await opened(sessions, "b")
    first = await opened(sessions, "a")
    await opened(sessions, "a")
    assert (await last_event(sessions, first)).data == {"code": "cancelled"}
    assert await sessions.running("", "", others.session_id) is not None
    await sessions.aclose()


async def test_requests_that_come_at_once_each_take_a_place_of_their_own(at_once: None) -> None:
    """No two of them get the place of the same abandoned run."""
    sessions = open_sessions(max_active=3)
    for _ in range(3):
        await opened(sessions, "gone")
    outcomes = await asyncio.gather(
        *(opened(sessions, f"c{n}", None) for n in range(5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Header) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 2
    await sessions.aclose()


async def test_the_time_to_come_again_is_that_until_a_session_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = open_sessions(max_active=2)
    held = sessions._admission
    for duration_s in (50.0, 70.0):
        held.record(duration_s)
    for name in "ab":
        await opened(sessions, name)
    with pytest.raises(Overloaded) as refused:
        await opened(sessions, "c")
    assert refused.value.retry_after_s == 30
    await sessions.aclose()
