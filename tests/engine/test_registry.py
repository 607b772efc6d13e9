"""Roles and the engines behind them (C6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.engine.local.model_service import ChatModel
from app.engine.registry import EngineSpec, Registry
from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import make_checkpoint
from tests.engines import ARTICLE, ScriptedEngine
from tests.servers import STREAM, serving


def test_roles_of_the_same_key_share_an_engine() -> None:
    """C6: one set of weights in memory."""
    made: list[ScriptedEngine] = []

    def make() -> ScriptedEngine:
        made.append(ScriptedEngine())
        return made[-1]

    same, other = EngineSpec("a", make), EngineSpec("b", make)
    registry = Registry({"summary": same, "vision": other, "chat": same})
    assert registry.get("summary") is registry.get("chat")
    assert registry.get("vision") is not registry.get("chat")
    assert len(made) == 2
    assert Registry({"summary": same}).get("vision") is None


@pytest.mark.parametrize("own", [False, True])
def test_summaries_and_chat_load_the_same_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """C6: MODEL_REPO_ID empty, or the same as V4_MODEL_ID; another one is loaded beside it."""
    import transformers

    folder = make_checkpoint(tmp_path / "one")
    chat = make_checkpoint(tmp_path / "two") if own else None
    loads: list[str] = []
    auto = transformers.AutoModelForCausalLM
    load, make = auto.from_pretrained, auto.from_config

    def loaded(name: str, *args: object, **options: object) -> object:
        loads.append(str(name))
        return load(name, *args, **options)

    def made(config: Any, **options: object) -> object:
        loads.append(config.name_or_path)
        return make(config, **options)

    # Packed weights are put into a model that is made without any.
    monkeypatch.setattr(auto, "from_pretrained", loaded)
    monkeypatch.setattr(auto, "from_config", made)
    ModelServiceV4.unload()
    ChatModel.unload()
    try:
        with serving(
            summary_engine="local",
            v4_model_id=str(folder),
            model_repo_id=str(chat) if chat else str(folder),
        ) as server:
            assert loads == []
            body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
            assert server.post("/v1/chat/completions", body).status_code == 200
            assert "event: result" in server.post(STREAM, {"text": ARTICLE, "max_tokens": 128}).text
            roles = server.get("/health").json()["roles"]
    finally:
        ModelServiceV4.unload()
        ChatModel.unload()
    assert loads == ([str(chat), str(folder)] if chat else [str(folder)])
    assert roles["chat"]["loaded"]
    assert roles["summary"]["loaded"]
    assert not roles["vision"]["loaded"]
