"""The lazily loaded model of the V4 summaries and its streamed generation (S0.11 to S0.15, C24).

Nothing is loaded, and neither torch nor transformers imported, before the first `get_model`. It
does not know who asks, or how many may ask at once: a queue stands in front of it.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import structlog

from app.core.errors import EngineUnavailable, GenerationFailed, Unsupported
from app.engine.base import Finish, Message, Status
from app.engine.failures import raised_at
from app.services.model_loading import DEFAULT_CONTEXT_TOKENS, LazyModel, ModelConfig, OnStatus

if TYPE_CHECKING:
    from app.engine.grammar import Vocabulary

DEFAULT_MAX_TOKENS = 1024
DEFAULT_TEMPERATURE = 0.2

log = structlog.get_logger(__name__)


class ModelServiceV4:
    """A class-level singleton: all methods are class methods. A subclass is a model of its own."""

    _lazy: ClassVar[LazyModel] = LazyModel(ModelConfig())
    _kept_vocabulary: ClassVar[tuple[Any, Vocabulary] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._lazy = LazyModel(ModelConfig())
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
        weights, reason, need_bytes, available_bytes; the last four are None until a load begins.
        """
        return cls._lazy.info()

    @classmethod
    def unload(cls) -> None:
        """Forget the model and every remembered failure."""
        cls._lazy = LazyModel(cls._lazy.config)
        cls._kept_vocabulary = None

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
    def stream_generation(
        cls,
        prompt: str | Sequence[Message],
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        temperature: float = DEFAULT_TEMPERATURE,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        json_schema: Mapping[str, Any] | None = None,
        stop_event: threading.Event | None = None,
        on_status: OnStatus | None = None,
    ) -> Generator[str, None, Finish]:
        """Yield the generated text piece by piece, and return its `Finish`.

        A string is one user message. Setting `stop_event`, or closing the generator, stops the
        model within a token. `on_status` is called from the caller's thread and the model's.

        Raises:
            EngineUnavailable: as `get_model`, before the first status.
            Unsupported: the prompt, the schema or the budget cannot be honoured.
            GenerationFailed: the model failed.
        """
        messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
        if stop and json_schema is not None:
            raise Unsupported("stop cannot be combined with a JSON schema: leave one of them out.")
        stop_event = stop_event or threading.Event()
        tell = on_status or _tell_nobody
        with cls._lazy.listening(tell):
            model, tokenizer = cls.get_model()

        from app.engine.generation import Sampling, stream_text
        from app.engine.prompt import encode_prompt, end_ids

        eos_ids = end_ids(model, tokenizer)
        ids = encode_prompt(
            tokenizer,
            messages,
            context_tokens=_context_tokens(model.config, cls._lazy.config.context_tokens),
            max_tokens=max_tokens,
        )
        grammar = None
        if json_schema is not None:
            from app.engine.grammar import GrammarProcessor

            grammar = GrammarProcessor(
                cls._vocabulary(tokenizer, eos_ids),
                json_schema,
                max_tokens=max_tokens,
                chars_per_token=_chars_per_token(tokenizer, ids),
            )
        pieces = stream_text(
            model,
            tokenizer,
            ids,
            sampling=Sampling(
                max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
            ),
            eos_ids=eos_ids,
            stop=stop,
            grammar=grammar,
            stop_event=stop_event,
            on_status=tell,
        )
        try:
            return (yield from pieces)
        except GenerationFailed as exc:
            cause = exc.__cause__ or exc
            log.error("generate_failed", error=type(cause).__name__, where=raised_at(cause))
            raise

    @classmethod
    def _vocabulary(cls, tokenizer: Any, eos_ids: list[int]) -> Vocabulary:
        from app.engine.grammar import Vocabulary

        kept = cls._kept_vocabulary
        if kept is None or kept[0] is not tokenizer:
            kept = cls._kept_vocabulary = (tokenizer, Vocabulary(tokenizer, eos_ids))
        return kept[1]


def _tell_nobody(status: Status) -> None:
    del status


def _context_tokens(config: Any, limit: int | None) -> int:
    """Return the model's own context, or less if so configured."""
    own = int(getattr(config, "max_position_embeddings", None) or DEFAULT_CONTEXT_TOKENS)
    return min(own, limit or own)


def _chars_per_token(tokenizer: Any, ids: Sequence[int]) -> float:
    """Return how many characters a token of the prompt holds; the answer will be like the prompt.

    A tenth is taken off, because generated text is not always tokenised as well as given text.
    """
    text = tokenizer.decode(ids, skip_special_tokens=True)
    return max(0.4, min(4.0, 0.9 * len(text) / max(1, len(ids))))
