"""The model of the chat role, where that is another one than the model of the summaries."""

from __future__ import annotations

from app.services.model_loader_v4 import ModelServiceV4


class ChatModel(ModelServiceV4):
    """`MODEL_REPO_ID`: a class-level singleton of its own, with its own weights."""
