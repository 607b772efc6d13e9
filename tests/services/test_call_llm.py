"""One call of a language model: without images, and of engines that cannot see them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

import pytest

from app.core.errors import Unsupported
from app.engine.base import Engine, Message
from app.engine.extractive.engine import ExtractiveEngine
from app.engine.local.engine import LocalEngine
from app.services.call_llm import call_llm
from app.services.model_loader_v4 import ModelServiceV4
from tests.engines import ScriptedEngine

PNG = b"\x89PNG\r\n\x1a\n"


class WordsOnly(ModelServiceV4):
    """A model of words; nothing of it is ever loaded."""


async def test_without_images_the_turn_has_no_parts() -> None:
    engine = ScriptedEngine(["hello"])
    await call_llm(engine, "Say hello.", max_tokens=8)
    assert engine.requests[0].images == ()
    assert engine.requests[0].messages[-1] == Message("user", "Say hello.")


@pytest.mark.parametrize("make", [ExtractiveEngine, lambda: LocalEngine(WordsOnly)])
async def test_an_engine_that_cannot_see_refuses_the_images(make: Callable[[], Engine]) -> None:
    """C7; pitfall: the image was dropped without a word."""
    async with aclosing(make()) as engine:
        with pytest.raises(Unsupported):
            await call_llm(engine, "Read it.", max_tokens=8, images=[PNG])
    assert WordsOnly.info()["loaded"] is False
