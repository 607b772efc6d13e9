"""The model of the vision role (C6, C7, S1.12): text and images in, text out.

It loads through `AutoModelForImageTextToText` and places images where the model's own template
puts them. It knows nothing of files or addresses: images come encoded, videos as their frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import structlog

from app.core.errors import EngineUnavailable, Unsupported
from app.engine.base import Fitted, GenerateRequest, Message
from app.engine.checkpoints.config import ModelConfig
from app.engine.checkpoints.files import find_model, missing_path
from app.engine.checkpoints.load import FAILED_LOAD_RETRY_S
from app.engine.local.model_service import ModelService
from app.engine.local.preflight import thinking_of
from app.engine.local.vision_inputs import encode, placed_in, prompt_tokens, read_processor

VISION_MODEL_ID = "Qwen/Qwen3-VL-2B-Thinking"
# The model's own 262,144 tokens would need 62 GB of key-value cache.
CONTEXT_TOKENS = 8192
# `generate` makes the mask itself, from the ids.
_NOT_INPUTS = ("input_ids", "attention_mask")

log = structlog.get_logger(__name__)


class VisionModel(ModelService):
    """`VISION_MODEL_ID`: a class-level singleton of its own; a subclass is one more."""

    reads_images: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {
        "model_id": VISION_MODEL_ID,
        "auto_class": "AutoModelForImageTextToText",
        "context_tokens": CONTEXT_TOKENS,
        "setting": "VISION_MODEL_ID",
    }
    _kept_processor: ClassVar[tuple[Any, Any] | None] = None

    @classmethod
    def get_model(cls) -> tuple[Any, Any]:
        """Return (model, tokenizer), as `ModelService.get_model`, and have the processor ready.

        Raises:
            EngineUnavailable: also when the checkpoint cannot read images.
        """
        model, tokenizer = super().get_model()
        cls._processor(tokenizer)
        return model, tokenizer

    @classmethod
    def fit(cls, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        """As `ModelService.fit`; the images of messages that were dropped go with them.

        Raises:
            Unsupported: also image_not_placed, invalid_image.
        """
        _check_placed(request.messages, len(request.images))
        # The chat template may come with the processor.
        cls._processor(cls._lazy.tokenizer())
        fitted = super().fit(request, may_drop=may_drop)
        return replace(fitted, request=_without_unplaced(fitted.request))

    @classmethod
    def _encode(
        cls, model: Any, tokenizer: Any, request: GenerateRequest
    ) -> tuple[list[int], dict[str, Any]]:
        """Return the ids of the prompt and the tensors of its images.

        Of Qwen's models: pixel_values (patches, values) float32; image_grid_thw (images, 3) int64,
        in patches; mm_token_type_ids (1, prompt_tokens) int64, 1 where an image stands.

        Raises:
            Unsupported: context_length_exceeded, invalid_image, image_not_placed.
        """
        if not request.images:
            return super()._encode(model, tokenizer, request)
        _check_placed(request.messages, len(request.images))
        encoded = encode(
            cls._processor(tokenizer),
            request.messages,
            request.images,
            tools=request.tools,
            thinking=thinking_of(request),
        )
        ids = encoded["input_ids"][0].tolist()
        context = cls._lazy.context_tokens()
        if len(ids) + request.max_tokens > context:
            raise Unsupported(
                f"The prompt with its images is {len(ids)} tokens long, and with "
                f"{request.max_tokens} of answer does not fit in the model's context of {context}: "
                "send fewer images or a shorter text, or lower max_tokens.",
                code="context_length_exceeded",
                param="messages",
            )
        tensors = {name: value for name, value in encoded.items() if name not in _NOT_INPUTS}
        return ids, {name: value.to(model.device) for name, value in tensors.items()}

    @classmethod
    def _prompt_tokens(cls, tokenizer: Any, request: GenerateRequest) -> int:
        """Return how long the prompt of `_encode` will be; the images are measured, not decoded."""
        return prompt_tokens(
            cls._processor(tokenizer),
            request.messages,
            request.images,
            tools=request.tools,
            thinking=thinking_of(request),
        )

    @classmethod
    def _processor(cls, tokenizer: Any) -> Any:
        kept = cls._kept_processor
        if kept is None or kept[0] is not tokenizer:
            processor = _read_processor(cls._lazy.config, tokenizer)
            kept = cls._kept_processor = (tokenizer, processor)
        return kept[1]


def _read_processor(config: ModelConfig, tokenizer: Any) -> Any:
    folder = find_model(config.model_id, config.revision)
    if folder is None:
        raise missing_path(config.model_id)
    try:
        return read_processor(folder, tokenizer, trust_remote_code=config.trust_remote_code)
    except Exception as exc:
        log.error("processor_load_failed", model_id=config.model_id, error=type(exc).__name__)
        raise EngineUnavailable(
            "The vision model cannot read images: its image processor is missing, damaged, or "
            "needs a library that is not installed. The server's log says more.",
            code="model_load_failed",
            retry_after_s=FAILED_LOAD_RETRY_S,
        ) from exc


def _check_placed(messages: Sequence[Message], images: int) -> None:
    # An image that is dropped without a word makes the model describe what it never saw.
    if placed_in(messages) != set(range(images)):
        raise Unsupported(
            "Every image must stand in a message, and every place for one must have its image.",
            code="image_not_placed",
            param="messages",
        )


def _without_unplaced(request: GenerateRequest) -> GenerateRequest:
    """Drop the images that no message places any more, and count the others anew."""
    left = sorted(placed_in(request.messages))
    place = {index: number for number, index in enumerate(left)}
    messages = tuple(
        replace(
            message,
            parts=tuple(part if isinstance(part, str) else place[part] for part in message.parts),
        )
        for message in request.messages
    )
    return replace(request, messages=messages, images=tuple(request.images[i] for i in left))
