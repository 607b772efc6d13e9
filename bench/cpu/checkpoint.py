"""A checkpoint of the Phi-3-mini shape with random weights and a tokenizer made here: no download.

Speed and memory do not depend on the values of weights. torch and transformers are imported when
something is written; the shape itself needs neither.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

WEIGHT_STD = 0.02
SPARE_BYTES = 1_000_000_000
# Phi-3's vocabulary has this many rows more than its tokenizer has entries.
UNUSED_ROWS = 53
MARKERS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "'<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Names and marks of JSON come in tokens of a few characters, as in a trained vocabulary.
JSON_MERGES = (
    *(("{", '"'), ('"', ":"), ('":', '"'), ('"', ","), ('",', '"'), ('"', "]"), ('"]', "}")),
    *(('"', "}"), ("[", '"'), (":", "["), (":[", '"')),
)
SENTENCES = (
    "The central bank cut its main interest rate by half a point on Tuesday and said that more "
    "cuts may follow this year. Inflation fell close to the target while shares rose and the "
    "currency lost ground within an hour. Exporters welcomed the decision but savers will earn "
    "less on their deposits from July. The governor told reporters that growth is too weak and "
    "that the board had voted for the step with a clear majority. "
)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Phi-3; the defaults are those of Phi-3-mini-4k."""

    layers: int = 32
    hidden: int = 3072
    intermediate: int = 8192
    heads: int = 32
    vocabulary: int = 32064
    window: int = 2047
    positions: int = 4096

    @property
    def layer_elements(self) -> int:
        """Return the weights of one layer's linear maps: attention, and the gated product."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.intermediate

    @property
    def head_elements(self) -> int:
        """Return the weights of the head; the embedding has as many."""
        return self.vocabulary * self.hidden

    @property
    def elements(self) -> int:
        """Return all weights."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.layers * self.layer_elements + 2 * self.head_elements + norms

    @property
    def name(self) -> str:
        """Return a name for files of this shape."""
        sizes = (self.layers, self.hidden, self.intermediate, self.heads, self.vocabulary)
        return "phi3-" + "x".join(str(size) for size in sizes)


def make_checkpoint(shape: Shape, folder: Path, tokenizer: str | None) -> Path:
    """Write the checkpoint below `folder` unless it is there, and return where it is.

    The tokenizer is written every time: it may be another one than before.

    Raises:
        SystemExit: the disk has no room for it.
    """
    made = folder / shape.name
    if not (made / "model.safetensors.index.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        require_disk(folder, shape.elements * 2)
        unfinished = folder / f"{shape.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        _write_weights(shape, unfinished)
        shutil.rmtree(made, ignore_errors=True)
        unfinished.rename(made)
    _write_tokenizer(shape, made, tokenizer)
    return made


def require_disk(folder: Path, need_bytes: int) -> None:
    """Leave if there is no room for `need_bytes` and a spare gigabyte.

    Raises:
        SystemExit: with both numbers.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < need_bytes + SPARE_BYTES:
        raise SystemExit(
            f"{folder} needs {(need_bytes + SPARE_BYTES) / 1e9:.1f} GB of disk for a file of "
            f"random weights, and {free_bytes / 1e9:.1f} GB are free: use --quick or free some."
        )


def _write_weights(shape: Shape, folder: Path) -> None:
    """Write one shard for each layer, so that no more than one is held in memory."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(0)
    placed: dict[str, str] = {}

    def save(file: str, sizes: dict[str, tuple[int, ...]]) -> None:
        tensors = {
            name: torch.ones(size, dtype=torch.bfloat16)
            if len(size) == 1
            else torch.empty(size, dtype=torch.bfloat16).normal_(0, WEIGHT_STD, generator=random)
            for name, size in sizes.items()
        }
        save_file(tensors, folder / file, metadata={"format": "pt"})
        placed.update(dict.fromkeys(sizes, file))

    hidden, vocabulary = shape.hidden, shape.vocabulary
    save("ends-1.safetensors", {"model.embed_tokens.weight": (vocabulary, hidden)})
    for layer in range(shape.layers):
        save(f"layer-{layer:02}.safetensors", _layer_sizes(shape, f"model.layers.{layer}."))
    save(
        "ends-2.safetensors",
        {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)},
    )
    index = {"metadata": {"total_size": shape.elements * 2}, "weight_map": placed}
    # Last: what has an index is whole.
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _layer_sizes(shape: Shape, prefix: str) -> dict[str, tuple[int, ...]]:
    hidden, intermediate = shape.hidden, shape.intermediate
    return {
        f"{prefix}input_layernorm.weight": (hidden,),
        f"{prefix}self_attn.qkv_proj.weight": (3 * hidden, hidden),
        f"{prefix}self_attn.o_proj.weight": (hidden, hidden),
        f"{prefix}post_attention_layernorm.weight": (hidden,),
        f"{prefix}mlp.gate_up_proj.weight": (2 * intermediate, hidden),
        f"{prefix}mlp.down_proj.weight": (hidden, intermediate),
    }


def _write_tokenizer(shape: Shape, folder: Path, other: str | None) -> None:
    """Write the tokenizer (a copy of `other`, or one made here) and the config that fits it."""
    import transformers

    if other:
        tokenizer = transformers.AutoTokenizer.from_pretrained(other, local_files_only=True)
    else:
        tokenizer = _made_up(shape.vocabulary - UNUSED_ROWS)
    if len(tokenizer) > shape.vocabulary:
        raise SystemExit(
            f"The tokenizer has {len(tokenizer)} entries, the vocabulary {shape.vocabulary} rows."
        )
    tokenizer.save_pretrained(folder)
    end_ids = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    config = transformers.Phi3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.positions,
        original_max_position_embeddings=shape.positions,
        sliding_window=shape.window,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.architectures = ["Phi3ForCausalLM"]
    config.dtype = "bfloat16"
    config.save_pretrained(folder)
    known = [id_ for id_ in end_ids if id_ is not None]
    transformers.GenerationConfig(eos_token_id=known).save_pretrained(folder)


def _made_up(entries: int) -> Any:
    """Return a byte-level BPE of so many entries, whose merges are spelt out and not trained."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {char: id_ for id_, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges: list[tuple[str, str]] = []
    for left, right in islice(_merges(), max(0, entries - len(vocabulary) - len(MARKERS))):
        vocabulary[left + right] = len(vocabulary)
        merges.append((left, right))
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    make: Any = transformers.PreTrainedTokenizerFast
    tokenizer = make(
        tokenizer_object=backend,
        eos_token=MARKERS[0],
        pad_token=MARKERS[0],
        extra_special_tokens=list(MARKERS[1:]),
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _merges() -> Iterator[tuple[str, str]]:
    """Yield merges without end in sight: marks of JSON, then letters by two, three and four."""
    letters = ascii_lowercase
    pairs = ["".join(pair) for pair in product(letters, repeat=2)]
    yield from JSON_MERGES
    yield from product(letters, repeat=2)
    yield from product("Ġ", letters)
    yield from product("Ġ", pairs)
    yield from product(pairs, letters)
    yield from product(pairs, repeat=2)


def article(tokens: int, count: Callable[[str], int]) -> str:
    """Return a text for which `count` gives `tokens`, or the next smaller number there is."""
    words = (SENTENCES * (1 + tokens * 8 // len(SENTENCES))).split()
    low, high = 0, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        if count(" ".join(words[:middle])) <= tokens:
            low = middle
        else:
            high = middle - 1
    text = " ".join(words[:low])
    # A short word is one token in most vocabularies, where a long one may have been too much.
    while count(text + " a") <= tokens:
        text += " a"
    return text
