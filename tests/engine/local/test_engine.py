"""The engine that runs a model in this process: fakes for the bridge, then the tiny model."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from app.core.errors import (
    AppError,
    EngineUnavailable,
    GenerationFailed,
    Overloaded,
    Unsupported,
)
from app.engine.base import (
    Finish,
    Fitted,
    GenerateRequest,
    Item,
    Message,
    Reasoning,
    Status,
    Text,
    TokenLogprob,
    Tool,
    ToolCallPart,
)
from app.engine.local.engine import LocalEngine
from app.engine.text.pieces import TextChunk
from app.schemas.summary_v4 import StructuredSummary, summary_schema
from app.services.model_loader_v4 import ModelServiceV4
from tests.weight_formats import of_this_run

REQUEST = GenerateRequest(messages=(Message("user", "Hello"),), max_tokens=32, seed=1)


class Fake:
    """A backend without a model; `stream` is its generation."""

    reads_images = False

    def __init__(self, stream: Callable[..., Any], *, reason: str | None = None) -> None:
        self.stream_generation = stream
        self.reason = EngineUnavailable(reason) if reason else None
        self.loads: list[int] = []

    def model_id(self) -> str:
        return "fake-1"

    def info(self) -> dict[str, Any]:
        return {"model_id": "fake-1", "loaded": bool(self.loads)}

    def unavailable(self) -> EngineUnavailable | None:
        return self.reason

    def prepare(self) -> None:
        """Nothing to download."""

    def get_model(self) -> object:
        self.loads.append(threading.get_ident())
        return None

    def fit(self, request: GenerateRequest, *, may_drop: bool) -> Fitted:
        return Fitted(request)

    def unload_if_idle(self, idle_s: float) -> bool:
        return False

    def forget_expired(self) -> None:
        """Nothing is kept."""


def tiny(folder: Path) -> type[ModelServiceV4]:
    class Tiny(ModelServiceV4):
        """The tiny checkpoint."""

    Tiny.configure(**of_this_run().loading(folder))
    return Tiny


async def collect(engine: LocalEngine, request: GenerateRequest = REQUEST) -> list[Item]:
    async with asyncio.timeout(30), aclosing(engine.generate(request)) as stream:
        return [item async for item in stream]


def text_of(items: Iterable[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, Text))


async def all_ended(before: set[threading.Thread]) -> None:
    """Wait, bounded, until no thread is left that was not there before."""
    for thread in set(threading.enumerate()) - before:
        # The run's own, the decoding loop's, that of `generate`; pools keep theirs.
        if thread.name.startswith(("generation-", "decoder", "generate")):
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive(), thread.name


@pytest.mark.parametrize(
    "stream",
    [
        lambda messages, **options: ["a", "", "b"],
        lambda messages, **options: iter(("a", "b")),
        MagicMock(return_value=["a", "b"]),
    ],
    ids=["list", "iterator", "mock"],
)
async def test_any_iterable_of_text_is_a_generation(stream: Callable[..., Any]) -> None:
    """C24: stream_generation is the door; what is behind it may be replaced."""
    items = await collect(LocalEngine(Fake(stream)))
    assert text_of(items) == "ab"
    assert items[-1] == Finish("stop", 0, 2)


async def test_the_request_itself_reaches_the_backend() -> None:
    """S0.14: sampling options; C24: one call. A new field needs no line in the engine."""
    seen: dict[str, Any] = {}

    def stream(messages: Sequence[Message], **options: Any) -> list[str]:
        seen.update(options, messages=messages)
        return ["x"]

    await collect(LocalEngine(Fake(stream)))
    assert seen["request"] is REQUEST
    assert seen["messages"] is REQUEST.messages
    assert set(seen) == {"messages", "request", "stop_event", "on_status"}


async def test_a_generators_own_finish_and_status_are_handed_on() -> None:
    """C8: real token counts."""

    def stream(messages: Any, *, on_status: Callable[[Status], None], **options: Any) -> Any:
        on_status(Status("reading", progress=0.5))
        yield "text"
        return Finish("length", 11, 22)

    items = await collect(LocalEngine(Fake(stream)))
    assert items == [Status("reading", progress=0.5), Text("text"), Finish("length", 11, 22)]


async def test_text_becomes_thoughts_answers_and_calls() -> None:
    """Contract 2: `tools`; pitfall: `<think>` in the answer."""
    pieces = ["<thi", "nk>hm</think>", "Well. <tool_", 'call>{"name": "now", "argu', 'ments": {}}']
    request = GenerateRequest(messages=REQUEST.messages, max_tokens=8, tools=(Tool("now"),))

    def stream(messages: Any, **options: Any) -> Any:
        yield from pieces
        return Finish("stop", 3, 4)

    items = await collect(LocalEngine(Fake(stream)), request)
    assert [item.text for item in items if isinstance(item, Reasoning)] == ["hm"]
    assert text_of(items) == "Well. "
    parts = [item for item in items if isinstance(item, ToolCallPart)]
    assert (parts[0].index, parts[0].name) == (0, "now")
    assert "".join(part.arguments for part in parts) == "{}"
    assert items[-1] == Finish("tool_calls", 3, 4)


async def test_a_call_that_the_budget_cut_ends_with_length() -> None:
    """Contract 2: `finish_reason`; pitfall: it was always `stop`."""

    def stream(messages: Any, **options: Any) -> Any:
        yield '{"name":"now","arguments":{"a'
        return Finish("length", 3, 4)

    request = GenerateRequest(messages=REQUEST.messages, max_tokens=8, tools=(Tool("now"),))
    assert (await collect(LocalEngine(Fake(stream)), request))[-1] == Finish("length", 3, 4)


async def test_what_was_held_back_comes_out_at_the_end() -> None:
    """Contract 2: nothing is lost."""
    items = await collect(LocalEngine(Fake(lambda messages, **options: ["<thi"])))
    assert items == [Text("<thi"), Finish("stop", 0, 1)]


async def test_joined_texts_keep_every_token() -> None:
    """Contract 2: `logprobs`."""
    tokens = [TokenLogprob(str(n), str(n).encode(), -1.0) for n in range(500)]

    def stream(messages: Any, **options: Any) -> Iterator[str]:
        yield from (TextChunk(token.text, [token]) for token in tokens)

    items = await collect(LocalEngine(Fake(stream)))
    assert [one for item in items if isinstance(item, Text) for one in item.logprobs] == tokens


class Upkeep(Fake):
    """A backend that notes what is done beside the requests, and in which thread."""

    def __init__(self) -> None:
        super().__init__(lambda messages, **options: [])
        self.calls = asyncio.Queue[tuple[str, float | None, bool]]()
        self._loop = asyncio.get_running_loop()
        self._here = threading.get_ident()

    def unload_if_idle(self, idle_s: float) -> bool:
        self._note("unload_if_idle", idle_s)
        return True

    def forget_expired(self) -> None:
        self._note("forget_expired", None)

    def _note(self, name: str, value: float | None) -> None:
        call = (name, value, threading.get_ident() == self._here)
        self._loop.call_soon_threadsafe(self.calls.put_nowait, call)


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"idle_unload_s": 0.02}, ("unload_if_idle", 0.02, False)),
        ({"forget_interval_s": 0.005}, ("forget_expired", None, False)),
    ],
)
async def test_upkeep_runs_beside_the_requests_and_off_the_event_loop(
    options: dict[str, float], call: tuple[str, float | None, bool]
) -> None:
    """MODEL_IDLE_UNLOAD_SECONDS, SESSIONS_TTL_SECONDS: again and again until cancelled."""
    backend = Upkeep()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        upkeep = group.create_task(LocalEngine(backend, **options).maintain())
        for _ in range(3):
            assert await backend.calls.get() == call
        upkeep.cancel()


async def test_without_upkeep_nothing_runs_beside_the_requests() -> None:
    """MODEL_IDLE_UNLOAD_SECONDS: off unless it is set."""
    backend = Upkeep()
    await asyncio.wait_for(LocalEngine(backend).maintain(), 10)
    assert backend.calls.empty()


async def test_loading_ahead_happens_once_and_off_the_event_loop() -> None:
    """C10: PRELOAD_MODELS."""
    backend = Fake(lambda messages, **options: [])
    engine = LocalEngine(backend)
    assert engine.info()["loaded"] is False
    await engine.load()
    assert len(backend.loads) == 1
    assert backend.loads[0] != threading.get_ident()
    assert engine.info()["loaded"] is True


async def test_what_is_ready_is_joined_and_nothing_is_lost() -> None:
    """Architecture: take one, drain what else is ready, write once."""
    pieces = [f"{n} " for n in range(2_000)]
    items = await collect(LocalEngine(Fake(lambda messages, **options: pieces)))
    assert text_of(items) == "".join(pieces)
    assert items[-1] == Finish("stop", 0, 2_000)


async def test_the_event_loop_keeps_running_while_the_model_computes() -> None:
    """Pitfall: a blocking streamer on the event loop."""
    turns = threading.Event()

    def stream(messages: Any, **options: Any) -> Iterator[str]:
        assert turns.wait(10)
        yield "done"

    async def turn() -> None:
        await asyncio.sleep(0)
        turns.set()

    engine = LocalEngine(Fake(stream))
    items, _ = await asyncio.gather(collect(engine), turn())
    assert text_of(items) == "done"


@pytest.mark.parametrize("after", [0, 2])
async def test_an_exception_in_the_models_thread_ends_the_stream(after: int) -> None:
    """Pitfall: generate() raised in its thread and the request hung for good."""

    def stream(messages: Any, **options: Any) -> Iterator[str]:
        yield from ["x"] * after
        raise ValueError("the secret prompt")

    engine = LocalEngine(Fake(stream))
    with pytest.raises(GenerationFailed) as caught:
        await collect(engine)
    assert caught.value.code == "generation_failed"
    assert "secret" not in caught.value.message
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(GenerationFailed):
        await collect(engine)


async def test_an_unavailable_model_says_so_before_any_text() -> None:
    """C19: so that the caller can fall back at once."""

    def stream(messages: Any, **options: Any) -> Iterator[str]:
        raise EngineUnavailable("downloading", code="model_downloading", retry_after_s=60)

    with pytest.raises(EngineUnavailable) as caught:
        await collect(LocalEngine(Fake(stream)))
    assert (caught.value.code, caught.value.retry_after_s) == ("model_downloading", 60)


async def test_the_probe_runs_off_the_loop_and_names_the_reason() -> None:
    """C9, C19."""
    engine = LocalEngine(Fake(lambda messages, **options: [], reason="no memory"))
    assert str(await engine.unavailable()) == "no memory"
    assert (engine.name, engine.model) == ("local", "fake-1")


async def test_images_are_refused_with_the_setting_to_change() -> None:
    """C7: a text-only role given an image names the vision role."""
    request = GenerateRequest(messages=REQUEST.messages, max_tokens=8, images=(b"png",))
    with pytest.raises(Unsupported) as caught:
        await collect(LocalEngine(Fake(lambda messages, **options: ["x"])), request)
    assert "VISION" in caught.value.message


class Turnstile:
    """A generation that runs until it is let go, and notices when two overlap."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.go = threading.Event()
        self.order: list[str] = []
        self.overlapped = False

    def stream(self, messages: Sequence[Message], **options: Any) -> Iterator[str]:
        if not self.lock.acquire(blocking=False):
            self.overlapped = True
        try:
            self.order.append(messages[0].content)
            yield "first"
            while not self.go.wait(0.01) and not options["stop_event"].is_set():
                pass
            yield "last"
        finally:
            self.lock.release()


