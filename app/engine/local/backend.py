"""What the local engine asks of whatever loads a model and runs it (`ModelServiceV4`, the class).

A protocol and the request's fields as its options; no model and no thread is known here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from app.core.errors import EngineUnavailable
from app.engine.base import Fitted, GenerateRequest, Message, Status, Tool


class ModelBackend(Protocol):
    """What loads the model and runs it.

    `stream_generation` is called in a thread and returns any iterable of text; if that is a
    generator which returns a `Finish`, its counts are used. A piece may carry `logprobs`. A loader
    without `fit` takes every request; one without `reads_images` reads none.
    """

    def fit(self, request: GenerateRequest, *, may_drop: bool) -> Fitted: ...

    def unload_if_idle(self, idle_s: float) -> bool: ...

    def stream_generation(
        self,
        prompt: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float,
        seed: int | None,
        stop: Sequence[str],
        json_schema: Mapping[str, Any] | None,
        images: Sequence[bytes],
        presence_penalty: float,
        frequency_penalty: float,
        top_logprobs: int | None,
        tools: Sequence[Tool],
        tool_choice: str,
        parallel_tool_calls: bool,
        thinking: bool | None,
        stop_event: threading.Event,
        on_status: Callable[[Status], None],
    ) -> Iterable[str]: ...

    def unavailable(self) -> EngineUnavailable | None: ...

    def model_id(self) -> str: ...

    def info(self) -> dict[str, Any]: ...

    def prepare(self) -> None: ...


def options_of(request: GenerateRequest) -> dict[str, Any]:
    """Return the fields of a request that the model needs, beside the messages."""
    return {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": request.stop,
        "json_schema": request.json_schema,
        "images": request.images,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "top_logprobs": request.top_logprobs,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "parallel_tool_calls": request.parallel_tool_calls,
        "thinking": request.thinking,
    }
