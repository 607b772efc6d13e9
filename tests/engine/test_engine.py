"""The contract of an engine, on every engine."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from app.core.errors import Unsupported
from app.engine.base import Document, Engine, Finish, GenerateRequest, Item, Message, Status, Text
from app.engine.extractive.engine import ExtractiveEngine
from app.engine.local.engine import LocalEngine
from app.engine.remote.engine import RemoteEngine
from app.schemas.summary_v4 import StructuredSummary, summary_schema
from app.services.model_loader_v4 import ModelServiceV4
from bench.upstream import running_upstream
from tests.engines import ARTICLE, SUMMARY_TEXT, ScriptedEngine
from tests.weight_formats import NAMES, WeightFormat


class TinyModel(ModelServiceV4):
    """A model of these tests' own."""


@pytest.fixture(params=["extractive", *NAMES, "remote", "scripted"])
async def engine(
    request: pytest.FixtureRequest, packable_checkpoint: Path
) -> AsyncIterator[Engine]:
    name: str = request.param
    held = WeightFormat(name if name in NAMES else None)
    TinyModel.configure(**{"memory_limit_bytes": None, **held.loading(packable_checkpoint)})
    with running_upstream() as (base, _):
        made: dict[str, Engine] = {
            "extractive": ExtractiveEngine(),
            "remote": RemoteEngine([base]),
            "scripted": ScriptedEngine([Status("writing"), SUMMARY_TEXT[:9], SUMMARY_TEXT[9:]]),
        }
        used = made.get(name) or LocalEngine(TinyModel)
        yield used
        await used.aclose()


def asked(**values: object) -> GenerateRequest:
    defaults: dict[str, object] = {
        "messages": (Message("system", "Summarize."), Message("user", ARTICLE, may_be_cut=True)),
        "max_tokens": 128,
        "document": Document(text=ARTICLE),
        "json_schema": summary_schema(3),
    }
    return GenerateRequest(**{**defaults, **values})  # type: ignore[arg-type]


async def items(engine: Engine, request: GenerateRequest) -> list[Item]:
    async with aclosing(engine.generate(request)) as made:
        return [item async for item in made]


async def test_exactly_one_finish_comes_last(engine: Engine) -> None:
    """Architecture: the engine protocol."""
    made = await items(engine, asked())
    assert [isinstance(item, Finish) for item in made].count(True) == 1
    finish = made[-1]
    assert isinstance(finish, Finish)
    assert finish.reason == "stop"
    assert finish.prompt_tokens > 0
    assert 0 < finish.completion_tokens <= 128


async def test_no_text_is_empty_and_all_of_it_is_the_object(engine: Engine) -> None:
    """Contract 1: always valid, also at the smallest budget; compact."""
    texts = [item.text for item in await items(engine, asked()) if isinstance(item, Text)]
    assert all(texts)
    value = json.loads("".join(texts))
    StructuredSummary.model_validate(value)
    assert json.dumps(value, ensure_ascii=False, separators=(",", ":")) == "".join(texts)


async def test_statuses_come_before_the_text_they_announce(engine: Engine) -> None:
    made = await items(engine, asked())
    kinds = [item.stage if isinstance(item, Status) else type(item).__name__ for item in made]
    assert kinds.index("writing") < kinds.index("Text")


# An engine's own threads: `run.py` starts the first, the decoding loop and `generate` the others.
WORKERS = ("generation-", "decoder", "generate")


async def test_closing_early_leaves_no_thread_and_the_next_request_works(engine: Engine) -> None:
    """Rule 5: closing the generator cancels."""
    before = workers()
    await items(engine, asked())
    began: set[threading.Thread] = set()
    async with aclosing(engine.generate(asked(max_tokens=1024))) as made:
        async for item in made:
            began |= workers() - before
            if isinstance(item, Text):
                break
    if isinstance(engine, LocalEngine):
        assert began, "the threads have other names now: this test looks for none that exist"
    assert workers() <= before
    assert isinstance((await items(engine, asked()))[-1], Finish)


def workers() -> set[threading.Thread]:
    """Return the threads that run a model."""
    return {thread for thread in threading.enumerate() if thread.name.startswith(WORKERS)}


async def test_health_knows_the_model_without_loading_it(engine: Engine) -> None:
    """C9: `info` is a member of the protocol, of every engine."""
    TinyModel.unload()
    info = engine.info()
    assert info["model_id"] == engine.model
    assert info["loaded"] is not isinstance(engine, LocalEngine)
    assert TinyModel.info()["loaded"] is False


async def test_loading_ahead_is_a_member_of_every_engine(engine: Engine) -> None:
    """C10: PRELOAD_MODELS asks no engine for its name."""
    TinyModel.unload()
    await engine.load()
    assert engine.info()["loaded"] is True


async def test_images_are_refused_before_any_text(engine: Engine) -> None:
    """C7; pitfall: the image was dropped without a word."""
    if isinstance(engine, ScriptedEngine):
        engine.script = [Unsupported("no images")]
    with pytest.raises(Unsupported):
        await items(engine, asked(images=(b"png",)))


async def test_asking_whether_it_could_serve_loads_nothing(engine: Engine) -> None:
    """Pitfall: health probes loaded the model."""
    TinyModel.unload()
    assert await engine.unavailable() is None
    assert TinyModel.info()["loaded"] is False
