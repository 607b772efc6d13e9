"""Sessions on the memory log, without HTTP."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.core.errors import AppError, GenerationFailed, Overloaded, SessionBusy
from app.stream.event import Draft, Event
from app.stream.log import Header
from app.stream.logs.memory import MemoryLog
from app.stream.sessions import Sessions

WAIT_S = 5.0
END = Draft("result", "", terminal=True)
Generator = Callable[[], AsyncGenerator[Draft, None]]


def failure(error: AppError, last: Event | None = None) -> Draft:
    return Draft("error", {"code": error.code}, terminal=True)


def open_sessions(**options: object) -> Sessions:
    return Sessions(MemoryLog(), endings={"k": failure}, **options)  # type: ignore[arg-type]


@pytest.fixture
async def sessions(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Sessions]:
    opened = open_sessions()
    yield opened
    await opened.aclose()
    assert opened.active == 0
    # A task whose exception nobody reads is only reported when it is freed.
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


class Source:
    """A generator that gives what is put in, and knows whether it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Draft | Exception] = asyncio.Queue()
        self.started = 0
        self.closed = asyncio.Event()

    def __call__(self) -> AsyncGenerator[Draft, None]:
        return self._drafts()

    async def _drafts(self) -> AsyncGenerator[Draft, None]:
        self.started += 1
        try:
            while True:
                item = await self.queue.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed.set()

    def put(self, *items: Draft | Exception) -> None:
        for item in items:
            self.queue.put_nowait(item)


async def all_events(sessions: Sessions, header: Header, after: int = -1) -> list[Event]:
    async with asyncio.timeout(WAIT_S), aclosing(sessions.follow(header, after)) as events:
        return [event async for event in events]


