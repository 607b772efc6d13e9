"""A checkpoint in each weight format, by the server's own loader. Import it where it loads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.engine.checkpoints.formats import FORMATS
from app.engine.quantized.kernels import Kernels
from app.services.model_loader_v4 import ModelServiceV4


@dataclass(frozen=True, slots=True)
class Loading:
    """What to load: `folder` has the checkpoint, `packed` what is kept of its quantization.

    `kernels`: what the machine does fast.
    """

    folder: Path
    packed: Path
    threads: int
    kernels: Kernels


def variants(formats: Iterable[str] | None = None) -> list[str]:
    """Return what is measured: the formats, float32 first.

    Raises:
        SystemExit: the server has no such format.
    """
    known = [one.name for one in FORMATS if one.available]
    if unknown := set(formats or ()) - set(known):
        raise SystemExit(f"no such format: {', '.join(sorted(unknown))}")
    return [name for name in known if formats is None or name in formats]


def load(loading: Loading, weights: str) -> tuple[Any, Any]:
    """Return (model, tokenizer); packed weights come from what a first load has kept.

    Raises:
        EngineUnavailable: the server would refuse it.
    """

    class ModelBackend(ModelServiceV4):
        """A model of its own."""

    ModelBackend.configure(
        model_id=str(loading.folder),
        weights=weights,
        threads=loading.threads,
        quant_cache_dir=str(loading.packed),
        kernels=loading.kernels,
    )
    ModelBackend.get_model()
    ModelBackend.unload()
    return ModelBackend.get_model()


def damage(model: Any, layer: str) -> None:
    """Double what a layer gives, as if its scales were twice as large.

    Raises:
        SystemExit: there is no such layer.
    """
    found = dict(model.named_modules()).get(layer)
    if found is None:
        raise SystemExit(f"The model has no layer {layer}.")
    found.register_forward_hook(lambda module, given, output: output * 2)
