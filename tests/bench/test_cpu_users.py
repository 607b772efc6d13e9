"""What `bench.cpu` says of several users at once, on scripted streams: counts, gaps, who leaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from app.core.errors import GenerationFailed
from app.engine.base import Finish, Fitted, GenerateRequest, Message
from app.engine.local.engine import LocalEngine
from bench.cpu.process import peak_bytes, reset_peak
from bench.cpu.users import CountingLoader, Trace, User, beside, join, measure_users, together
from bench.cpu.variants import OTHER

BLOCK_BYTES = 1 << 27


def test_a_peak_begins_anew() -> None:
    """Issue 5: each part of a process tells its own memory."""
    reset_peak()
    block = b"x" * BLOCK_BYTES
    high = peak_bytes()
    del block
    reset_peak()
    assert peak_bytes() < high - BLOCK_BYTES // 2


def user(*texts_s: float, started_s: float = 0.0) -> User:
    return User(started_s, list(texts_s), Finish("length", 9, len(texts_s)))


def test_only_what_came_while_all_wrote_counts() -> None:
    """Issue 5: from the moment when the last has its first token until the first one ends."""
    traces = [Trace([1.0, 2.0, 3.0, 4.0], 4), Trace([2.5, 3.0, 3.5, 5.0], 4)]
    found = together([user(1.0, 2.0, 3.0, 4.0), user(2.5, 3.0, 3.5, 5.0)], traces, 2.0)
    assert (found["tokens"], found["interval_s"]) == (4.0, 1.5)
    assert found["by_one_user"] == pytest.approx(4 / 1.5 / 2)
    assert "message" not in found


def test_pieces_share_the_tokens_that_were_parts_of_characters() -> None:
    """Issue 5: tokens are those of the model; a stream that was left counts its pieces."""
    assert Trace([1.0, 2.0, 3.0, 4.0], 6).tokens_between(1.0, 3.0) == 3.0
    assert Trace([1.0, 2.0, 3.0, 4.0]).tokens_between(1.0, 3.0) == 2.0
    assert Trace().tokens_between(1.0, 3.0) == 0.0


def test_users_who_never_wrote_together_have_no_rate() -> None:
    """Issue 5: not measured is said."""
    found = together([user(1.0, 2.0), user(2.0, 3.0)], [Trace([1.0, 2.0], 2)], 2.0)
    assert (found["decode_tokens_per_s"], found["by_one_user"]) == (None, None)
    assert found["message"] == "not measured: the first ended before the last began"
    silent = together([user(1.0, 2.0), user()], [], 2.0)
    assert "wrote nothing" in silent["message"]


def test_the_stall_is_the_longest_gap_that_the_wait_touches() -> None:
    """Issue 5: gaps before the newcomer asked and after it wrote do not count."""
    running = user(1.0, 5.0, 6.0, 8.5, 9.0, 19.0)
    found = beside(running, user(8.0, started_s=5.5), [Trace(running.texts_s)], None)
    assert found["gaps_s"] == [1.0, 2.5]
    assert (found["stall_s"], found["newcomer_first_token_s"]) == (2.5, 2.5)
    assert found["beside_tokens_per_s"] == pytest.approx(1 / 2.5)
    assert "message" not in found


def test_a_stream_that_ended_before_the_newcomer_wrote_tells_no_stall() -> None:
    """Issue 5: not measured is said, and what was missing before is not forgotten."""
    found = beside(user(1.0, 6.0), user(8.0, started_s=5.5), [Trace([1.0, 6.0], 2)], None)
    assert (found["stall_s"], found["newcomer_first_token_s"]) == (None, 2.5)
    assert found["message"] == "not measured: the running stream ended too soon"
    assert beside(user(1.0), user(), [], "earlier")["message"] == "earlier"


class Scripted:
    """A loader whose generations write until they are stopped; a later one may fail."""

    reads_images = False

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.budgets: list[int] = []
        self.left: list[int] = []
        self._lock = threading.Lock()

    def fit(self, request: GenerateRequest, *, may_drop: bool) -> Fitted:
        return Fitted(request, prompt_tokens=100, context_tokens=700)

    def stream_generation(self, prompt: Sequence[Message], **asked: Any) -> Iterator[str]:
        with self._lock:
            number = len(self.budgets)
            self.budgets.append(asked["request"].max_tokens)
        try:
            yield "a"
            if number and self.fails:
                raise GenerationFailed("The model failed.")
            while not asked["stop_event"].wait(0.001):
                yield "a"
        finally:
            self.left.append(number)


def test_a_newcomer_and_who_it_joined_leave_together() -> None:
    """Issue 5: the running stream may write to the context's end, but nobody waits for that."""
    loader = Scripted()
    request = GenerateRequest(messages=(Message("user", "x"),), max_tokens=5)

    async def joined() -> tuple[User, User]:
        async with asyncio.timeout(20):
            return await join(LocalEngine(loader, slots=2), request, request)

    running, late = asyncio.run(joined())
    assert loader.budgets == [600, 5]
    assert sorted(loader.left) == [0, 1]
    assert running.texts_s[0] <= late.started_s <= late.texts_s[0] <= running.texts_s[-1]


def test_a_user_that_fails_leaves_the_figures_of_the_one() -> None:
    """Issue 5: several users are measured after the one, and their failure is told as such."""
    loader = CountingLoader(Scripted(fails=True))
    request = GenerateRequest(messages=(Message("user", "x"),), max_tokens=5, seed=1)

    async def measured() -> dict[str, Any]:
        async with asyncio.timeout(20):
            return await measure_users(
                LocalEngine(loader, slots=2),
                loader,
                alone=request,
                newcomer=replace(request, messages=(Message("user", OTHER),)),
                users=2,
                new_tokens=5,
                one_tokens_per_s=1.0,
            )

    block = b"x" * BLOCK_BYTES
    high_bytes = peak_bytes()
    del block
    found = asyncio.run(measured())
    assert (found["available"], found["users"]) == (False, 2)
    assert found["message"] == "generation_failed: The model failed."
    # The users' own peak: what was before them is not in it.
    assert 0 < found["peak_bytes"] < high_bytes - BLOCK_BYTES // 2


def test_counted_pieces_are_the_loaders_and_who_leaves_ends_it() -> None:
    """Issue 5: the counting changes nothing of what the engine is given."""
    ended = []
    # Held here, so that nothing but a close ends them.
    made = []

    def three() -> Generator[str, None, Finish]:
        try:
            yield from ("a", "b", "c")
            return Finish("stop", 7, 4)
        finally:
            ended.append(True)

    class Three(Scripted):
        def stream_generation(self, prompt: Sequence[Message], **asked: Any) -> Any:
            made.append(three())
            return made[-1]

    loader = CountingLoader(Three())
    with closing(loader.stream_generation(())) as pieces:
        assert next(pieces) == "a"
    assert ended == [True]
    whole = loader.stream_generation(())
    assert [next(whole), next(whole), next(whole)] == ["a", "b", "c"]
    with pytest.raises(StopIteration) as end:
        next(whole)
    assert end.value.value == Finish("stop", 7, 4)
    assert [(len(one.pieces_s), one.tokens) for one in loader.take_traces()] == [(1, None), (3, 4)]
    assert loader.take_traces() == []
