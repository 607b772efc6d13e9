"""The tokenizer of a GGUF file: its vocabulary, special tokens and chat template.

transformers makes the tokenizer; what it does not know of, the cutting of digits, is added here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog

from app.engine.checkpoints.gguf.config import token_id
from app.engine.checkpoints.gguf.header import TEXTS, GgufHeader, damaged, read_header

# Vocabularies in which each digit is a token, as their makers' own tokenizer.json says.
_SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r")
_SPECIAL = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
# What ends a turn in one family or another: files name one end only, and chats end with several.
_ENDS = frozenset(
    (
        "<|im_end|>",
        "<|end|>",
        "<|eot_id|>",
        "<|eom_id|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|end_of_text|>",
    )
)
_CONTROL, _UNUSED = 3, 5
_MOST_VOCABULARY = 2_000_000

log = structlog.get_logger(__name__)


def read_gguf_tokenizer(path: Path) -> Any:
    """Make the tokenizer that the file describes.

    Raises:
        EngineUnavailable: `model_load_failed`.
    """
    import transformers
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        GGUF_TOKENIZER_MAPPING,
        convert_gguf_tokenizer,
    )

    header = read_header(path, texts=TEXTS)
    tokens = _tokens(header)
    fields = {
        own: header.fields[f"tokenizer.{name}"]
        for name, own in GGUF_TOKENIZER_MAPPING["tokenizer"].items()
        if f"tokenizer.{name}" in header.fields
    }
    fields["tokens"] = tokens
    convert: Any = convert_gguf_tokenizer
    backend, _ = convert(header.architecture, fields)
    kind = fields.get("tokenizer_type")
    if kind == "gpt2" and fields.get("pre_tokenizer_type") in _SINGLE_DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    special = {}
    for name, own in _SPECIAL.items():
        id_ = token_id(header, name)
        if id_ is not None and id_ < len(tokens):
            special[own] = tokens[id_]
    # A vocabulary of this kind that does not say otherwise begins every text with its first token.
    adds_bos = header.fields.get("tokenizer.ggml.add_bos_token", kind == "llama")
    make: Any = transformers.PreTrainedTokenizerFast
    return make(
        tokenizer_object=backend,
        chat_template=_template(header),
        add_bos_token=bool(adds_bos) and "bos_token" in special,
        add_eos_token=False,
        model_max_length=header.of_model("context_length"),
        clean_up_tokenization_spaces=False,
        **special,
    )


def gguf_end_ids(path: Path) -> list[int]:
    """Return the ids that end a text or a turn, as the file and its vocabulary name them.

    Raises:
        EngineUnavailable: `model_load_failed`.
    """
    header = read_header(path, texts=TEXTS)
    named = {token_id(header, name) for name in ("eos", "eot", "eom")}
    kinds = header.fields.get("tokenizer.ggml.token_type") or []
    for id_, (token, kind) in enumerate(zip(_tokens(header), kinds, strict=False)):
        if token in _ENDS and kind == _CONTROL:
            named.add(id_)
    return sorted(id_ for id_ in named if id_ is not None)


def _tokens(header: GgufHeader) -> list[str]:
    tokens = header.fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not 0 < len(tokens) <= _MOST_VOCABULARY:
        raise damaged("it holds no vocabulary")
    # Rows that no token has are common; a token without a row is not.
    if len(tokens) > header.tensors["token_embd.weight"].rows:
        raise damaged("its vocabulary is larger than its embedding")
    kinds = header.fields.get("tokenizer.ggml.token_type") or []
    used = len(tokens)
    # Files name rows of the embedding that have no token, which no text should ever show.
    while used > 1 and used <= len(kinds) and kinds[used - 1] == _UNUSED:
        used -= 1
    return tokens[:used]


def _template(header: GgufHeader) -> str | None:
    found = header.fields.get("tokenizer.chat_template")
    return found if isinstance(found, str) else None
