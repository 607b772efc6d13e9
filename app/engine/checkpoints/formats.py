"""Weight formats, the memory that each needs, and which one is chosen (C12).

It counts, and so needs no torch and loads nothing. It does not know who loads a checkpoint.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import prod

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.headers import Checkpoint
from app.engine.decoding.limits import ALONE_TOKENS, BLOCK_TOKENS, runs

# What a process with torch, a tokenizer and this server holds beside weights and cache: measured
# 0.3 GB after the imports.
RUNTIME_BYTES = 400_000_000
# Rows whose attention scores are there at once: two copies in float32 and one in the type that is
# computed in.
_SCORE_ROWS, _SCORE_BYTES = 128, 10
# Outputs of a packed layer that are made into floats at once where no kernel of our own runs.
_DENSE_OUTPUTS, _DENSE_BYTES = 512, 16


@dataclass(frozen=True, slots=True)
class Format:
    """How weights are held. `available`: the loader can load it today.

    `packed`: linear layers are made into integers, see `layer_format`.
    """

    name: str
    bytes_per_element: float
    compute_bytes: int
    available: bool
    packed: bool = False


# Largest first: `auto` takes the first one that fits. Of each 32 weights int8 has a scale of 2
# bytes, int4 a scale and a minimum.
FORMATS = (
    Format("float32", 4.0, 4, True),
    Format("bfloat16", 2.0, 2, True),
    Format("int8", 1.0625, 2, True, packed=True),
    Format("int4", 0.625, 2, True, packed=True),
)
# Perplexity against float32, on real weights (SmolLM2-135M, 4,290 tokens of articles and of the
# help of Python) by kernels of our own: what loses at most 1 % may be taken for its speed. int4 is
# 1.004 where the file has 4-bit blocks, and not known where it has none.
PERPLEXITY = {"bfloat16": 1.000, "int8": 1.0044}
# Models whose layers the packed formats do not know, such as those that read images.
FLOAT_FORMATS = tuple(item for item in FORMATS if not item.packed)
_BYTES = {item.name: item.bytes_per_element for item in FORMATS}


@dataclass(frozen=True, slots=True)
class Choice:
    """The format to load, the two sides of the comparison, and why it was chosen.

    `sequences`: so many generations may run at once, for which `need_bytes` is counted.
    `kept_tokens`: of so many tokens keys and values can be kept beside what is needed; None for as
    many as the model's context has.
    """

    format: Format
    need_bytes: int
    available_bytes: int | None
    reason: str
    sequences: int = 1
    kept_tokens: int | None = None


def layer_format(weights: str, shape: tuple[int, int], *, head: bool = False) -> str:
    """Return the format in which a packed format holds a layer of (out, in): int4, int8, bfloat16.

    The layout has squares of 32 x 32. The head is never int4: an error there is an error of the
    scores themselves.
    """
    outputs, inputs = shape
    if weights not in ("int8", "int4") or outputs % 32 or inputs % 32:
        return "bfloat16"
    return "int8" if head else weights


def rows_at_once(checkpoint: Checkpoint, *, context_tokens: int, sequences: int) -> int:
    """Return how many rows are computed at once when so many sequences read and write.

    The decoder's loop reads one prompt at a time, in chunks. `generate` reads whole ones, one after
    the other.
    """
    if runs(checkpoint.config):
        return min(context_tokens, ALONE_TOKENS) + sequences
    return context_tokens


def need_bytes(
    checkpoint: Checkpoint,
    weights: Format,
    *,
    context_tokens: int,
    prompt_tokens: int,
    sequences: int = 1,
) -> int:
    """Return the peak memory: weights, key-value caches, activations, runtime.

    `prompt_tokens`: the rows that are computed at once. Caches: keys and values of every layer for
    `context_tokens` in whole blocks, and one layer more, which is copied when it grows; as many as
    there are `sequences`. Activations: the widest point of one layer, the gate and up projections
    (2 x intermediate), their product and four hidden rows; scores of attention; and the part of a
    packed layer that is made into floats. Against 16.4 GB measured for Phi-3-mini in float32 with
    a prompt of 1,024 tokens this gives 16.7.
    """
    config = checkpoint.config
    layers = int(config.get("num_hidden_layers") or 0)
    hidden = int(config.get("hidden_size") or 0)
    heads = int(config.get("num_attention_heads") or 1)
    intermediate = int(config.get("intermediate_size") or 4 * hidden)
    capacity = -(-context_tokens // BLOCK_TOKENS) * BLOCK_TOKENS
    cache = sequences * capacity * _token_elements(checkpoint, layers + 1)
    activations = prompt_tokens * (3 * intermediate + 4 * hidden)
    scores = heads * min(prompt_tokens, _SCORE_ROWS) * context_tokens * _SCORE_BYTES
    unpacked = _DENSE_OUTPUTS * _DENSE_BYTES * max(hidden, intermediate) * weights.packed
    loaded = _loaded_bytes(checkpoint, weights)
    # One tensor is held in the file's format and in the target's while it is converted.
    converting = checkpoint.largest_elements * max(weights.bytes_per_element, 4 * weights.packed)
    running = (cache + activations) * weights.compute_bytes + max(scores, unpacked)
    return int(loaded + max(converting, running)) + RUNTIME_BYTES


def _token_elements(checkpoint: Checkpoint, layers: int) -> int:
    """Return the elements of keys and values that so many layers keep of one token."""
    config = checkpoint.config
    heads = int(config.get("num_attention_heads") or 1)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_elements = int(config.get("head_dim") or int(config.get("hidden_size") or 0) // heads)
    return 2 * layers * kv_heads * head_elements


def _loaded_bytes(checkpoint: Checkpoint, weights: Format) -> float:
    if not weights.packed:
        return checkpoint.elements * weights.bytes_per_element
    total = checkpoint.elements * _BYTES["bfloat16"]
    for shape in checkpoint.layers:
        held = layer_format(weights.name, shape)
        total += prod(shape) * (_BYTES[held] - _BYTES["bfloat16"])
    if checkpoint.head is not None:
        held = layer_format(weights.name, checkpoint.head, head=True)
        # A head that is the embedding becomes one beside it.
        saved = 0.0 if checkpoint.tied else _BYTES["bfloat16"]
        if held != "bfloat16":
            total += prod(checkpoint.head) * (_BYTES[held] - saved)
    return total


def choose(
    checkpoint: Checkpoint,
    *,
    weights: str = "auto",
    available: int | None,
    context_tokens: int,
    prompt_tokens: int,
    sequences: int = 1,
    formats: tuple[Format, ...] = FORMATS,
    packed_is_fast: bool = False,
) -> Choice:
    """Choose the largest format that fits, or check the forced one. `available` is in bytes.

    `packed_is_fast`: there are kernels for packed layers. Where float32 does not fit, a packed
    format that is as true (`PERPLEXITY`) is then taken before bfloat16.

    What is left then is for more `sequences` at once, and what is left of that for what is kept of
    ended ones: both are worth less than a larger format.

    Raises:
        EngineUnavailable: `weights_unsupported` for a format that cannot be loaded yet or is not
            known; `not_enough_memory` with both numbers and the fix.
    """
    offered = [item for item in formats if item.available]
    names = ", ".join(item.name for item in offered)
    smallest = offered[-1].name
    if weights != "auto":
        offered = [item for item in offered if item.name == weights]
        if not offered:
            raise EngineUnavailable(
                f"V4_WEIGHTS={weights} is not supported here: use auto or one of {names}.",
                code="weights_unsupported",
            )
    elif packed_is_fast:
        # A sort keeps the order of what is alike: float32 stays the first one.
        offered.sort(key=lambda item: 0 if item.compute_bytes > 2 else 2 - _is_quick(item))
    most = sequences if runs(checkpoint.config) else 1
    count = partial(
        need_bytes, checkpoint, context_tokens=context_tokens, prompt_tokens=prompt_tokens
    )
    too_big: list[str] = []
    for item in offered:
        need = count(item)
        if available is None or need <= available:
            choice = Choice(item, need, available, _why(item, weights, too_big, available))
            return _with_kept(_with_sequences(choice, most, count), checkpoint)
        too_big.append(f"{item.name} needs {gigabytes(need)}")
    fix = "" if weights in ("auto", smallest) else ", or V4_WEIGHTS=auto"
    if weights == "float32":
        fix = ", V4_WEIGHTS=bfloat16 or V4_WEIGHTS=auto"
    raise EngineUnavailable(
        f"The model does not fit in memory: {', '.join(too_big)}, {gigabytes(available or 0)} are "
        f"available. Give the server more memory{fix}.",
        code="not_enough_memory",
    )


def _is_quick(item: Format) -> bool:
    return item.packed and item.name in PERPLEXITY


def _with_sequences(choice: Choice, most: int, count: Callable[..., int]) -> Choice:
    def need(sequences: int) -> int:
        return count(choice.format, sequences=sequences)

    room = choice.available_bytes
    fit = most if room is None else bisect_right(range(1, most + 1), room, key=need)
    return replace(choice, need_bytes=need(max(1, fit)), sequences=max(1, fit))


def _with_kept(choice: Choice, checkpoint: Checkpoint) -> Choice:
    layers = int(checkpoint.config.get("num_hidden_layers") or 0)
    token_bytes = _token_elements(checkpoint, layers) * choice.format.compute_bytes
    if choice.available_bytes is None or not token_bytes:
        return choice
    left = (choice.available_bytes - choice.need_bytes) // token_bytes
    own = int(checkpoint.config.get("max_position_embeddings") or left)
    return replace(choice, kept_tokens=min(left, own))


def gigabytes(size_bytes: int) -> str:
    """Write a size for people, in decimal gigabytes."""
    return f"{size_bytes / 1e9:.1f} GB"


def _why(item: Format, weights: str, too_big: list[str], available: int | None) -> str:
    if weights != "auto":
        return f"{item.name} is set"
    if available is None:
        return f"{item.name} is the largest; the memory available is not known"
    if too_big:
        return f"{'; '.join(too_big)}; {gigabytes(available)} are available"
    return f"{item.name} is the largest and fits in {gigabytes(available)}"
