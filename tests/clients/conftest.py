"""One server with a tiny real model, which every client of this folder talks to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.core.errors import GenerationFailed
from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import make_checkpoint
from tests.engines import ScriptedEngine
from tests.servers import Running, serving

KEY = "secret-key"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The model answers nonsense, but everything around it is real."""
    folder = make_checkpoint(tmp_path_factory.mktemp("phi3"), context_tokens=4096)
    ModelServiceV4.unload()
    with serving(
        summary_engine="local",
        v4_model_id=str(folder),
        api_keys=(KEY,),
        cancel_after_disconnect_seconds=0.1,
    ) as running:
        yield running
    ModelServiceV4.unload()


@pytest.fixture
def failing() -> Iterator[Running]:
    """A server whose model breaks after its first words."""
    with serving(ScriptedEngine(["Hello ", GenerationFailed("the model broke")])) as running:
        yield running
