"""What runs beside the requests: stop requests, heartbeats, leases, a log that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

import pytest
from structlog.testing import capture_logs

from app.core.errors import Interrupted, LogUnavailable
from app.stream.event import Draft
from app.stream.followers import Followers
from app.stream.log import Header
from app.stream.logs.memory import MemoryLog
from app.stream.maintenance import repeat_forever
from app.stream.sessions import Sessions
from tests.stream.test_session import END, WAIT_S, Source, all_events, failure


class SharedLog(MemoryLog):
    """A memory log with another process, which the test plays."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: asyncio.Queue[list[str]] = asyncio.Queue()
        self.renewals: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
        self.lease: float | Exception = float("-inf")
        self.lease_reads = 0
        self.renewal_failure: Exception | None = None

    async def stop_requests(self, timeout_s: float) -> list[str]:
        return await self.requests.get()

    async def renew_lease(self, run: str, for_s: float) -> None:
        self.renewals.put_nowait((run, for_s))
        if self.renewal_failure is not None:
            raise self.renewal_failure

    async def lease_left_s(self, run: str) -> float:
        self.lease_reads += 1
        lease, self.lease = self.lease, float("-inf")
        if isinstance(lease, Exception):
            raise lease
        return lease


@asynccontextmanager
async def maintained(log: MemoryLog) -> AsyncIterator[Sessions]:
    sessions = Sessions(log, endings={"k": failure})
    maintaining = asyncio.create_task(sessions.maintain())
    async with asyncio.timeout(WAIT_S):
        yield sessions
    maintaining.cancel()
    await asyncio.wait({maintaining})
    await sessions.aclose()


async def test_a_stop_request_of_another_process_cancels_that_session_only() -> None:
    """Contract 3: cancel works on any process."""
    log = SharedLog()
    async with maintained(log) as sessions:
        stopped, other = Source(), Source()
        header = await sessions.start("k", stopped)
        await sessions.start("k", other)
        log.requests.put_nowait(["unknown", header.run])
        events = await all_events(sessions, header)
        assert [event.data for event in events] == [{"code": "cancelled"}]
        assert not other.closed.is_set()


async def test_a_session_of_another_process_is_asked_to_stop_through_the_log() -> None:
    """Contract 3: cancel works on any process; what runs here needs no detour."""

    class Asked(SharedLog):
        def __init__(self) -> None:
            super().__init__()
            self.asked: list[tuple[str, str]] = []

        async def request_stop(self, owner: str, session_id: str) -> None:
            self.asked.append((owner, session_id))

    log = Asked()
    sessions = Sessions(log, endings={"k": failure})
    await sessions.start("k", Source(), session_id="here")
    await sessions.cancel("anna", "elsewhere")
    await sessions.cancel("", "here")
    assert log.asked == [("anna", "elsewhere")]
    await sessions.aclose()


async def test_a_followed_run_of_another_process_has_its_lease_renewed() -> None:
    log = SharedLog()
    elsewhere = Header("r1", "s1", "k", "", "")
    await log.open(elsewhere)
    await log.append("r1", [Draft("", "a")])
    log.renewal_failure = LogUnavailable("away")
    with capture_logs() as lines:
        async with (
            maintained(log) as sessions,
            aclosing(sessions.follow(elsewhere)) as events,
        ):
            await anext(events)
            # Once by the follower, then by heartbeats, whether or not the log could take it.
            renewals = [await log.renewals.get() for _ in range(2)]
    assert renewals == [("r1", 3.0)] * 2
    failed = [line["log_level"] for line in lines if line["event"] == "lease_not_renewed"]
    assert failed == ["warning"] * 2


async def test_only_the_first_follower_here_of_a_run_elsewhere_renews_its_lease() -> None:
    log = SharedLog()
    elsewhere = Header("r1", "s1", "k", "", "")
    await log.open(elsewhere)
    await log.append("r1", [Draft("", "a")])
    followers = Followers(log, {})
    async with aclosing(followers.events("r1", -1)) as first:
        await anext(first)
        assert log.renewals.qsize() == 1
        async with aclosing(followers.events("r1", -1)) as second:
            await anext(second)
        assert len(await followers.snapshot("r1")) == 1
        assert log.renewals.qsize() == 1
        # It counts as long as one of them is there, and no longer.
        await followers.renew_leases()
        assert log.renewals.qsize() == 2
    await followers.renew_leases()
    assert log.renewals.qsize() == 2
    await followers.snapshot("r1")
    assert log.renewals.qsize() == 3
    await followers.renew_leases()
    assert log.renewals.qsize() == 3


async def test_a_session_of_this_process_needs_no_lease() -> None:
    log = SharedLog()
    sessions = Sessions(log, endings={"k": failure})
    source = Source()
    header = await sessions.start("k", source)
    source.put(Draft("", "a"))
    async with aclosing(sessions.follow(header)) as events:
        await anext(events)
        assert len(await sessions.snapshot(header)) == 1
    assert log.renewals.empty()
    await sessions.aclose()


