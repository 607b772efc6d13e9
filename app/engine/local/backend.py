"""What the local engine needs of whatever loads a model and runs it (`ModelService`, the class).

A protocol; no model and no thread is known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from app.core.errors import EngineUnavailable
from app.engine.base import Fitted, GenerateRequest, Message, Status


class ModelBackend(Protocol):
    """What loads the model and runs it; every method is called in a thread that may wait.

    `stream_generation` returns any iterable of text; if that is a generator which returns a
    `Finish`, its counts are used. A piece may be a `TextChunk`, with log probabilities.
    """

    @property
    def reads_images(self) -> bool: ...

    def model_id(self) -> str: ...

    def info(self) -> dict[str, Any]: ...

    def unavailable(self) -> EngineUnavailable | None: ...

    def prepare(self) -> None: ...

    def get_model(self) -> object: ...

    def fit(self, request: GenerateRequest, *, may_drop: bool) -> Fitted: ...

    def stream_generation(
        self,
        prompt: Sequence[Message],
        *,
        request: GenerateRequest,
        stop_event: threading.Event,
        on_status: Callable[[Status], None],
    ) -> Iterable[str]: ...

    def unload_if_idle(self, idle_s: float) -> bool: ...

    def forget_expired(self) -> None: ...