def cleanup_failures(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return session and error of each clean-up that was logged as failed."""
    return [
        (line["session_id"], line["error"])
        for line in lines
        if line["event"] == "session_cleanup_failed" and line["log_level"] == "warning"
    ]


def texts(events: list[Event]) -> list[object]:
    return [event.data for event in events if not event.terminal]


async def test_followers_see_everything_wherever_they_join(sessions: Sessions) -> None:
    """Contract 3: a second follower; rule 3: one loop for replay and live."""
    source = Source()
    header = await sessions.start("k", source)
    source.put(Draft("", "a"), Draft("", "b"))
    first = asyncio.create_task(all_events(sessions, header))
    await asyncio.sleep(0)
    second = asyncio.create_task(all_events(sessions, header, 0))
    source.put(Draft("", "c"), END)
    assert texts(await first) == ["a", "b", "c"]
    assert texts(await second) == ["b", "c"]
    assert texts(await all_events(sessions, header)) == ["a", "b", "c"]
    assert source.started == 1


async def test_a_cursor_at_the_end_of_an_ended_session_ends_at_once(sessions: Sessions) -> None:
    source = Source()
    source.put(END)
    header = await sessions.start("k", source)
    assert len(await all_events(sessions, header)) == 1
    assert await all_events(sessions, header, 0) == []


@pytest.mark.parametrize(
    ("thrown", "code"),
    [(GenerationFailed("no"), "generation_failed"), (RuntimeError("no"), "internal_error")],
)
async def test_a_failing_generator_ends_in_one_error_event(
    sessions: Sessions, thrown: Exception, code: str
) -> None:
    """Rule 2, S1.26."""
    source = Source()
    source.put(Draft("", "a"), thrown)
    events = await all_events(sessions, await sessions.start("k", source))
    assert [e.terminal for e in events] == [False, True]
    assert events[-1].data == {"code": code}


async def test_a_session_is_logged_from_its_start_to_its_end(sessions: Sessions) -> None:
    source = Source()
    source.put(GenerationFailed("no"))
    with capture_logs() as lines:
        await all_events(sessions, await sessions.start("k", source, session_id="mine"))
    assert [(line["event"], line["session_id"], line["kind"]) for line in lines] == [
        ("session_started", "mine", "k"),
        ("session_ended", "mine", "k"),
    ]
    assert lines[-1]["code"] == "generation_failed"


async def test_a_defect_of_a_generator_is_logged_with_its_traceback(sessions: Sessions) -> None:
    source = Source()
    defect = RuntimeError("no")
    source.put(defect)
    with capture_logs() as lines:
        await all_events(sessions, await sessions.start("k", source, session_id="mine"))
    failed = [line for line in lines if line["event"] == "session_failed"]
    assert [(line["log_level"], line["session_id"], line["exc_info"]) for line in failed] == [
        ("error", "mine", defect)
    ]


async def test_a_generator_that_just_stops_ends_in_an_error(sessions: Sessions) -> None:
    async def silent() -> AsyncGenerator[Draft, None]:
        yield Draft("", "a")

    with capture_logs() as lines:
        events = await all_events(sessions, await sessions.start("k", silent))
    assert events[-1].data == {"code": "internal_error"}
    causes = [line["exc_info"] for line in lines if line["event"] == "session_failed"]
    assert [type(cause) for cause in causes] == [RuntimeError]


async def test_a_generator_that_is_cancelled_from_outside_ends_interrupted(
    sessions: Sessions,
) -> None:
    """Rule 2: whoever cancels it, there is one terminal event."""

    async def cancelled() -> AsyncGenerator[Draft, None]:
        yield Draft("", "a")
        raise asyncio.CancelledError

    events = await all_events(sessions, await sessions.start("k", cancelled))
    assert [event.data for event in events] == ["a", {"code": "interrupted"}]


async def test_cancel_closes_the_generator_and_ends_the_log_once(sessions: Sessions) -> None:
    """S1.25, S1.32, rule 5."""
    source = Source()
    header = await sessions.start("k", source, session_id="mine")
    source.put(Draft("", "a"))
    following = asyncio.create_task(all_events(sessions, header))
    await asyncio.sleep(0)
    await sessions.cancel("", "mine")
    await sessions.cancel("", "mine")
    events = await following
    assert [e.data for e in events if e.terminal] == [{"code": "cancelled"}]
    await asyncio.wait_for(source.closed.wait(), WAIT_S)


async def test_a_session_cancelled_before_its_first_step_still_ends(sessions: Sessions) -> None:
    """Rule 2: a task cancelled before its first step never runs its `finally` (measured)."""
    source = Source()
    starting = asyncio.create_task(sessions.start("k", source, session_id="mine"))
    await asyncio.sleep(0)
    await sessions.cancel("", "mine")
    events = await all_events(sessions, await starting)
    assert [e.data for e in events] == [{"code": "cancelled"}]


async def test_cancel_does_not_wait_for_a_model_that_is_slow_to_stop(sessions: Sessions) -> None:
    """Contract 3: the log ends; the place stays taken until the model has really stopped."""
    writing, stopping, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> AsyncGenerator[Draft, None]:
        try:
            yield Draft("", "a")
            writing.set()
            await asyncio.Event().wait()
        finally:
            stopping.set()
            await stopped.wait()

    header = await sessions.start("k", stubborn, session_id="mine")
    following = asyncio.create_task(all_events(sessions, header))
    await asyncio.wait_for(writing.wait(), WAIT_S)
    await sessions.cancel("", "mine")
    assert (await following)[-1].data == {"code": "cancelled"}
    await asyncio.wait_for(stopping.wait(), WAIT_S)
    assert sessions.active == 1
    stopped.set()


async def test_a_cancelled_id_may_start_afresh(sessions: Sessions) -> None:
    """Pitfall: a cancelled session id stayed cancelled for ever."""
    old, new = Source(), Source()
    await sessions.start("k", old, session_id="mine", fingerprint="one")
    await sessions.cancel("", "mine")
    new.put(Draft("", "new"), END)
    header = await sessions.start("k", new, session_id="mine", fingerprint="two")
    assert texts(await all_events(sessions, header)) == ["new"]


async def test_the_same_request_is_one_session(sessions: Sessions) -> None:
    """Contract 3: asked for twice at once, generated once."""
    source, other = Source(), Source()
    first = await sessions.start("k", source, fingerprint="f")
    second = await sessions.start("k", other, fingerprint="f")
    assert first == second
    assert other.started == 0


async def test_one_owners_session_is_not_anothers(sessions: Sessions) -> None:
    """Contract 3, pitfall: anyone could replay or cancel another's session by id."""
    source = Source()
    await sessions.start("k", source, owner="anna", session_id="mine", fingerprint="f")
    assert await sessions.find("bert", "mine") is None
    await sessions.cancel("bert", "mine")
    other = Source()
    header = await sessions.start("k", other, owner="bert", session_id="mine", fingerprint="f")
    other.put(END)
    await all_events(sessions, header)
    assert sessions.active >= 1
    assert not source.closed.is_set()


async def test_an_id_that_runs_something_else_is_busy(sessions: Sessions) -> None:
    await sessions.start("k", Source(), session_id="mine", fingerprint="f")
    with pytest.raises(SessionBusy):
        await sessions.start("k", Source(), session_id="mine", fingerprint="g")


async def test_the_last_follower_to_leave_starts_the_timer_and_a_new_one_stops_it(
    sessions: Sessions,
) -> None:
    """S1.30, S2.12, S4.14."""
    source = Source()
    header = await sessions.start("k", source, linger_s=0.2)
    source.put(Draft("", "a"))
    for _ in range(2):
        async with aclosing(sessions.follow(header)) as events:
            await anext(events)
    async with aclosing(sessions.follow(header)) as events:
        await anext(events)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(source.closed.wait()), 0.4)
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    assert (await all_events(sessions, header))[-1].data == {"code": "cancelled"}


