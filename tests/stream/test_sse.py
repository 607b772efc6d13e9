"""Frames: what the standard's examples and the contracts ask of the encoder."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from app.core.errors import AppError
from app.stream import sse
from app.stream.event import Draft, Event
from app.stream.log import Header
from app.stream.logs.memory import MemoryLog
from app.stream.logs.open import open_log
from app.stream.sessions import Sessions
from app.stream.sse import compact_json, frame, stream_response


def test_a_frame_is_id_event_and_one_data_line() -> None:
    """Contracts 1 and 3."""
    sent = frame(Event(3, "status", {"stage": "queued", "position": 1}), "s:3")
    assert sent == b'id: s:3\nevent: status\ndata: {"stage":"queued","position":1}\n\n'


def test_text_is_sent_verbatim_with_its_leading_space() -> None:
    """Contract 1: a text piece, verbatim."""
    assert frame(Event(0, "", " cut"), "s:0") == b"id: s:0\ndata:  cut\n\n"


@pytest.mark.parametrize("char", ["\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\x00"])
def test_json_never_breaks_a_line(char: str) -> None:
    """A1."""
    text = compact_json({"a": f"x{char}y"})
    assert len(text.splitlines()) == 1
    assert json.loads(text) == {"a": f"x{char}y"}


def test_a_lone_surrogate_does_not_break_the_encoding() -> None:
    assert compact_json({"a": "\ud800"}).encode()


async def test_a_reader_that_fell_behind_gets_one_error() -> None:
    """Rule 8: the producer did not wait for it; it gets one terminal event, without an id."""

    def ending(error: AppError, last: Event | None = None) -> Draft:
        return Draft("error", {"code": error.code}, terminal=True)

    sessions = Sessions(MemoryLog(kept_events=5), endings={"k": ending})

    async def many():  # type: ignore[no-untyped-def]
        for number in range(1000):
            yield Draft("", str(number))
        yield Draft("result", {}, terminal=True)

    header = await sessions.start("k", many)
    body = stream_response(sessions, header).body_iterator
    sent = [part async for part in body]  # type: ignore[union-attr]
    assert sent[-1] == b'event: error\ndata: {"code":"events_gone"}\n\n'
    assert sum(b"event: error" in part or b"event: result" in part for part in sent) == 1
    await sessions.aclose()


@pytest.mark.parametrize("after", [-1, 1, 3])
async def test_a_lost_reader_gets_an_error_that_fits_what_it_has(after: int) -> None:
    """Contract 4: the error of a job has the last progress, to who resumed too."""

    def ending(error: AppError, last: Event | None) -> Draft:
        return Draft("error", {"after": last.index if last else None}, terminal=True)

    sessions = Sessions(MemoryLog(kept_events=5), endings={"k": ending})
    begun, read = asyncio.Event(), asyncio.Event()

    async def many():  # type: ignore[no-untyped-def]
        for number in range(4):
            yield Draft("", str(number))
        begun.set()
        await read.wait()
        # The memory log never suspends, so no reader comes between these.
        for number in range(1000):
            yield Draft("", str(number))
        yield Draft("result", {}, terminal=True)

    async with asyncio.timeout(10):
        header = await sessions.start("k", many)
        await begun.wait()
        body = stream_response(sessions, header, after).body_iterator
        sent = b""
        while after < 3 and b"data: 3\n" not in sent:
            sent += await anext(body)  # type: ignore[arg-type,operator]
        rest = asyncio.create_task(anext(body))  # type: ignore[arg-type]
        for _ in range(20):
            await asyncio.sleep(0)
        assert not rest.done()
        read.set()
        assert await rest == b'event: error\ndata: {"after":3}\n\n'
        assert [part async for part in body] == []  # type: ignore[union-attr]
    await sessions.aclose()


async def test_an_interrupted_run_ends_with_its_last_progress(tmp_path: Path) -> None:
    """Contract 4: after a crash the progress stays."""
    url = f"sqlite:{tmp_path / 'sessions.db'}"
    theirs = open_log(url)
    await theirs.open(Header("r1", "mine", "k", "", ""))
    await theirs.append("r1", [Draft("", str(number)) for number in range(600)])
    await theirs.aclose()

    def ending(error: AppError, last: Event | None) -> Draft:
        return Draft("error", {"after": last.index if last else None}, terminal=True)

    sessions = Sessions(open_log(url), endings={"k": ending})
    await sessions.recover()
    header = await sessions.find("", "mine")
    assert header is not None
    events = await sessions.snapshot(header)
    assert [event.index for event in events] == list(range(601))
    assert events[-1].data == {"after": 599}
    await sessions.aclose()


async def test_a_frame_is_made_once_for_all_and_let_go_at_the_end() -> None:
    """S2.24: what was sent is held by the log alone, for as long as the log keeps it."""
    sessions = Sessions(MemoryLog(), endings={})

    async def three():  # type: ignore[no-untyped-def]
        for number in range(3):
            yield Draft("", str(number))
        yield Draft("result", {}, terminal=True)

    header = await sessions.start("k", three)
    bodies = [stream_response(sessions, header).body_iterator for _ in range(2)]
    first = [await anext(body) for body in bodies]  # type: ignore[arg-type]
    assert first[0] == first[1]
    rest = [[part async for part in body] for body in bodies]  # type: ignore[union-attr]
    assert rest[0] == rest[1]
    assert header.run not in sse._tails
    await sessions.aclose()
