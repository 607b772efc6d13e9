"""A GGUF file's metadata as the configuration that transformers takes, and the sizes of its model.

Of the families here everything that decides what is computed is read from the file; what the file
asks for and nobody here can do is refused. No torch is needed.
"""

from __future__ import annotations

from array import array
from math import isfinite, prod
from pathlib import Path
from typing import Any

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.gguf.header import GgufHeader, damaged, read_header
from app.engine.checkpoints.gguf.names import model_names
from app.engine.checkpoints.headers import Checkpoint

# By the name in the file: of transformers the kind of model and its class.
FAMILIES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "phi3": ("phi3", "Phi3ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
}
ROPE_FACTORS = ("rope_factors_long.weight", "rope_factors_short.weight")
_MOST_LAYERS, _MOST_SIZE, _MOST_CONTEXT = 1024, 1 << 24, 1 << 27
_GEMMA_LOCAL_THETA, _GEMMA_PATTERN = 10_000.0, 6
# Gemma 3 of 27 billion, whose heads are scaled as no other's: llama.cpp knows it by its layers too.
_GEMMA_27B_LAYERS = 62
_LARGEST_FACTORS = 4096


def read_gguf_checkpoint(path: Path) -> Checkpoint:
    """Read the sizes of the model in a GGUF file from its header.

    Raises:
        EngineUnavailable: `model_load_failed`, `weights_unsupported`: it cannot be run, and why.
    """
    header = read_header(path)
    config = config_of(header)
    names = model_names(header)
    shapes = {own: header.tensors[name].shape for name, own in names.items()}
    head = shapes.pop("lm_head.weight", None)
    embedding = shapes["model.embed_tokens.weight"]
    sizes = [*(prod(shape) for shape in shapes.values()), *([prod(head)] if head else ())]
    return Checkpoint(
        sum(sizes),
        max(sizes),
        config,
        layers=tuple(
            (shape[0], shape[1])
            for name, shape in shapes.items()
            if len(shape) == 2 and name != "model.embed_tokens.weight"
        ),
        head=_pair(head or embedding),
        tied=head is None,
    )