async def test_without_a_linger_time_a_session_outlives_its_followers(sessions: Sessions) -> None:
    """Contract 3: 0 = never."""
    source = Source()
    header = await sessions.start("k", source)
    source.put(Draft("", "a"))
    async with aclosing(sessions.follow(header)) as events:
        await anext(events)
    source.put(Draft("", "b"), END)
    assert texts(await all_events(sessions, header)) == ["a", "b"]


async def test_a_session_that_takes_too_long_ends_with_timeout() -> None:
    """A8: also after a timeout."""

    def message(error: AppError, last: Event | None) -> Draft:
        return Draft("error", {"code": error.code, "error": error.message}, terminal=True)

    sessions = Sessions(MemoryLog(), endings={"k": message}, timeout_s=0.05)
    events = await all_events(sessions, await sessions.start("k", Source()))
    assert events[-1].data == {"code": "timeout", "error": "the answer took longer than 0.05 s"}
    await sessions.aclose()


async def test_over_the_limit_a_reservation_is_refused_and_given_back() -> None:
    """Contract 8: over it 429 before any work."""
    sessions = open_sessions(max_active=2)
    await sessions.start("k", Source())
    async with sessions.reserve():
        with pytest.raises(Overloaded) as full:
            async with sessions.reserve():
                pass
    assert full.value.retry_after_s is not None
    async with sessions.reserve():
        pass
    await sessions.aclose()


async def test_stopping_ends_every_stream_and_leaves_no_task() -> None:
    """Architecture: sessions are closed before uvicorn waits for connections."""
    before = asyncio.all_tasks()
    sessions = open_sessions()
    following = []
    for _ in range(5):
        header = await sessions.start("k", Source())
        following.append(asyncio.create_task(all_events(sessions, header)))
    await asyncio.sleep(0)
    await sessions.end_all()
    for events in await asyncio.gather(*following):
        assert events[-1].data == {"code": "interrupted"}
    assert asyncio.all_tasks() == before


async def test_a_slow_reader_does_not_slow_the_producer(sessions: Sessions) -> None:
    """Rule 8."""
    source = Source()
    header = await sessions.start("k", source)
    async with aclosing(sessions.follow(header)) as asleep:
        source.put(*(Draft("", str(i)) for i in range(1000)), END)
        await anext(asleep)
        events = await all_events(sessions, header)
        assert len(events) == 1001
        rest = [event async for event in asleep]
    assert len(rest) == 1000


async def test_a_time_out_of_somebody_else_is_a_defect_not_a_late_answer(
    sessions: Sessions,
) -> None:
    """Rule 2: whatever the generator raises, there is one terminal event."""
    source = Source()
    source.put(TimeoutError("a socket's"))
    events = await all_events(sessions, await sessions.start("k", source))
    assert [event.data for event in events] == [{"code": "internal_error"}]


async def test_an_ending_that_fails_still_ends_the_stream() -> None:
    """Rule 2."""

    def broken(error: AppError, last: Event | None = None) -> Draft:
        raise KeyError(error.code)

    sessions = Sessions(MemoryLog(), endings={"k": broken})
    source = Source()
    source.put(GenerationFailed("no"))
    with capture_logs() as lines:
        events = await all_events(sessions, await sessions.start("k", source))
    assert [event.terminal for event in events] == [True]
    assert [line["kind"] for line in lines if line["event"] == "ending_failed"] == ["k"]
    await sessions.aclose()


