"""Tiny checkpoints of other families of vision models, of random weights: no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.checkpoints import byte_level
from tests.made_once import made_once

_TURNS = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- 'IMAGE' }}"
    "{%- elif part.type == 'text' %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 64,
    "patch_size": 16,
    "initializer_range": 0.3,
}


@made_once
def make_idefics3(folder: Path) -> Path:
    """Write a tiny Idefics3, SmolVLM's family: a large image comes in tiles and as a whole."""
    import torch
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration

    markers = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    own = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    tiles = tuple(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4))
    ids = _tokenizer(folder, (*markers, *own, *tiles), image="<image>")
    torch.manual_seed(0)
    config = Idefics3Config(
        text_config={"model_type": "llama", "vocab_size": len(ids), **_TEXT},
        vision_config=_VISION,
        image_token_id=ids["<image>"],
        scale_factor=2,
        tie_word_embeddings=False,
        pad_token_id=ids["<|endoftext|>"],
    )
    _save(Idefics3ForConditionalGeneration(config), folder, ids)
    _settings(
        folder,
        {
            "processor_class": "Idefics3Processor",
            "image_processor_type": "Idefics3ImageProcessor",
            "size": {"longest_edge": 128},
            "max_image_size": {"longest_edge": 64},
            "do_image_splitting": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
        {"processor_class": "Idefics3Processor", "image_seq_len": 4},
    )
    return folder


@made_once
def make_gemma3(folder: Path) -> Path:
    """Write a tiny Gemma 3 with a SigLIP tower: each image is a square and so many soft tokens."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    markers = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    own = ("<start_of_image>", "<image_soft_token>", "<end_of_image>")
    ids = _tokenizer(
        folder,
        (*markers, *own),
        image="<start_of_image>",
        boi_token="<start_of_image>",
        image_token="<image_soft_token>",
        eoi_token="<end_of_image>",
    )
    torch.manual_seed(0)
    config = Gemma3Config(
        text_config={"vocab_size": len(ids), "sliding_window": 512, **_TEXT},
        vision_config=_VISION,
        mm_tokens_per_image=4,
        image_token_index=ids["<image_soft_token>"],
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        tie_word_embeddings=False,
    )
    model = Gemma3ForConditionalGeneration(config)
    # transformers makes it of zeros: no image would be seen.
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=3.0)
    _save(model, folder, ids)
    _settings(
        folder,
        {
            "processor_class": "Gemma3Processor",
            "image_processor_type": "Gemma3ImageProcessor",
            "size": {"height": 64, "width": 64},
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_seq_length": 4,
        },
        {"processor_class": "Gemma3Processor", "image_seq_length": 4},
    )
    return folder


def _tokenizer(folder: Path, markers: tuple[str, ...], *, image: str, **own: str) -> dict[str, int]:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(markers),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=own or list(markers),
    )
    tokenizer.chat_template = _TURNS.replace("IMAGE", image)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return dict(tokenizer.get_vocab())


def _save(model: Any, folder: Path, ids: dict[str, int]) -> None:
    model.generation_config.eos_token_id = [ids["<|im_end|>"], ids["<|endoftext|>"]]
    model.save_pretrained(folder)


def _settings(folder: Path, image: dict[str, Any], processor: dict[str, Any]) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(image), "utf-8")
    (folder / "processor_config.json").write_text(json.dumps(processor), "utf-8")
