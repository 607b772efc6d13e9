"""The vision role with other families than Qwen3-VL, through the same code (S1.13, S2.6): tiny
checkpoints of random weights, the real processors and the real `generate`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.engine.base import GenerateRequest
from app.engine.local.vision_model import VisionModel
from tests.engine.local.test_vision_model import answer, asked, encoded, noise
from tests.other_vision_checkpoints import make_gemma3, make_idefics3
from tests.weight_formats import of_this_run

FAMILIES = {"idefics3": (make_idefics3, "<image>"), "gemma3": (make_gemma3, "<image_soft_token>")}


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[type[VisionModel], str]]:
    make, token = FAMILIES[request.param]

    class Tiny(VisionModel):
        """The model that these tests load."""

    folder: Path = make(tmp_path_factory.mktemp(request.param))
    Tiny.configure(**of_this_run().loading(folder, reads_images=True))
    yield Tiny, token
    Tiny.unload()


Loaded = tuple[type[VisionModel], str]


def plain(colour: str) -> bytes:
    """A PNG of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(out, "PNG")
    return out.getvalue()


def test_two_images_give_two_answers(loaded: Loaded) -> None:
    """Pitfall: the image was dropped without a word. The prompt and the size are the same."""
    model, _ = loaded
    question = asked("What is this? ", 0)
    first, second, again = (answer(model, question, [noise(seed)]) for seed in (1, 2, 1))
    assert first[0] != second[0]
    assert first == again
    assert first[1].completion_tokens > 0


def test_images_stand_where_the_parts_say_and_are_counted(loaded: Loaded) -> None:
    """What is counted before the first byte is what the model reads (C8)."""
    model, token = loaded
    images = [noise(1, (64, 64)), noise(2, (200, 120))]
    messages = asked("left", 0, "middle", 1, "right")
    tokens, inputs = encoded(model, messages, images)
    left, middle, right = ("".join(tokens).index(word) for word in ("left", "middle", "right"))
    at = [place for place, found in enumerate(tokens) if found == token]
    assert at
    assert "pixel_values" in inputs
    places = [len("".join(tokens[:place])) for place in at]
    assert all(left < place < right for place in places)
    assert any(place < middle for place in places)
    assert any(place > middle for place in places)
    request = GenerateRequest(messages=tuple(messages), max_tokens=16, images=tuple(images))
    assert model._prompt_tokens(model.get_model()[1], request) == len(tokens)


def test_the_order_of_images_changes_the_answer(loaded: Loaded) -> None:
    model, _ = loaded
    images = [plain("black"), plain("white")]
    assert answer(model, asked(0, "and", 1), images) != answer(model, asked(1, "and", 0), images)


def test_an_answer_is_the_one_of_transformers_itself(loaded: Loaded) -> None:
    """What the family's own processor and `generate` give, fed with the same prompt."""
    import torch
    from transformers import AutoProcessor

    model, _ = loaded
    weights, tokenizer = model.get_model()
    image = noise(3)
    processor = AutoProcessor.from_pretrained(model.model_id())
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "image"}]},
    ]
    prompt = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    inputs = processor(
        text=[prompt],
        images=[[Image.open(io.BytesIO(image))]],
        add_special_tokens=False,
        return_tensors="pt",
    )
    with torch.inference_mode():
        out = weights.generate(**inputs, max_new_tokens=16, do_sample=False)
    text, finish = answer(model, asked("A", 0), [image])
    length = inputs["input_ids"].shape[1]
    assert finish.prompt_tokens == length
    assert text == tokenizer.decode(out[0, length:], skip_special_tokens=True)