def config_of(header: GgufHeader) -> dict[str, Any]:
    """Return what config.json of the same model would hold.

    Raises:
        EngineUnavailable: `model_load_failed`, for a family that is not known or sizes that cannot
            be.
    """
    family = FAMILIES.get(header.architecture)
    if family is None or header.of_model("expert_count"):
        raise _unknown(header)
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise damaged("it has no embedding")
    hidden = _size(header, "embedding_length")
    heads = _size(header, "attention.head_count")
    head_dim = _size(header, "attention.key_length", hidden // heads)
    if _size(header, "attention.value_length", head_dim) != head_dim or hidden % heads:
        raise damaged("the sizes of its heads cannot be")
    kv_heads = _size(header, "attention.head_count_kv", heads)
    if heads % kv_heads or head_dim % 2 or embedding.shape[1] != hidden:
        raise damaged("its sizes do not agree")
    biased = "blk.0.attn_q.bias" in header.tensors
    config: dict[str, Any] = {
        "model_type": family[0],
        "architectures": [family[1]],
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": _size(header, "feed_forward_length"),
        "num_hidden_layers": _size(header, "block_count", most=_MOST_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": _size(header, "context_length", most=_MOST_CONTEXT),
        "rms_norm_eps": _number(header, "attention.layer_norm_rms_epsilon", 1e-5),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "bos_token_id": token_id(header, "bos"),
        "eos_token_id": token_id(header, "eos"),
        "pad_token_id": token_id(header, "padding"),
        "rope_parameters": _rope(header, head_dim),
    }
    if family[0] == "llama":
        config["attention_bias"] = biased
    if family[0] == "phi3":
        _set_phi3(header, config)
    if family[0] == "gemma3_text":
        _set_gemma3(header, config)
    return config


def token_id(header: GgufHeader, name: str) -> int | None:
    """Return the id of a special token, such as `eos`; None if the file names none."""
    found = header.fields.get(f"tokenizer.ggml.{name}_token_id")
    rows = header.tensors["token_embd.weight"].rows
    return found if type(found) is int and 0 <= found < rows else None


def _rope(header: GgufHeader, head_dim: int) -> dict[str, Any]:
    """Return how positions turn keys and queries; factors of a file's own tensors come later."""
    theta = _number(header, "rope.freq_base", 10_000.0)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    turned = _size(header, "rope.dimension_count", head_dim)
    if turned != head_dim:
        if header.architecture != "phi3" or turned > head_dim:
            raise damaged("it turns a part of each head, which this family does not")
        rope["partial_rotary_factor"] = turned / head_dim
    kind = header.of_model("rope.scaling.type")
    if all(name in header.tensors for name in ROPE_FACTORS):
        long, short = (read_floats(header, name) for name in ROPE_FACTORS)
        return rope | {"rope_type": "longrope", "long_factor": long, "short_factor": short}
    if kind in (None, "none"):
        return rope
    factor = _number(header, "rope.scaling.factor", 1.0)
    if kind == "linear":
        return rope | {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        original = _size(header, "rope.scaling.original_context_length", most=_MOST_CONTEXT)
        return rope | {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": original,
        }
    raise damaged("it stretches its context in a way that is not known")


def _set_phi3(header: GgufHeader, config: dict[str, Any]) -> None:
    # Of transformers the heads of Phi-3 have the hidden size's share.
    if config["head_dim"] * config["num_attention_heads"] != config["hidden_size"]:
        raise damaged("the sizes of its heads cannot be")
    context = config["max_position_embeddings"]
    config["original_max_position_embeddings"] = _size(
        header, "rope.scaling.original_context_length", context, most=_MOST_CONTEXT
    )
    window = _size(header, "attention.sliding_window", 0, least=0, most=_MOST_CONTEXT)
    config["sliding_window"] = window or None


def _set_gemma3(header: GgufHeader, config: dict[str, Any]) -> None:
    whole = config["rope_parameters"]
    local = _number(header, "rope.freq_base_swa", _GEMMA_LOCAL_THETA)
    config["rope_parameters"] = {
        "full_attention": whole,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    config["layer_types"] = [
        "sliding_attention" if (layer + 1) % _GEMMA_PATTERN else "full_attention"
        for layer in range(layers)
    ]
    config["sliding_window"] = _size(header, "attention.sliding_window", 1024, most=_MOST_CONTEXT)
    share = config["hidden_size"] // heads
    config["query_pre_attn_scalar"] = share if layers == _GEMMA_27B_LAYERS else config["head_dim"]
    if header.of_model("final_logit_softcapping"):
        config["final_logit_softcapping"] = _number(header, "final_logit_softcapping", 30.0)


def read_floats(header: GgufHeader, name: str) -> list[float]:
    """Return the numbers of a small F32 tensor.

    Raises:
        EngineUnavailable: `model_load_failed`, when it is none.
    """
    info = header.tensors[name]
    if info.kind != "F32" or info.elements > _LARGEST_FACTORS:
        raise damaged("the factors of its positions are wrong")
    with header.path.open("rb") as stream:
        stream.seek(info.offset)
        found = array("f", stream.read(info.nbytes))
    if not all(isfinite(one) and one > 0 for one in found):
        raise damaged("the factors of its positions are wrong")
    return list(found)


def _size(
    header: GgufHeader,
    name: str,
    default: int | None = None,
    *,
    least: int = 1,
    most: int = _MOST_SIZE,
) -> int:
    found = header.of_model(name)
    # Some files name a number for each layer.
    if isinstance(found, list) and len(set(found)) == 1:
        found = found[0]
    if found is None:
        found = default
    if type(found) is not int or not least <= found <= most:
        raise damaged(f"its {name} is missing or cannot be")
    return found


def _number(header: GgufHeader, name: str, default: float) -> float:
    found = header.of_model(name)
    if found is None:
        return default
    if not isinstance(found, float | int) or not found > 0:
        raise damaged(f"its {name} cannot be")
    return float(found)


def _pair(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise damaged("its head is wrong")
    return shape[0], shape[1]


def _unknown(header: GgufHeader) -> EngineUnavailable:
    known = ", ".join(FAMILIES)
    own = header.architecture if header.architecture.isidentifier() else "of no known name"
    if own in FAMILIES:
        own += " with experts"
    return EngineUnavailable(
        f"The model's GGUF file is of a family that cannot be run here ({own[:40]}): use one of "
        f"{known}.",
        code="model_load_failed",
    )
