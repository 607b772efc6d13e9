"""Watches a model while it reads its prompt: how far it is, and whether it should go on.

Knows a model as a stack of layers that take hooks; torch is not imported here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from app.engine.base import Status

_PROGRESS_STEP = 0.1


class Stopped(Exception):
    """Leaves `generate` in the middle of the prompt, after a cancel."""


class PromptWatch:
    """While the prompt is read: reports progress by layers, and leaves at once after a cancel.

    A prompt of 2,560 tokens takes up to two minutes in float32, and the stopping criteria are only
    asked after it.
    """

    def __init__(
        self, model: Any, stop_event: threading.Event, on_status: Callable[[Status], None]
    ) -> None:
        body = getattr(model, "model", None)
        # A model that reads images keeps its layers of text one level deeper.
        text = getattr(body, "language_model", body)
        self._layers = list(getattr(text, "layers", ()))
        self._stop_event = stop_event
        self._on_status = on_status
        self._thread = 0
        self._told = 0.0
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        for index, layer in enumerate(self._layers):
            self._hooks.append(layer.register_forward_pre_hook(self._before(index)))

    def __exit__(self, *exc_info: object) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _before(self, index: int) -> Callable[[Any, Any], None]:
        def hook(module: Any, args: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            if self._stop_event.is_set():
                raise Stopped
            progress = round(index / len(self._layers), 3)
            if progress - self._told >= _PROGRESS_STEP:
                self._told = progress
                self._on_status(Status("reading", progress=progress))

        return hook
