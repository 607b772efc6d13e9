"""The log in Redis: what happens when it goes away, forgets, fills up or hangs."""

from __future__ import annotations

import asyncio
import signal
from contextlib import aclosing

import pytest

from app.core.errors import EventsGone, LogUnavailable, UnknownSession
from app.stream.event import Event
from app.stream.log import Header
from app.stream.logs.open import open_log
from app.stream.logs.redis import KEPT_EVENTS, RedisLog
from app.stream.sessions import Sessions
from tests.redis_server import RedisServer, redis_server, redis_url, running_redis
from tests.stream.logs.test_durable import END, WAIT_S, follow, header, open_server, text
from tests.stream.test_session import Source, all_events, texts

__all__ = ["redis_server", "redis_url"]


async def test_redis_may_stop_and_come_back_without_a_restart() -> None:
    """A stream ends with an error, the run gets its end later, and what comes next works."""
    with running_redis() as server:
        sessions = open_server(server.url)
        async with asyncio.TaskGroup() as group:
            maintaining = group.create_task(sessions.maintain())
            source = Source()
            started_header = await sessions.start("k", source, session_id="mine")
            source.put(text("a"))
            async with aclosing(sessions.follow(started_header)) as events:
                assert (await asyncio.wait_for(anext(events), WAIT_S)).data == "a"
                server.stop()
                source.put(text("b"))
                with pytest.raises(LogUnavailable):
                    await asyncio.wait_for(anext(events), WAIT_S)
            with pytest.raises(LogUnavailable):
                await sessions.start("k", Source())
            server.start()
            seen = await ended(sessions, started_header)
            assert [event.data for event in seen] == ["a", {"code": "log_unavailable"}]
            again = Source()
            again.put(text("new"), END)
            started_header = await sessions.start("k", again, session_id="mine")
            assert texts(await all_events(sessions, started_header)) == ["new"]
            maintaining.cancel()
        await sessions.aclose()


