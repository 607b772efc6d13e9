"""Makes the model of a GGUF file in a float format, tensor by tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from app.engine.checkpoints.gguf.config import config_of, read_floats
from app.engine.checkpoints.gguf.header import damaged, read_header
from app.engine.checkpoints.gguf.tokenizer import gguf_end_ids

ROPE_FREQS = "rope_freqs.weight"


def gguf_config(path: Path) -> Any:
    """Return the configuration of the model as transformers has it.

    Raises:
        EngineUnavailable: as `config_of`.
    """
    values = config_of(read_header(path))
    return transformers.AutoConfig.for_model(values.pop("model_type"), **values)


def set_rope(model: Any, path: Path) -> None:
    """Stretch the model's positions by the factors that some files hold, as Llama 3's do."""
    header = read_header(path)
    if ROPE_FREQS not in header.tensors:
        return
    rotary = model.model.rotary_emb
    factors = torch.tensor(read_floats(header, ROPE_FREQS))
    for name in ("inv_freq", "original_inv_freq"):
        # Gemma has others, and files with no such factors.
        own = getattr(rotary, name, None)
        if own is None or own.shape != factors.shape:
            raise damaged("the factors of its positions are wrong")
        setattr(rotary, name, own / factors)


def set_gguf_generation(model: Any, path: Path) -> None:
    """Tell the model which ids end a text."""
    make: Any = transformers.GenerationConfig
    model.generation_config = make(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=gguf_end_ids(path),
        pad_token_id=model.config.pad_token_id,
    )
