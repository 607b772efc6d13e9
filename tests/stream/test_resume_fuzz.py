"""Readers cut at random points, on every log, across processes and across a kill."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path

import pytest

from app.stream.event import Draft, Event
from app.stream.log import Header
from app.stream.logs.open import open_log
from app.stream.sessions import Sessions
from tests.redis_server import redis_server, redis_url
from tests.stream.logs.writer_program import exact, failure, pieces, started

__all__ = ["redis_server", "redis_url"]

WAIT_S = 30.0
SESSIONS = 20
CUTS = 10
EVENTS = 120
KILLS = 4


def url_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if kind == "redis":
        return str(request.getfixturevalue("redis_url"))
    return "memory:" if kind == "memory" else f"sqlite:{tmp_path / 'sessions.db'}"


@pytest.fixture(params=["memory", "sqlite", "redis", "two on sqlite", "two on redis"])
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Sessions]]:
    """One process, or two with the same log: the first one writes."""
    kind = request.param.removeprefix("two on ")
    url = url_of(kind, request, tmp_path)
    count = 1 if kind == request.param else 2
    opened = [Sessions(open_log(url), endings={"k": failure}) for _ in range(count)]
    yield opened
    for sessions in opened:
        await sessions.aclose()


async def cut_reader(servers: list[Sessions], header: Header, rng: random.Random) -> list[Event]:
    """Follow a session with `CUTS` cuts, each time on any of the servers, by index."""
    cuts = sorted(rng.sample(range(EVENTS), CUTS))
    seen: list[Event] = []
    for cut in [*cuts, EVENTS]:
        after = seen[-1].index if seen else -1
        async with aclosing(rng.choice(servers).follow(header, after)) as events:
            async for event in events:
                seen.append(event)
                if event.index >= cut:
                    break
    return seen


async def test_a_resumed_stream_has_no_gap_and_no_duplicate(servers: list[Sessions]) -> None:
    """S1.21, S1.23, S4.12: 200 random cut points."""

    async def one(seed: int) -> int:
        expected = list(islice(pieces(seed), EVENTS))
        rng = random.Random(seed)

        async def drafts() -> AsyncGenerator[Draft, None]:
            for piece in expected:
                yield Draft("", piece)
                if rng.random() < 0.3:
                    # Followers reach the live tail, and some do not.
                    for _ in range(rng.randrange(40)):
                        await asyncio.sleep(0)
            yield Draft("result", {"seed": seed}, terminal=True)

        header = await servers[0].start("k", drafts, fingerprint=str(seed))
        seen = await cut_reader(servers, header, random.Random(-seed))
        assert [event.index for event in seen] == list(range(EVENTS + 1))
        joined = "".join(str(event.data) for event in seen[:-1])
        assert exact(joined) == exact("".join(expected))
        assert seen[-1].data == {"seed": seed}
        return CUTS

    async with asyncio.timeout(WAIT_S):
        cuts = await asyncio.gather(*(one(seed) for seed in range(SESSIONS)))
    assert sum(cuts) == 200


async def kill_at(url: str, seed: int, lines: int) -> list[str]:
    """Run a writer, kill it after so many events were seen, and return all that were."""
    process = started(url, str(seed))
    try:
        assert process.stdout is not None
        seen = [await asyncio.to_thread(process.stdout.readline) for _ in range(lines)]
        process.kill()
        # A line that the kill cut in half was not sent.
        seen += [line for line in process.stdout if line.endswith("\n")]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
    return [line.rstrip("\n") for line in seen]


def printed(events: list[Event]) -> list[str]:
    """Return what the writer prints of events."""
    return [f"{event.index} {exact(str(event.data)).hex()}" for event in events]


async def test_what_a_killed_server_sent_is_still_there_and_ends_interrupted(
    tmp_path: Path,
) -> None:
    """S1.28, S2.11, S4.10, contract 3: replay across restarts, SIGKILL at random points."""
    url = f"sqlite:{tmp_path / 'sessions.db'}"
    for seed in range(KILLS):
        seen = await kill_at(url, seed, random.Random(seed).randint(1, 200))
        sessions = Sessions(open_log(url), endings={"k": failure})
        await sessions.recover()
        header = await sessions.find("", "mine")
        assert header is not None
        async with asyncio.timeout(WAIT_S), aclosing(sessions.follow(header)) as following:
            events = [event async for event in following]
        *kept, end = events
        assert end.data == {"code": "interrupted"}
        assert [event.index for event in events] == list(range(len(events)))
        assert [event.data for event in kept] == list(islice(pieces(seed), len(kept)))
        assert printed(kept[: len(seen)]) == seen
        assert len(kept) >= len(seen) > 0
        await sessions.aclose()


async def test_a_reader_elsewhere_goes_on_to_the_end_of_a_killed_server(redis_url: str) -> None:
    """S4.34, contract 3: what a client of the dead process saw, it has, and one `interrupted`."""
    sessions = Sessions(open_log(redis_url), endings={"k": failure})
    maintaining = asyncio.create_task(sessions.maintain())
    seen = await kill_at(redis_url, 7, 100)
    header = await sessions.find("", "mine")
    assert header is not None
    async with asyncio.timeout(WAIT_S), aclosing(sessions.follow(header, 49)) as following:
        events = [event async for event in following]
    assert events[-1].data == {"code": "interrupted"}
    assert [event.index for event in events] == list(range(50, 50 + len(events)))
    assert printed(events[: len(seen) - 50]) == seen[50:]
    maintaining.cancel()
    await sessions.aclose()
