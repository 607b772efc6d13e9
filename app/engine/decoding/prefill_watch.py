"""What transformers' `generate` lacks: one run at a time, progress and cancelling in a prefill.

Knows a model as a stack of layers that take hooks; torch is not imported here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from app.engine.base import Status

_PROGRESS_STEP = 0.1
_TURN_SLICE_S = 0.05
# Whose turn it is, for each model that `generate` runs.
_turns: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_turns_lock = threading.Lock()


class Stopped(Exception):
    """Leaves `generate` before it or in the middle of the prompt, after a cancel."""


@contextmanager
def turn(model: Any, stop_event: threading.Event) -> Iterator[None]:
    """Let one `generate` after the other run on a CPU: two at once take twice as long each.

    Memory is counted for one, too.

    Raises:
        Stopped: it was cancelled before its turn.
    """
    if model.device.type != "cpu":
        yield
        return
    with _turns_lock:
        own = _turns.setdefault(model, threading.Lock())
    while not own.acquire(timeout=_TURN_SLICE_S):
        if stop_event.is_set():
            raise Stopped
    try:
        yield
    finally:
        own.release()


class PrefillProgress:
    """During the prefill: reports progress by layers, and raises `Stopped` after a cancel.

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
        self._reported = 0.0
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
            if progress - self._reported >= _PROGRESS_STEP:
                self._reported = progress
                self._on_status(Status("reading", progress=progress))

        return hook
