"""Reading prompts, seen from outside: progress within a chunk, and nothing kept for too long."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import make_checkpoint
from tests.engines import ARTICLE
from tests.servers import STREAM, frames, serving, until

BODY = {"text": ARTICLE, "use_cache": False, "max_tokens": 128}


@pytest.fixture(scope="module")
def deep_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("deep"), layers=12)


@pytest.fixture(autouse=True)
def _fresh_model() -> Iterator[None]:
    ModelServiceV4.unload()
    yield
    ModelServiceV4.unload()


def held() -> set[int]:
    """Return the sequences whose keys and values are in memory."""
    from app.engine.decoding.kv_cache import KeyValues

    return {id(one) for one in gc.get_objects() if type(one) is KeyValues}


def test_progress_moves_while_a_chunk_is_read(deep_checkpoint: Path) -> None:
    """Contract 1: `status` reading tells what is true, also of a prompt of two chunks."""
    with serving(summary_engine="local", v4_model_id=str(deep_checkpoint)) as server:
        found = frames(server.post(STREAM, BODY).text)
    assert found[-1].json["usage"]["prompt_tokens"] <= 1024
    statuses = [f.json for f in found if f.event == "status"]
    reading = [status["progress"] for status in statuses if status["stage"] == "reading"]
    assert len(reading) >= 12
    assert reading == sorted(set(reading))
    assert reading[0] == 0.0
    assert reading[-1] < 1


@pytest.mark.parametrize("ttl_s", [600.0, 0.5])
def test_what_a_user_sent_is_forgotten_when_nobody_asks_any_more(
    deep_checkpoint: Path, ttl_s: float
) -> None:
    """SESSIONS_TTL_SECONDS: keys and values of prompts go with the sessions; the model stays."""
    gc.collect()
    before = held()
    values = {"summary_engine": "local", "v4_model_id": str(deep_checkpoint)}
    with serving(**values, sessions_ttl_seconds=ttl_s) as server:
        server.post(STREAM, BODY)
        until(lambda: server.app.state.services().sessions.active == 0)
        if ttl_s < 1:
            until(lambda: not held() - before)
        else:
            assert len(held() - before) == 1
        assert ModelServiceV4.info()["loaded"]
