"""Sessions whose log fails: their followers get one error, and the log its terminal event later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest
from structlog.testing import capture_logs

from app.core.errors import AppError, GenerationFailed, LogUnavailable, UnknownSession
from app.stream.event import Draft, Event
from app.stream.log import Header
from app.stream.logs.memory import MemoryLog
from app.stream.sessions import Sessions
from tests.stream.test_session import END, WAIT_S, Source, all_events, failure, texts

NO_LOG = LogUnavailable("the log is away")


class BrokenLog(MemoryLog):
    """A memory log that raises what it is given, and knows what it was to forget."""

    def __init__(self) -> None:
        super().__init__()
        self.append_failure: Exception | None = None
        self.open_failure: Exception | None = None
        self.forgotten: list[str] = []
        self.kept_events: list[Event] = []

    async def open(self, header: Header, *, shared: bool = False) -> Header:
        if self.open_failure is not None:
            raise self.open_failure
        return await super().open(header, shared=shared)

    async def append(self, run: str, drafts: Sequence[Draft]) -> int:
        if self.append_failure is not None:
            raise self.append_failure
        return await super().append(run, drafts)

    def forget(self, run: str) -> None:
        """Wake the followers as a durable log does, whose store still has the run."""
        self.forgotten.append(run)
        self._runs[run].wake()


def open_sessions(log: BrokenLog) -> Sessions:
    return Sessions(log, endings={"k": failure})


@pytest.mark.parametrize(
    ("append_failure", "message"),
    [(NO_LOG, NO_LOG.message), (RuntimeError("secret"), "the server can no longer keep")],
)
async def test_followers_of_a_session_that_cannot_be_written_get_one_error(
    append_failure: Exception, message: str
) -> None:
    log = BrokenLog()
    sessions = open_sessions(log)
    source = Source()
    header = await sessions.start("k", source)
    following = asyncio.create_task(all_events(sessions, header))
    await asyncio.sleep(0)
    log.append_failure = append_failure
    with capture_logs() as lines:
        source.put(GenerationFailed("no"))
        with pytest.raises(LogUnavailable, match=message):
            await following
        await asyncio.wait_for(sessions.wait_stopped(header), WAIT_S)
    assert log.forgotten == [header.run]
    failed = [line for line in lines if line["event"] == "session_end_not_written"]
    assert [line["error"] for line in failed] == [type(append_failure).__name__]
    assert "secret" not in repr(lines)


async def test_a_snapshot_of_a_session_that_lost_its_run_raises_why() -> None:
    """A client that polls gets the same error as one that follows."""

    class Slow(BrokenLog):
        reading, read_on = asyncio.Event(), asyncio.Event()

        async def read(self, run: str, after: int, limit: int = 256):  # type: ignore[no-untyped-def]
            self.reading.set()
            await self.read_on.wait()
            raise UnknownSession("lost")

    log = Slow()
    sessions = open_sessions(log)
    source = Source()
    header = await sessions.start("k", source)
    polling = asyncio.create_task(sessions.snapshot(header))
    await asyncio.wait_for(log.reading.wait(), WAIT_S)
    log.append_failure = NO_LOG
    source.put(Draft("", "a"))
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    log.read_on.set()
    with pytest.raises(LogUnavailable) as raised:
        await asyncio.wait_for(polling, WAIT_S)
    assert raised.value is NO_LOG
    with pytest.raises(UnknownSession):
        await sessions.snapshot(Header("r9", "s9", "k", "", ""))
    await sessions.aclose()


async def test_an_ending_that_could_not_be_written_is_written_later_once() -> None:
    """Rule 2: exactly one terminal event, whatever happens."""
    log = BrokenLog()
    sessions = open_sessions(log)
    source = Source()
    header = await sessions.start("k", source, session_id="mine")
    source.put(Draft("", "a"))
    log.append_failure = NO_LOG
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    await asyncio.wait_for(sessions.wait_stopped(header), WAIT_S)
    with pytest.raises(LogUnavailable):
        await sessions.recover()
    log.append_failure = None
    await sessions.recover()
    assert [event.data for event in await all_events(sessions, header)] == [
        {"code": "log_unavailable"}
    ]
    log.append_failure = AssertionError("it is written once")
    await sessions.recover()
    await sessions.aclose()


async def test_a_run_that_the_log_lost_is_not_written_later() -> None:
    log = BrokenLog()
    sessions = open_sessions(log)
    source = Source()
    header = await sessions.start("k", source)
    log.append_failure = UnknownSession("lost")
    source.put(Draft("", "a"))
    await asyncio.wait_for(source.closed.wait(), WAIT_S)
    await asyncio.wait_for(sessions.wait_stopped(header), WAIT_S)
    log.append_failure = AssertionError("nothing is to be written")
    await sessions.recover()
    await sessions.aclose()


@pytest.mark.parametrize("open_failure", [NO_LOG, RuntimeError("secret")])
async def test_a_session_that_cannot_be_opened_leaves_its_id_free(open_failure: Exception) -> None:
    log = BrokenLog()
    sessions = open_sessions(log)
    log.open_failure = open_failure
    source = Source()
    with capture_logs() as lines, pytest.raises(LogUnavailable) as refused:
        await sessions.start("k", source, session_id="mine")
    assert "secret" not in refused.value.message
    defect = isinstance(open_failure, RuntimeError)
    assert [line["event"] for line in lines] == ["session_not_opened"] * defect
    log.open_failure = None
    again = Source()
    again.put(Draft("", "new"), END)
    header = await sessions.start("k", again, session_id="mine", fingerprint="f")
    assert texts(await all_events(sessions, header)) == ["new"]
    assert source.started == 0
    await sessions.aclose()


async def test_a_session_that_another_process_ended_writes_nothing_more() -> None:
    """Rule 2: that process believed this one dead; its terminal event stays the only one."""
    log = BrokenLog()
    sessions = open_sessions(log)
    source = Source()
    header = await sessions.start("k", source, session_id="mine")
    await log.append(header.run, [Draft("error", {"code": "interrupted"}, terminal=True)])
    with capture_logs() as lines:
        # The first one only gets the index of the terminal event, which could be its own.
        source.put(Draft("", "late"), Draft("", "later"))
        await asyncio.wait_for(source.closed.wait(), WAIT_S)
        await asyncio.wait_for(sessions.wait_stopped(header), WAIT_S)
    assert [event.data for event in await all_events(sessions, header)] == [{"code": "interrupted"}]
    ended = [line for line in lines if line["event"] == "session_ended"]
    assert [(line["session_id"], line["kind"], line["code"]) for line in ended] == [
        ("mine", "k", None)
    ]
    await sessions.aclose()


async def test_a_session_that_joins_one_of_another_process_starts_no_generator() -> None:
    log = BrokenLog()
    sessions = open_sessions(log)
    theirs = Header("r1", "s1", "k", "", "f")
    await log.open(theirs, shared=True)
    source = Source()
    joined = await sessions.start("k", source, fingerprint="f")
    assert joined == theirs
    assert source.started == 0
    await log.append("r1", [Draft("", "a"), END])
    assert texts(await all_events(sessions, joined)) == ["a"]
    await sessions.aclose()
    assert sessions.active == 0


async def test_an_ending_of_its_own_replaces_that_of_the_kind() -> None:
    sessions = open_sessions(BrokenLog())

    def ending(error: AppError) -> list[Draft]:
        return [Draft("", "last words"), Draft("error", {"own": error.code}, terminal=True)]

    async def silent() -> AsyncGenerator[Draft, None]:
        return
        yield

    events = await all_events(sessions, await sessions.start("k", silent, ending=ending))
    assert [event.data for event in events] == ["last words", {"own": "internal_error"}]
    await sessions.aclose()
