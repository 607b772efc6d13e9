"""Which tensor of a GGUF file is which of the model's, and what was done to it for the file."""

from __future__ import annotations

from collections.abc import Mapping

from app.engine.checkpoints.gguf.header import GgufHeader, damaged

_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_IN_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OF_A_FAMILY: Mapping[str, Mapping[str, str]] = {
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "gemma3": {
        "ffn_norm": "pre_feedforward_layernorm",
        "post_attention_norm": "post_attention_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
# Read elsewhere, or of no use: how positions turn is in the metadata too.
_NO_WEIGHTS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
_LEFT_OUT = ".attn_rot_embd.weight"


def model_names(header: GgufHeader) -> dict[str, str]:
    """Return the model's own name of each tensor of the file, by the file's.

    Raises:
        EngineUnavailable: `model_load_failed`, for a tensor that the family does not have: without
            it something else would be computed.
    """
    found: dict[str, str] = {}
    for name in header.tensors:
        if name in _NO_WEIGHTS or name.endswith(_LEFT_OUT):
            continue
        own = _own_name(name, header.architecture)
        if own is None:
            raise damaged("it holds tensors that its family does not have")
        found[name] = own
    layers = {own.split(".")[2] for own in found.values() if own.startswith("model.layers.")}
    if layers != {str(layer) for layer in range(header.of_model("block_count") or 0)}:
        raise damaged("it does not hold all layers")
    return found


def _own_name(name: str, family: str) -> str | None:
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    if not stem.startswith("blk."):
        return None
    layer, _, part = stem.removeprefix("blk.").partition(".")
    own = _OF_A_FAMILY.get(family, {}).get(part) or _IN_A_LAYER.get(part)
    if own is None or not layer.isdecimal():
        return None
    return f"model.layers.{int(layer)}.{own}.{kind}"


def heads_to_untwist(header: GgufHeader, name: str) -> int:
    """Return how many heads a tensor's rows are of, where their order was changed; 0 elsewhere.

    Llama's files hold the rows of queries and keys so that the two numbers that turn together are
    neighbours; the model has them half a head apart.
    """
    if header.architecture != "llama":
        return 0
    part = name.rpartition(".")[0].rpartition(".")[2]
    field = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}.get(part)
    heads = header.of_model(field) if field else None
    if heads is None and part == "attn_k":
        heads = header.of_model("attention.head_count")
    if isinstance(heads, list):
        heads = heads[0]
    return int(heads or 0)


def is_shifted(header: GgufHeader, name: str) -> bool:
    """Tell whether a tensor holds one more than the weight: Gemma's norms."""
    return header.architecture == "gemma3" and name.endswith("norm.weight")
