"""Makes a tiny Phi-3 checkpoint of random weights, with a tokenizer trained here: no download.

`make_checkpoint` is the function; `checkpoint` and `fallback_checkpoint` are session fixtures that
a folder's `conftest.py` (or a test file) imports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

Kind = Literal["bytes", "fallback"]

MARKERS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "'<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CORPUS = (
    "Rate cuts loom over the market, the central bank said on Tuesday.",
    '{"title":"Rates","main_summary":"The bank cut.","key_points":["a","b","c"],'
    '"category":"Economy","sentiment":"neutral","read_time_min":3}',
    "Analysts expect growth of 2.5 percent; prices rose. Investors were calm, and shares gained.",
    "Menteri keuangan mengatakan bahwa inflasi akan turun. Die Zentralbank senkte die Zinsen.",
    "L'économie française a progressé. 日本銀行は金利を引き上げた。 Цены выросли.",
)


def make_checkpoint(
    folder: Path,
    *,
    kind: Kind = "bytes",
    template: str | None = TEMPLATE,
    layers: int = 1,
    context_tokens: int = 2048,
    tied: bool = False,
    seed: int = 0,
) -> Path:
    """Write config, weights (safetensors) and tokenizer to `folder`, and return it.

    `kind`: "bytes" is a byte-level BPE, "fallback" one with "▁" for spaces and `<0xNN>` tokens,
    as Phi-3 and Llama have.
    """
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM, PreTrainedTokenizerFast

    backend = _byte_level() if kind == "bytes" else _byte_fallback()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>" if kind == "fallback" else None,
        extra_special_tokens=list(MARKERS[1:]),
    )
    tokenizer.chat_template = template
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = Phi3Config(
        # A little more than the tokenizer knows, as in Phi-3 itself.
        vocab_size=len(tokenizer) + 5,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context_tokens,
        original_max_position_embeddings=context_tokens,
        sliding_window=None,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.5,
    )
    model = Phi3ForCausalLM(config)
    model.generation_config.eos_token_id = [
        tokenizer.eos_token_id,
        tokenizer.convert_tokens_to_ids("<|end|>"),
    ]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model, byte-level tokenizer."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def fallback_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and a tokenizer of Phi-3's own kind."""
    return make_checkpoint(tmp_path_factory.mktemp("fallback"), kind="fallback")


def _byte_level() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(MARKERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


def _byte_fallback() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    pieces = ["<unk>", *MARKERS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        CORPUS * 3,
        trainers.BpeTrainer(vocab_size=700, special_tokens=pieces, show_progress=False),
    )
    model = json.loads(trained.to_str())["model"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=model["vocab"],
            merges=[tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", *MARKERS])
    return tokenizer
