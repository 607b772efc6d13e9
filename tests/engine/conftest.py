"""Fixtures of the engine tests."""

from tests.checkpoints import (
    checkpoint,
    fallback_checkpoint,
    llama_checkpoint,
    packable_checkpoint,
    qwen_checkpoint,
)

__all__ = [
    "checkpoint",
    "fallback_checkpoint",
    "llama_checkpoint",
    "packable_checkpoint",
    "qwen_checkpoint",
]
