"""Roles and the engines behind them (C6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.engine.local.model_service import ChatModel
from app.engine.local.vision_model import VisionModel
from app.engine.registry import EngineSpec, Registry
from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import make_checkpoint
from tests.engines import ARTICLE, ScriptedEngine
from tests.servers import STREAM, serving
from tests.services.media.files import a_file, data_url
from tests.vision_checkpoint import make_vision_checkpoint


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


def test_a_model_of_images_may_also_write_the_summaries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C6: VISION_MODEL_ID equal to V4_MODEL_ID is one set of weights for texts and images."""
    folder = str(make_vision_checkpoint(tmp_path / "both"))
    image = {"type": "image_url", "image_url": {"url": data_url(a_file(size=(64, 64)))}}
    words = {"type": "text", "text": "What is this?"}
    VisionModel.unload()
    for role in (VisionModel, ModelServiceV4, ChatModel):
        # Its configuration is the class's own; others find theirs again.
        monkeypatch.setattr(role, "_lazy", role._lazy)
    try:
        with serving(
            summary_engine="local", v4_model_id=folder, vision_model_id=folder, v4_weights="float32"
        ) as server:
            assert "event: result" in server.post(STREAM, {"text": ARTICLE, "max_tokens": 128}).text
            for content in ("hello", [words, image]):
                body = {"messages": [{"role": "user", "content": content}], "max_tokens": 4}
                answer = server.post("/v1/chat/completions", body)
                assert answer.status_code == 200, answer.text
            roles = server.get("/health").json()["roles"]
    finally:
        VisionModel.unload()
    assert all(roles[role]["loaded"] for role in ("summary", "chat", "vision"))
    assert ModelServiceV4.info()["loaded"] is False
    assert ChatModel.info()["loaded"] is False