async def test_a_time_out_ends_the_stream_before_the_model_has_stopped() -> None:
    """A8."""
    stopped = asyncio.Event()

    async def stubborn() -> AsyncGenerator[Draft, None]:
        try:
            yield Draft("", "a")
            await asyncio.Event().wait()
        finally:
            await stopped.wait()

    sessions = open_sessions(timeout_s=0.05)
    events = await all_events(sessions, await sessions.start("k", stubborn))
    assert events[-1].data == {"code": "timeout"}
    assert sessions.active == 1
    stopped.set()
    await sessions.aclose()


async def test_clean_up_that_fails_is_logged_without_its_message(
    sessions: Sessions,
) -> None:
    """S1.34: an exception's message may hold what must not be logged."""
    writing = asyncio.Event()

    async def untidy() -> AsyncGenerator[Draft, None]:
        try:
            yield Draft("", "a")
            writing.set()
            await asyncio.Event().wait()
        finally:
            raise ValueError("article text")

    with capture_logs() as lines:
        header = await sessions.start("k", untidy, session_id="mine")
        following = asyncio.create_task(all_events(sessions, header))
        await asyncio.wait_for(writing.wait(), WAIT_S)
        await sessions.cancel("", "mine")
        assert (await following)[-1].data == {"code": "cancelled"}
        await sessions.wait_stopped(header)
    assert cleanup_failures(lines) == [("mine", "ValueError")]
    assert "article text" not in repr(lines)


async def test_a_reserved_place_is_handed_over_to_the_session() -> None:
    """Contract 8: a request takes one place, not two."""
    sessions = open_sessions(max_active=2)
    async with sessions.reserve() as reservation:
        await sessions.start("k", Source(), reservation=reservation)
        async with sessions.reserve():
            pass
    await sessions.aclose()


async def test_the_memory_log_forgets_the_oldest_ended_sessions_over_its_bound() -> None:
    """A client that opens one session after the other does not fill the memory."""
    log = MemoryLog(kept_ended_runs=3)
    for number in range(5):
        await log.open(Header(f"r{number}", f"s{number}", "k", "", ""))
        await log.append(f"r{number}", [END])
    found = [await log.find("", f"s{number}") is not None for number in range(5)]
    assert found == [False, False, True, True, True]


async def test_clean_up_that_fails_after_the_end_is_logged_too(sessions: Sessions) -> None:
    """A task whose exception nobody reads."""

    async def untidy() -> AsyncGenerator[Draft, None]:
        try:
            yield END
        finally:
            raise ValueError("article text")

    with capture_logs() as lines:
        header = await sessions.start("k", untidy)
        assert [event.terminal for event in await all_events(sessions, header)] == [True]
        await sessions.wait_stopped(header)
    assert cleanup_failures(lines) == [(header.session_id, "ValueError")]
    assert "article text" not in repr(lines)


async def test_a_follower_that_leaves_while_it_is_being_announced_counts_no_more() -> None:
    """Contract 3: or the run of another process would never be cancelled for want of followers."""

    class Slow(MemoryLog):
        announced = 0
        heartbeats = 0

        def __init__(self) -> None:
            super().__init__()
            self.reached, self.second_heartbeat = asyncio.Event(), asyncio.Event()

        async def renew_lease(self, run: str, for_s: float) -> None:
            self.announced += 1
            self.reached.set()
            await asyncio.Event().wait()

        async def heartbeat(self) -> list[Header]:
            self.heartbeats += 1
            if self.heartbeats == 2:
                self.second_heartbeat.set()
            return []

    log = Slow()
    sessions = Sessions(log, endings={"k": failure})
    elsewhere = Header("r1", "s1", "k", "", "")
    await log.open(elsewhere)

    async def follow() -> None:
        async with aclosing(sessions.follow(elsewhere)) as events:
            await anext(events)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        follower = group.create_task(follow())
        await log.reached.wait()
        follower.cancel()
        await asyncio.wait({follower})
        maintaining = group.create_task(sessions.maintain())
        await log.second_heartbeat.wait()
        maintaining.cancel()
    assert log.announced == 1