async def ended(sessions: Sessions, of: Header) -> list[Event]:
    """Follow a run to its end, again and again while its log is away."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await all_events(sessions, of)
            except LogUnavailable:
                await asyncio.sleep(0)


async def test_a_redis_that_lost_everything_knows_no_session(redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    log = open_log(redis_server.url)
    await log.open(header())
    await log.append("r1", [text("a")])
    redis_server.ask("FLUSHALL")
    redis_server.ask("SCRIPT FLUSH")
    with pytest.raises(UnknownSession):
        await log.append("r1", [text("b")])
    with pytest.raises(UnknownSession):
        await log.read("r1", 0)
    assert await log.open(header("r2")) == header("r2")
    await log.aclose()


async def test_scripts_that_redis_forgot_are_sent_again(
    redis_server: RedisServer, redis_url: str
) -> None:
    ours, theirs = open_log(redis_url), open_log(redis_url)
    for run in ("r1", "r2"):
        await ours.open(header(run, f"s-{run}"))
    for number in range(3):
        redis_server.ask("SCRIPT FLUSH")
        await asyncio.gather(*(ours.append(run, [text(str(number))]) for run in ("r1", "r2")))
    for run in ("r1", "r2"):
        events = (await theirs.read(run, -1)).events
        assert [event.data for event in events] == ["0", "1", "2"]
    for log in (ours, theirs):
        await log.aclose()


async def test_events_over_the_bound_of_a_stream_are_gone(redis_url: str) -> None:
    """Contract 3: an index that is no longer kept is 410."""
    ours, theirs = open_log(redis_url), open_log(redis_url)
    await ours.open(header())
    for start in range(0, KEPT_EVENTS + 1000, 8000):
        await ours.append("r1", [text(str(number)) for number in range(start, start + 8000)])
    for log in (ours, theirs):
        with pytest.raises(EventsGone) as gone:
            await log.read("r1", -1)
        assert gone.value.status == 410
        page = await log.read("r1", 71_000, limit=2)
        assert [event.data for event in page.events] == ["71001", "71002"]
        await log.aclose()


async def test_a_full_redis_refuses_events_and_takes_them_again_when_there_is_room(
    redis_server: RedisServer, redis_url: str
) -> None:
    log = open_log(redis_url)
    await log.open(header())
    await log.append("r1", [text("a")])
    redis_server.ask("CONFIG SET maxmemory 1")
    try:
        with pytest.raises(LogUnavailable, match="maxmemory"):
            await log.append("r1", [text("lost")])
        assert [event.data for event in (await log.read("r1", -1)).events] == ["a"]
    finally:
        redis_server.ask("CONFIG SET maxmemory 0")
    assert await log.append("r1", [END]) == 1
    assert [event.data for event in await follow(log, "r1")] == ["a", END.data]
    await log.aclose()


async def test_a_redis_that_hangs_is_an_error_and_what_it_did_later_blocks_nothing() -> None:
    """No answer does not mean that nothing was done: the id must not stay taken by nobody."""
    with running_redis() as server:
        log = open_log(server.url)
        await log.open(header())
        server.signal(signal.SIGSTOP)
        try:
            steps = log.append("r1", [text("a")]), log.open(header("r2", "s2"))
            async with asyncio.timeout(8):
                outcomes = await asyncio.gather(*steps, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [LogUnavailable] * 2
        finally:
            server.signal(signal.SIGCONT)
        assert await log.open(header("r3", "s2")) == header("r2", "s2")
        assert await log.heartbeat() == [header("r2", "s2")]
        assert await log.append("r2", [END]) == 0
        assert await log.heartbeat() == []
        assert await log.open(header("r4", "s2")) == header("r4", "s2")
        await log.aclose()


async def test_what_runs_does_not_expire_and_what_everybody_left_does(
    redis_server: RedisServer, redis_url: str
) -> None:
    """A run that no process is left to end does not stay for ever."""
    log = open_log(redis_url)
    await log.open(header(fingerprint="f"), shared=True)
    await log.append("r1", [text("a")])
    for key in redis_server.kept():
        redis_server.ask(f"EXPIRE {key} 100")
    await log.heartbeat()
    lives_s = {key: redis_server.lives_s(key) for key in redis_server.kept()}
    assert len(lives_s) == 6
    process = [key for key in lives_s if ":process:" in key]
    assert [0 < lives_s.pop(key) <= 8 for key in process] == [True]
    assert all(80_000 < life_s <= 86_400 for life_s in lives_s.values()), lives_s
    await log.append("r1", [END])
    assert await log.sweep(0) == 1
    assert [key for key in redis_server.kept() if "process" not in key] == []
    await log.aclose()


async def test_listeners_that_are_cancelled_lose_nothing_for_the_others(redis_url: str) -> None:
    """One asks Redis for all of them; when it goes, another one does."""
    ours, theirs = open_log(redis_url), open_log(redis_url)
    await ours.open(header())
    staying = asyncio.create_task(follow(theirs, "r1"))
    for number in range(40):
        leaving = [asyncio.create_task(follow(theirs, "r1")) for _ in range(3)]
        # Some are cancelled before they listen, some while they do.
        for _ in range(5 * number):
            await asyncio.sleep(0)
        await ours.append("r1", [text(str(number))])
        for task in leaving:
            task.cancel()
    await ours.append("r1", [END])
    events = await asyncio.wait_for(staying, WAIT_S)
    assert [event.data for event in events] == [*map(str, range(40)), END.data]
    for log in (ours, theirs):
        await log.aclose()


async def listened_to(server: RedisServer) -> None:
    """Wait until somebody listens for events of a run."""
    async with asyncio.timeout(WAIT_S):
        while b"cmd=xread" not in await asyncio.to_thread(server.ask, "CLIENT LIST"):
            pass


async def test_a_run_that_is_swept_ends_those_who_still_wait_for_it(
    redis_server: RedisServer, redis_url: str
) -> None:
    ours, theirs = open_log(redis_url), open_log(redis_url)
    await ours.open(header())
    following = [asyncio.create_task(follow(theirs, "r1")) for _ in range(5)]
    await listened_to(redis_server)
    await ours.append("r1", [END])
    await ours.sweep(0)
    for outcome in await asyncio.gather(*following, return_exceptions=True):
        assert isinstance(outcome, UnknownSession) or len(outcome) == 1
    await ours.aclose()
    await theirs.aclose()


async def test_what_redis_lost_is_not_given_from_memory_for_ever(
    redis_server: RedisServer, redis_url: str
) -> None:
    ours, theirs = open_log(redis_url), open_log(redis_url)
    await ours.open(header())
    following = [asyncio.create_task(follow(theirs, "r1")) for _ in range(5)]
    await listened_to(redis_server)
    await ours.append("r1", [text("a")])
    await theirs.wait("r1", -1, WAIT_S)
    redis_server.ask("FLUSHALL")
    for outcome in await asyncio.gather(*following, return_exceptions=True):
        assert isinstance(outcome, UnknownSession)
    with pytest.raises(UnknownSession):
        await theirs.read("r1", -1)
    for log in (ours, theirs):
        await log.aclose()


async def test_a_wrong_password_is_refused_without_showing_it(
    redis_server: RedisServer,
) -> None:
    log = RedisLog(redis_server.url.replace("redis://", "redis://:hunter2@"))
    with pytest.raises(LogUnavailable, match="SESSIONS_URL") as refused:
        await log.open(header())
    assert "hunter2" not in refused.value.message
    await log.aclose()