@pytest.mark.parametrize("lease_s", [0.05, -0.001])
async def test_a_session_lingers_after_its_lease_in_another_process(lease_s: float) -> None:
    """S1.30: only when the last follower has left, wherever it was."""
    log = SharedLog()
    log.lease = lease_s
    sessions = Sessions(log, endings={"k": failure})
    source = Source()
    header = await sessions.start("k", source, linger_s=0.05)
    source.put(Draft("", "a"))
    async with aclosing(sessions.follow(header)) as events:
        await anext(events)
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    assert log.lease_reads == 2
    await sessions.aclose()


async def test_followers_that_come_and_go_leave_one_timer() -> None:
    """Or the session would end a linger time after the first of them had left."""
    log = SharedLog()
    sessions = Sessions(log, endings={"k": failure})
    source = Source()
    header = await sessions.start("k", source, linger_s=0.05)
    for _ in range(5):
        await sessions.snapshot(header)
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    await sessions.wait_stopped(header)
    assert log.lease_reads == 1
    await sessions.aclose()


async def test_a_session_whose_lease_cannot_be_read_expires() -> None:
    log = SharedLog()
    log.lease = LogUnavailable("away")
    sessions = Sessions(log, endings={"k": failure})
    source = Source()
    header = await sessions.start("k", source, linger_s=0.01)
    source.put(Draft("", "a"))
    with capture_logs() as lines:
        async with aclosing(sessions.follow(header)) as events:
            await anext(events)
        await asyncio.wait_for(source.closed.wait(), WAIT_S)
    assert log.lease_reads == 1
    assert [line["error"] for line in lines if line["event"] == "lease_not_read"] == [
        "LogUnavailable"
    ]
    await sessions.aclose()


async def test_a_session_without_a_linger_time_ends_with_its_last_follower() -> None:
    sessions = Sessions(MemoryLog(), endings={"k": failure})
    source = Source()
    header = await sessions.start("k", source, linger_s=0.0)
    assert await sessions.running("", "", header.session_id) == header
    assert await sessions.snapshot(header) == []
    events = await all_events(sessions, header)
    assert [event.data for event in events] == [{"code": "cancelled"}]
    await sessions.aclose()


async def test_a_stopping_server_takes_no_new_session() -> None:
    sessions = Sessions(MemoryLog(), endings={"k": failure})
    await sessions.end_all()
    with pytest.raises(Interrupted) as refused:
        await sessions.start("k", Source())
    assert refused.value.retry_after_s == 5
    await sessions.aclose()


async def test_stopping_does_not_wait_for_ever_for_a_model() -> None:
    stopped = asyncio.Event()

    async def stubborn():  # type: ignore[no-untyped-def]
        try:
            yield Draft("", "a")
            await asyncio.Event().wait()
        finally:
            await stopped.wait()

    sessions = Sessions(MemoryLog(), endings={"k": failure})
    header = await sessions.start("k", stubborn)
    async with aclosing(sessions.follow(header)) as events:
        await anext(events)
    with capture_logs() as lines:
        await asyncio.wait_for(sessions.end_all(timeout_s=0.01), WAIT_S)
    late = [line for line in lines if line["event"] == "sessions_still_stopping"]
    assert [line["count"] for line in late] == [1]
    stopped.set()
    await sessions.aclose()


async def repeated(step: Callable[[], Awaitable[None]]) -> list[str]:
    """Repeat a step until it says `done`; return what was logged."""
    with capture_logs() as lines, pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(repeat_forever(step, 0.0, retry_s=0.0), WAIT_S)
    return [str(line["event"]) for line in lines]


async def test_a_log_that_comes_and_goes_is_reported_once_each_time() -> None:
    away = LogUnavailable("away")
    outcomes = iter([None, away, away, None, None, away, None, asyncio.CancelledError()])

    async def step() -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome

    assert await repeated(step) == ["event_log_unavailable", "event_log_available_again"] * 2


async def test_a_step_with_a_defect_is_logged_and_repeated() -> None:
    outcomes = iter([ValueError("defect"), None, asyncio.CancelledError()])

    async def step() -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome

    assert await repeated(step) == ["maintenance_failed", "event_log_available_again"]


@pytest.mark.parametrize("failing", [True, False])
async def test_the_pause_after_a_failure_is_its_own(failing: bool) -> None:
    outcomes = iter([LogUnavailable("away") if failing else None, asyncio.CancelledError()])

    async def step() -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome

    pauses = {"pause_s": 3600.0, "retry_s": 0.0} if failing else {"pause_s": 0.0, "retry_s": 3600.0}
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(repeat_forever(step, **pauses), WAIT_S)


async def test_an_ended_session_is_swept_after_its_ttl() -> None:
    kept, swept = (Sessions(MemoryLog(), endings={}, ttl_s=ttl_s) for ttl_s in (600.0, 0.0))
    for sessions in (kept, swept):
        source = Source()
        source.put(END)
        await all_events(sessions, await sessions.start("k", source))
    assert (await kept.sweep(), await swept.sweep()) == (0, 1)
    for sessions in (kept, swept):
        await sessions.aclose()
