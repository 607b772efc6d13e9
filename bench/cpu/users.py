"""Several users of one engine in one process: how fast they write together, what a newcomer costs.

Tokens are counted where pieces of text leave the loader, since the engine joins those that are
ready at once; moments are those of the client. It knows the engine as the server does, and nothing
of how the model takes several sequences.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.cpu.process import peak_bytes, reset_peak

if TYPE_CHECKING:
    from app.engine.base import Finish, GenerateRequest
    from app.engine.local.engine import LocalEngine

Found = dict[str, Any]


@dataclass(slots=True)
class Trace:
    """When the pieces of one generation left the loader; `tokens` once it has ended by itself."""

    pieces_s: list[float] = field(default_factory=list)
    tokens: int | None = None

    def tokens_between(self, start_s: float, end_s: float) -> float:
        """Return how many tokens came after `start_s`, up to `end_s`.

        A piece is a token, unless tokens were parts of a character: then all pieces share them.
        """
        inside = bisect_right(self.pieces_s, end_s) - bisect_right(self.pieces_s, start_s)
        return inside * (self.tokens or len(self.pieces_s)) / max(1, len(self.pieces_s))


class CountingLoader:
    """A loader that keeps a `Trace` of each generation, and is another one in all else."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._traces: list[Trace] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def stream_generation(self, prompt: Any, **options: Any) -> Generator[str, None, Finish]:
        """Pass the loader's pieces on."""
        trace = Trace()
        self._traces.append(trace)
        with closing(self._loader.stream_generation(prompt, **options)) as pieces:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    finish: Finish = end.value
                    trace.tokens = finish.completion_tokens
                    return finish
                trace.pieces_s.append(time.perf_counter())
                yield piece

    def take_traces(self) -> list[Trace]:
        """Return the traces since the last call, in the order in which the generations began."""
        taken, self._traces = self._traces, []
        return taken


@dataclass(slots=True)
class User:
    """What one client saw. `writing` is set by the first text, or by an end without one."""

    started_s: float = 0.0
    texts_s: list[float] = field(default_factory=list)
    finish: Finish | None = None
    writing: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, engine: LocalEngine, request: GenerateRequest) -> None:
        """Read the generation to its end, or to the next text after `leave` was set."""
        from app.engine.base import Finish, Text

        self.started_s = time.perf_counter()
        try:
            async with aclosing(engine.generate(request)) as items:
                async for item in items:
                    if isinstance(item, Text):
                        self.texts_s.append(time.perf_counter())
                        self.writing.set()
                        if self.leave.is_set():
                            return
                    if isinstance(item, Finish):
                        self.finish = item
        finally:
            self.writing.set()


async def measure_users(
    engine: LocalEngine,
    loader: CountingLoader,
    *,
    alone: GenerateRequest,
    newcomer: GenerateRequest,
    users: int,
    new_tokens: int,
    one_tokens_per_s: float,
) -> Found:
    """Return the figures of all users together and of a newcomer; `message` where one is missing.

    All users ask what `alone` asked, which got `one_tokens_per_s`; `newcomer` has another prompt.
    """
    from app.core.errors import AppError

    requests = [
        replace(alone, max_tokens=new_tokens, seed=(alone.seed or 0) + number)
        for number in range(users)
    ]
    found: Found = {"available": True, "users": users, "message": None}
    reset_peak()
    try:
        loader.take_traces()
        writers = await write_together(engine, requests)
        found |= together(writers, loader.take_traces(), one_tokens_per_s)
        running, late = await join(engine, requests[0], newcomer)
        found |= beside(running, late, loader.take_traces(), found["message"])
    except* AppError as group:
        failure = group.exceptions[0]
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        found |= {"available": False, "message": f"{failure.code}: {failure.message}"}
    return found | {"peak_bytes": peak_bytes()}


async def write_together(engine: LocalEngine, requests: Sequence[GenerateRequest]) -> list[User]:
    """Let the first begin and, as soon as it writes, the others; their prompt is known by then."""
    users = [User() for _ in requests]
    fitted = [(await engine.fit(request)).request for request in requests]
    async with asyncio.TaskGroup() as group:
        for user, request in zip(users, fitted, strict=True):
            group.create_task(user.follow(engine, request))
            await users[0].writing.wait()
    return users


def together(users: Sequence[User], traces: Sequence[Trace], one_tokens_per_s: float) -> Found:
    """Return the rate of all while all write: from the last first text to the first last one."""
    found: Found = {
        "new_tokens": [user.finish.completion_tokens if user.finish else None for user in users],
        "first_token_s": [user.texts_s[0] - user.started_s for user in users if user.texts_s],
        "decode_tokens_per_s": None,
        "by_one_user": None,
    }
    if not all(user.texts_s for user in users):
        return found | {"message": "not measured: somebody wrote nothing"}
    start_s = max(user.texts_s[0] for user in users)
    end_s = min(user.texts_s[-1] for user in users)
    if end_s <= start_s:
        return found | {"message": "not measured: the first ended before the last began"}
    tokens = sum(trace.tokens_between(start_s, end_s) for trace in traces)
    rate = tokens / (end_s - start_s)
    return found | {
        "tokens": tokens,
        "interval_s": end_s - start_s,
        "decode_tokens_per_s": rate,
        "by_one_user": rate / one_tokens_per_s,
    }


async def join(
    engine: LocalEngine, running: GenerateRequest, newcomer: GenerateRequest
) -> tuple[User, User]:
    """Let somebody join while another one writes; both leave once the newcomer has a token."""
    fitted = await engine.fit(running)
    # As long as the context allows: whoever leaves need not have an end.
    room = (fitted.context_tokens or 0) - (fitted.prompt_tokens or 0)
    running = replace(fitted.request, max_tokens=max(running.max_tokens, room))
    newcomer = (await engine.fit(newcomer)).request
    first, late = User(), User()
    late.leave.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(first.follow(engine, running))
        await first.writing.wait()
        await late.follow(engine, newcomer)
        # Its next text is past the newcomer's first: the gap around that one counts too.
        first.leave.set()
    return first, late


def beside(running: User, late: User, traces: Sequence[Trace], message: str | None) -> Found:
    """Return the longest gap of a stream while a newcomer is read, and how long the reading takes.

    `message`: what is missing already.
    """
    found: Found = {"stall_s": None, "newcomer_first_token_s": None, "beside_tokens_per_s": None}
    if not late.texts_s:
        return found | {"message": message or "not measured: the newcomer wrote nothing"}
    start_s, end_s = late.started_s, late.texts_s[0]
    found["newcomer_first_token_s"] = end_s - start_s
    if not running.texts_s or running.texts_s[-1] < end_s:
        return found | {"message": message or "not measured: the running stream ended too soon"}
    gaps_s = [
        after - before
        for before, after in pairwise(running.texts_s)
        if after > start_s and before < end_s
    ]
    return found | {
        "stall_s": max(gaps_s),
        "gaps_s": gaps_s,
        "beside_tokens_per_s": traces[0].tokens_between(start_s, end_s) / (end_s - start_s),
    }
