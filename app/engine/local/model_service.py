"""A lazily loaded model behind class methods, and its streamed generation (S0.11 to S0.15).

Nothing is loaded, and neither torch nor transformers imported, before the first `get_model`. It
does not know how many generations may run at once: a queue stands in front of it.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from app.core.errors import EngineUnavailable, GenerationFailed
from app.engine.base import Finish, Fitted, GenerateRequest, Message, Status
from app.engine.checkpoints.config import ModelConfig, OnStatus
from app.engine.failures import raised_at
from app.engine.local.lazy_model import LazyModel
from app.engine.local.preflight import (
    check_constraint,
    check_fields,
    constraint_of,
    end_ids_in,
    fit_request,
    needs_vocabulary,
    thinking_of,
)

if TYPE_CHECKING:
    from app.engine.structured.vocabulary import Vocabulary

DEFAULT_MAX_TOKENS = 1024

log = structlog.get_logger(__name__)


class ModelService:
    """A class-level singleton: all methods are class methods. Each subclass is a model of its own.

    `defaults`: fields of `ModelConfig` that hold until `configure` sets others.
    """

    reads_images: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = {}
    _lazy: ClassVar[LazyModel]
    _kept_vocabulary: ClassVar[tuple[Any, Vocabulary] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._lazy = LazyModel(ModelConfig(**cls.defaults))
        cls._kept_vocabulary = None

    @classmethod
    def configure(cls, **values: Any) -> None:
        """Set fields of `ModelConfig`; what is loaded stays loaded unless a value changed.

        Raises:
            TypeError: there is no such field.
        """
        config = replace(cls._lazy.config, **values)
        if config != cls._lazy.config:
            cls._lazy = LazyModel(config)

    @classmethod
    def model_id(cls) -> str:
        """Return which model this is."""
        return cls._lazy.config.model_id

    @classmethod
    def info(cls) -> dict[str, Any]:
        """Return what is loaded and why, for `/health` and the metadata event.

        Keys: model_id, loaded, error (what is known of why it cannot be, without looking),
        weights, reason, sequences, need_bytes, available_bytes; the last five are None until a
        load begins.
        """
        return cls._lazy.info()

    @classmethod
    def unavailable(cls) -> EngineUnavailable | None:
        """Return why the model could not serve now, or None. Loads and downloads nothing."""
        return cls._lazy.unavailable()

    @classmethod
    def prepare(cls) -> None:
        """Start the download of a missing model in the background; without effect otherwise."""
        cls._lazy.prepare()

    @classmethod
    def get_model(cls) -> tuple[Any, Any]:
        """Return (model, tokenizer), loaded on the first call; concurrent calls load once.

        Raises:
            EngineUnavailable: `model_downloading`, `model_unavailable`, `not_enough_memory`,
                `weights_unsupported`, `model_load_failed`: before anything is loaded where that
                can be known, and at once while a failure is remembered.
        """
        return cls._lazy.get()

    @classmethod
    def unload(cls) -> None:
        """Forget the model and every remembered failure."""
        cls._lazy = LazyModel(cls._lazy.config)
        cls._kept_vocabulary = None

    @classmethod
    def unload_if_idle(cls, idle_s: float) -> bool:
        """Free the weights if they were not used for `idle_s`; True if that happened."""
        return cls._lazy.release_if_idle(idle_s)

    @classmethod
    def forget_expired(cls) -> None:
        """Free what was kept of requests that ended too long ago."""
        cls._lazy.forget_expired()

    @classmethod
    def fit(cls, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        """Check a request and make its prompt fit the context, without loading the weights.

        Raises:
            Unsupported: `context_length_exceeded`, or a field that cannot be honoured.
            EngineUnavailable: as `get_model`.
        """
        check_fields(request, reads_images=cls.reads_images)
        lazy = cls._lazy
        tokenizer = lazy.tokenizer()
        fitted = fit_request(
            request,
            tokenizer,
            context_tokens=lazy.context_tokens(),
            may_drop=may_drop,
            count=lambda messages: cls._prompt_tokens(
                tokenizer, replace(request, messages=tuple(messages))
            ),
        )
        if needs_vocabulary(request):
            eos_ids = end_ids_in(lazy.folder(), tokenizer)
            check_constraint(fitted.request, cls._vocabulary(tokenizer, eos_ids), tokenizer)
        return fitted

    @classmethod
    def stream_generation(
        cls,
        prompt: str | Sequence[Message],
        *,
        request: GenerateRequest | None = None,
        stop_event: threading.Event | None = None,
        on_status: OnStatus | None = None,
        **options: Any,
    ) -> Generator[str, None, Finish]:
        """Yield the generated text piece by piece, and return its `Finish`.

        A string is one user message. `options` are fields of `GenerateRequest`; `request` has
        those that are not named. Pieces carry `logprobs` with `top_logprobs`. Setting
        `stop_event`, or closing the generator, stops the model within a token. `on_status` is
        called from the caller's thread and the model's.

        Raises:
            EngineUnavailable: as `get_model`, before the first status.
            Unsupported: the prompt, the schema or the budget cannot be honoured.
            GenerationFailed: the model failed.
        """
        request = _request_of(prompt, request, options)
        check_fields(request, reads_images=cls.reads_images)
        on_status = on_status or _ignore
        lazy = cls._lazy
        with lazy.in_use():
            with lazy.listening(on_status):
                model, tokenizer = cls.get_model()
            try:
                return (
                    yield from cls._generate(
                        model, tokenizer, request, stop_event or threading.Event(), on_status
                    )
                )
            except GenerationFailed as exc:
                cause = exc.__cause__ or exc
                log.error("generate_failed", error=type(cause).__name__, where=raised_at(cause))
                raise

    @classmethod
    def _generate(
        cls,
        model: Any,
        tokenizer: Any,
        request: GenerateRequest,
        stop_event: threading.Event,
        on_status: OnStatus,
    ) -> Generator[str, None, Finish]:
        from app.engine.decoding.generate import stream_text
        from app.engine.decoding.sampling import Sampling
        from app.engine.prompting.fit import end_ids, opens_thoughts
        from app.engine.text.pieces import TextChunk

        eos_ids = end_ids(model, tokenizer)
        ids, inputs = cls._encode(model, tokenizer, request)
        thoughts = opens_thoughts(tokenizer, ids)
        vocabulary = cls._vocabulary(tokenizer, eos_ids) if needs_vocabulary(request) else None
        pieces = stream_text(
            model,
            tokenizer,
            ids,
            sampling=Sampling(**{one.name: getattr(request, one.name) for one in fields(Sampling)}),
            eos_ids=eos_ids,
            stop=request.stop,
            grammar=constraint_of(request, vocabulary, tokenizer, ids, thinking=thoughts),
            inputs=inputs,
            bytes_of=vocabulary.bytes_of if vocabulary else None,
            limits=cls._lazy.decode_limits(),
            stop_event=stop_event,
            on_status=on_status,
        )
        if not thoughts:
            return (yield from pieces)
        return (yield from _led_by(TextChunk("<think>"), pieces))

    @classmethod
    def _encode(
        cls, model: Any, tokenizer: Any, request: GenerateRequest
    ) -> tuple[list[int], dict[str, Any]]:
        """Return the ids of the prompt, and what else the model takes: nothing, for text.

        Raises:
            Unsupported: `context_length_exceeded`, or a template that refuses the messages.
        """
        from app.engine.prompting.fit import encode_prompt

        del model
        ids = encode_prompt(
            tokenizer,
            request.messages,
            context_tokens=cls._lazy.context_tokens(),
            max_tokens=request.max_tokens,
            tools=request.tools,
            thinking=thinking_of(request),
        )
        return ids, {}

    @classmethod
    def _prompt_tokens(cls, tokenizer: Any, request: GenerateRequest) -> int:
        """Return how long the prompt of `_encode` will be, without the model."""
        from app.engine.prompting.template import render, tokens_of

        text = render(
            tokenizer, request.messages, tools=request.tools, thinking=thinking_of(request)
        )
        return len(tokens_of(tokenizer, text))

    @classmethod
    def _vocabulary(cls, tokenizer: Any, eos_ids: list[int]) -> Vocabulary:
        from app.engine.structured.vocabulary import Vocabulary

        kept = cls._kept_vocabulary
        if kept is None or kept[0] is not tokenizer or kept[1].eos_ids != frozenset(eos_ids):
            kept = cls._kept_vocabulary = (tokenizer, Vocabulary(tokenizer, eos_ids))
        return kept[1]


class ChatModel(ModelService):
    """`MODEL_REPO_ID`: the model of the chat role, where that is not the summaries' own."""


def _request_of(
    prompt: str | Sequence[Message], request: GenerateRequest | None, options: Mapping[str, Any]
) -> GenerateRequest:
    """Return the whole request: `options` win over the fields of `request`."""
    messages = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if request is None:
        request = GenerateRequest(messages=messages, max_tokens=DEFAULT_MAX_TOKENS)
    # A frozen request holds tuples, whatever sequence the caller had.
    named: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    return replace(request, messages=messages, **named)


def _ignore(status: Status) -> None:
    del status


def _led_by(first: str, pieces: Generator[str, None, Finish]) -> Generator[str, None, Finish]:
    """Put a piece before the others, once there is one: the prompt ended with it."""
    with closing(pieces):
        try:
            piece = next(pieces)
        except StopIteration as end:
            finish: Finish = end.value
            return finish
        yield first
        yield piece
        return (yield from pieces)