def request_of(name: str) -> GenerateRequest:
    return GenerateRequest(messages=(Message("user", name),), max_tokens=8)


async def first_item(stream: AsyncGenerator[Item, None]) -> Item:
    return await asyncio.wait_for(anext(stream), 10)


async def test_the_line_is_served_in_order_with_positions_and_without_overlap() -> None:
    """C25: clients are told their position."""
    turnstile = Turnstile()
    engine = LocalEngine(Fake(turnstile.stream), slots=1, max_waiting=2)
    running = engine.generate(request_of("a"))
    assert await first_item(running) == Text("first")
    waiting = engine.generate(request_of("b"))
    third = engine.generate(request_of("c"))
    assert await first_item(waiting) == Status("queued", position=1)
    assert await first_item(third) == Status("queued", position=2)
    with pytest.raises(Overloaded):
        await collect(engine, request_of("d"))
    turnstile.go.set()
    assert text_of([item async for item in running]) == "last"
    assert await first_item(third) == Status("queued", position=1)
    assert text_of([item async for item in waiting]) == "firstlast"
    assert text_of([item async for item in third]) == "firstlast"
    assert turnstile.order == ["a", "b", "c"]
    assert not turnstile.overlapped


async def test_cancelling_again_and_again_frees_the_slot_only_after_the_model_stopped() -> None:
    """S1.31, C25: two generations never overlap, also when the first one is cancelled twice."""
    leave, left, stuck = threading.Event(), threading.Event(), threading.Event()
    turns: list[int] = []

    def stubborn(messages: Sequence[Message], **options: Any) -> Iterator[str]:
        if messages[0].content == "next":
            turns.append(int(left.is_set()))
            yield "next"
            return
        yield "x"
        stuck.set()
        assert leave.wait(20)
        left.set()
        yield "y"

    engine = LocalEngine(Fake(stubborn), slots=1, max_waiting=4)
    started = asyncio.Event()

    async def consume() -> None:
        async with aclosing(engine.generate(REQUEST)) as stream:
            async for _ in stream:
                started.set()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(started.wait(), 10)
    assert await asyncio.to_thread(stuck.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    waiting = engine.generate(request_of("next"))
    assert await first_item(waiting) == Status("queued", position=1)
    leave.set()
    assert text_of([item async for item in waiting]) == "next"
    assert turns == [1]
    await asyncio.wait([task], timeout=10)
    assert task.cancelled()


async def test_a_waiter_that_is_cancelled_leaves_the_line() -> None:
    """C25."""
    turnstile = Turnstile()
    engine = LocalEngine(Fake(turnstile.stream))
    running = engine.generate(request_of("a"))
    await first_item(running)
    gone, stays = engine.generate(request_of("b")), engine.generate(request_of("c"))
    await first_item(gone)
    assert await first_item(stays) == Status("queued", position=2)
    await gone.aclose()
    assert await first_item(stays) == Status("queued", position=1)
    turnstile.go.set()
    await running.aclose()
    assert text_of([item async for item in stays]) == "firstlast"
    assert turnstile.order == ["a", "c"]


async def test_closing_the_engine_stops_every_generation() -> None:
    """Architecture: cancel has one road; shutdown takes it too."""
    turnstile = Turnstile()
    engine = LocalEngine(Fake(turnstile.stream))
    running = engine.generate(request_of("a"))
    await first_item(running)
    await asyncio.wait_for(engine.aclose(), 10)
    rest = [item async for item in running]
    assert isinstance(rest[-1], Finish)
    assert rest[-1].reason == "cancelled"
    await asyncio.wait_for(engine.aclose(), 10)


def test_one_engine_serves_one_event_loop_after_another() -> None:
    """Nothing is bound to the loop that was running at construction."""
    engine = LocalEngine(Fake(lambda messages, **options: ["ok"]))
    for _ in range(2):
        assert text_of(asyncio.run(collect(engine))) == "ok"


async def test_the_real_model_streams_and_counts(checkpoint: Path) -> None:
    """S0.11, S0.13, S0.15, C8: real loading code, real generate."""
    engine = LocalEngine(tiny(checkpoint))
    items = await collect(engine)
    stages = [item.stage for item in items if isinstance(item, Status)]
    assert stages[0] == "loading"
    assert next(s for s in stages if s != "loading") == "reading"
    assert stages[-1] == "writing"
    finish = items[-1]
    assert isinstance(finish, Finish)
    assert finish.prompt_tokens > 0
    assert 0 < finish.completion_tokens <= 32
    again = await collect(engine)
    assert text_of(again) == text_of(items)
    assert not any(item.stage == "loading" for item in again if isinstance(item, Status))


async def test_the_real_model_writes_a_summary(fallback_checkpoint: Path) -> None:
    """S0.10, S0.20, C13: the whole road, from request to validated object."""
    request = GenerateRequest(
        messages=REQUEST.messages, max_tokens=128, json_schema=summary_schema(4), seed=5
    )
    items = await collect(LocalEngine(tiny(fallback_checkpoint)), request)
    assert StructuredSummary.model_validate(json.loads(text_of(items))).read_time_min == 4


async def test_cancelling_the_real_model_stops_it_at_once_and_leaves_no_thread(
    checkpoint: Path,
) -> None:
    """S1.31, S4.23: cooperative stop, within a token."""
    loader = tiny(checkpoint)
    model, _ = await asyncio.to_thread(loader.get_model)
    steps = []
    model.get_decoder().register_forward_pre_hook(lambda module, args: steps.append(1))
    engine = LocalEngine(loader)
    before = set(threading.enumerate())
    request = GenerateRequest(
        messages=REQUEST.messages,
        max_tokens=1500,
        json_schema={"type": "array", "items": {"type": "integer"}, "minItems": 600},
    )
    stream = engine.generate(request)
    async with asyncio.timeout(30):
        async for item in stream:
            if isinstance(item, Text):
                break
        at_cancel = len(steps)
        await stream.aclose()
    # One step may be under way, and the thread may have begun the next while the loop woke up.
    assert at_cancel + 50 > len(steps)
    assert len(steps) < 600
    await all_ended(before)
    stopped_at = len(steps)
    assert text_of(await collect(engine))
    assert len(steps) > stopped_at


async def test_the_real_model_recovers_from_a_failure_in_generate(checkpoint: Path) -> None:
    """Pitfall: generate() raised in its thread; the next request works."""
    loader = tiny(checkpoint)
    model, _ = await asyncio.to_thread(loader.get_model)
    engine = LocalEngine(loader)
    before = set(threading.enumerate())

    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("out of luck")

    hook = model.get_decoder().register_forward_pre_hook(fail)
    with pytest.raises(AppError) as caught:
        await collect(engine)
    assert caught.value.code == "generation_failed"
    hook.remove()
    assert text_of(await collect(engine))
    await all_ended(before)
