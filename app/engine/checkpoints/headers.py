"""The sizes of a checkpoint, from its configuration and the headers of its safetensors files.

Nothing is loaded, and neither torch nor transformers is needed. It does not know where checkpoints
come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from app.core.errors import EngineUnavailable

GGUF = ".gguf"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The sizes of a checkpoint: elements of all weights and of the largest one, and its config.

    `layers`: the (out, in) shapes of all matrices but embedding and head. `head`: the head's own.
    `tied`: the head is the embedding, so that `elements` counts it once.
    """

    elements: int
    largest_elements: int
    config: Mapping[str, Any]
    layers: tuple[tuple[int, int], ...] = ()
    head: tuple[int, int] | None = None
    tied: bool = False


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the sizes of the checkpoint in `folder` from its safetensors headers.

    A tensor tied to the embedding counts once, whether or not the files repeat it; an untied head
    that the files lack counts as one more embedding, since loading creates it.

    Raises:
        EngineUnavailable: `model_load_failed`, when config or headers cannot be read.
    """
    from safetensors import SafetensorError

    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        shapes: dict[str, tuple[int, ...]] = {}
        for file in weight_files(folder):
            shapes.update(_header_shapes(file))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as exc:
        raise EngineUnavailable(
            "The model's files are damaged or incomplete: delete them and download them again.",
            code="model_load_failed",
        ) from exc
    text_config = config.get("text_config", config)
    heads = {name for name in shapes if name.endswith("lm_head.weight")}
    embeddings = [shape for name, shape in shapes.items() if name.endswith("embed_tokens.weight")]
    tied = bool(config.get("tie_word_embeddings", text_config.get("tie_word_embeddings", True)))
    if tied:
        for name in heads if embeddings else ():
            del shapes[name]
    elif embeddings and not heads:
        shapes["lm_head.weight"] = embeddings[0]
    head = next((shape for name, shape in shapes.items() if name.endswith("lm_head.weight")), None)
    if head is None and tied:
        head = next(iter(embeddings), None)
    outside = ("lm_head.weight", "embed_tokens.weight")
    sizes = [prod(shape) for shape in shapes.values()]
    return Checkpoint(
        sum(sizes),
        max(sizes, default=0),
        text_config,
        layers=tuple(
            (shape[0], shape[1])
            for name, shape in shapes.items()
            if len(shape) == 2 and not name.endswith(outside)
        ),
        head=(head[0], head[1]) if head is not None and len(head) == 2 else None,
        tied=tied,
    )


def is_gguf(path: Path) -> bool:
    """Tell whether a checkpoint is one GGUF file, and not a folder."""
    return path.suffix.lower() == GGUF


def weight_files(folder: Path) -> list[Path]:
    """Return the files that make up the checkpoint: safetensors, named by an index, or the GGUF.

    Raises:
        OSError, ValueError, KeyError: the index cannot be read.
    """
    if is_gguf(folder):
        return [folder]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        return [folder / PurePosixPath(name).name for name in sorted(names)]
    return [folder / "model.safetensors"]


def _header_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file.

    Raises:
        OSError, SafetensorError: the file is missing, cut short, or no safetensors file.
    """
    from safetensors import safe_open

    # "np" only names what tensors would be read as; "pt" would import torch.
    with safe_open(file, framework="np") as opened:
        names = opened.keys()
        return {name: tuple(opened.get_slice(name).get_shape()) for name in names}
