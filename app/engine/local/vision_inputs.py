"""Images among the words of a prompt, for models that transformers loads with a processor.

Reads the processor without torchvision, puts images where a conversation places them, and counts
what they cost. It knows no weights, no context and no files of people.
"""

from __future__ import annotations

import io
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.core.errors import Unsupported
from app.engine.base import Message, Tool

# 1,024 tokens of Qwen3-VL. Its own limit, 16,384 tokens an image, takes minutes on a CPU.
MAX_IMAGE_PIXELS = 1_048_576


def read_processor(folder: Path, tokenizer: Any, *, trust_remote_code: bool = False) -> Any:
    """Return the processor of a checkpoint, with that tokenizer; images need no torchvision.

    Video processors exist only on torchvision, and without one `AutoProcessor` loads none of
    Qwen's processors (measured on 5.24). Frames are images here, so that this part is left out.
    A tokenizer without a chat template gets the one that older checkpoints keep beside it.

    Raises:
        Exception: whatever transformers makes of files that are missing or damaged.
    """
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    mapping: Any = PROCESSOR_MAPPING
    known = mapping.get(type(AutoConfig.from_pretrained(str(folder), **options)), None)
    kind: Any = AutoProcessor
    if known is not None and "video_processor" in known.get_attributes():
        kind = _without_video(known)
    processor = kind.from_pretrained(folder, **options)
    _bound(processor.image_processor)
    processor.tokenizer = tokenizer
    tokenizer.chat_template = tokenizer.chat_template or processor.chat_template
    return processor


def encode(
    processor: Any,
    messages: Sequence[Message],
    images: Sequence[bytes],
    *,
    tools: Sequence[Tool],
    thinking: bool | None,
) -> dict[str, Any]:
    """Return all that the model takes; input_ids: (1, prompt_tokens) int64.

    Raises:
        Unsupported: invalid_image, unsupported_messages.
    """
    text, order = _placed(processor, messages, tools=tools, thinking=thinking)
    with _image_errors():
        encoded = processor(
            text=[text],
            images=[_opened(images[index]) for index in order],
            add_special_tokens=False,
            return_tensors="pt",
        )
    return dict(encoded)


def prompt_tokens(
    processor: Any,
    messages: Sequence[Message],
    images: Sequence[bytes],
    *,
    tools: Sequence[Tool],
    thinking: bool | None,
) -> int:
    """Return how long the prompt of `encode` will be; the images are measured, not decoded.

    Raises:
        Unsupported: as `encode`.
    """
    from app.engine.prompting.template import tokens_of

    text, order = _placed(processor, messages, tools=tools, thinking=thinking)
    # Each image stands in the text as one token so far.
    with _image_errors():
        more = sum(_image_tokens(processor, images[index]) - 1 for index in order)
    return len(tokens_of(processor.tokenizer, text)) + more


def placed_in(messages: Sequence[Message]) -> set[int]:
    """Return which images the messages place."""
    return {part for message in messages for part in message.parts if isinstance(part, int)}


def _without_video(known: Any) -> Any:
    """Return the processor class without its video part: transformers reads the signature."""

    class ImagesOnly(known):  # type: ignore[misc, unused-ignore]
        def __init__(
            self,
            image_processor: Any = None,
            tokenizer: Any = None,
            chat_template: str | None = None,
        ) -> None:
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    return ImagesOnly


def _placed(
    processor: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool],
    thinking: bool | None,
) -> tuple[str, list[int]]:
    """Return the prompt with the template's own image markup, and the order of the images in it.

    Images go through the template as words that nobody can guess: the markup of a text that people
    wrote is broken up there, and these words are not.
    """
    from app.engine.prompting.template import render

    word = f"image-{secrets.token_hex(8)}-"
    marked = [
        replace(message, content=_joined(message.parts, word), parts=())
        if placed_in([message])
        else message
        for message in messages
    ]
    text = render(processor.tokenizer, marked, tools=tools, thinking=thinking)
    pattern = re.compile(rf"{word}(\d+)\.")
    order = [int(found[1]) for found in pattern.finditer(text)]
    markup = _markup(processor)
    return pattern.sub(lambda _: markup, text), order


def _joined(parts: Sequence[str | int], word: str) -> str:
    """Write the parts in a row, with a line break between texts that have no image between them."""
    text = ""
    for before, part in zip((0, *parts), parts, strict=False):
        if isinstance(part, int):
            text += f"{word}{part}."
        else:
            text += part if isinstance(before, int) else f"\n{part}"
    return text


def _markup(processor: Any) -> str:
    """Return what the template writes for an image between words, or the bare token."""
    before, after = "before-the-image", "after-the-image"
    parts = [
        {"type": "text", "text": before},
        {"type": "image"},
        {"type": "text", "text": after},
    ]
    token = str(processor.image_token)
    try:
        written = processor.tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}], tokenize=False
        )
    except Exception:
        # A template fails in whatever way its expressions do.
        return token
    markup = str(written).partition(before)[2].partition(after)[0]
    return markup if markup.count(token) == 1 else token


def _image_tokens(processor: Any, data: bytes) -> int:
    """Return how many tokens an image takes."""
    from PIL import Image

    measure = processor.image_processor
    if hasattr(measure, "get_number_of_image_patches") and hasattr(measure, "merge_size"):
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
        patches: int = measure.get_number_of_image_patches(height, width)
        return patches // int(measure.merge_size) ** 2
    # Other processors say it only by doing it.
    done = processor(text=[processor.image_token], images=[_opened(data)], add_special_tokens=False)
    return len(done["input_ids"][0])


@contextmanager
def _image_errors() -> Iterator[None]:
    """Say what is wrong with an image that the processor refuses, such as a strip."""
    try:
        yield
    except (ValueError, OSError) as exc:
        raise Unsupported(
            "The vision model cannot take an image of this shape: send another one.",
            code="invalid_image",
            param="messages",
        ) from exc


def _bound(image_processor: Any) -> None:
    """Bound the pixels of an image, where the processor counts pixels and not the longer side."""
    size = image_processor.size
    if hasattr(image_processor, "merge_size") and size["longest_edge"] > MAX_IMAGE_PIXELS:
        image_processor.size = type(size)(
            shortest_edge=min(size["shortest_edge"], MAX_IMAGE_PIXELS),
            longest_edge=MAX_IMAGE_PIXELS,
        )


def _opened(data: bytes) -> Any:
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    image.load()
    return image
