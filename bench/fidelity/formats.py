"""A checkpoint in each weight format, by the server's own loader. Import it where it loads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from app.engine.checkpoints.formats import FORMATS
from app.engine.quantized.kernels import Kernels
from app.services.model_loader_v4 import ModelServiceV4

INT8_COPY = "+int8copy"


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
    """Return what is measured: the formats, float32 first, and int4 on torch's kernels as well,
    with its int8 copy.

    Raises:
        SystemExit: the server has no such format.
    """
    known = [one.name for one in FORMATS if one.available]
    if unknown := set(formats or ()) - set(known):
        raise SystemExit(f"no such format: {', '.join(sorted(unknown))}")
    chosen = [name for name in known if formats is None or name in formats]
    return [
        name for one in chosen for name in ((one, one + INT8_COPY) if one == "int4" else (one,))
    ]


def load(loading: Loading, variant: str) -> tuple[Any, Any]:
    """Return (model, tokenizer); packed weights come from what a first load has kept.

    Raises:
        EngineUnavailable: the server would refuse it.
        RuntimeError: the server chose differently about the int8 copy.
    """
    weights, int8_copy = variant.removesuffix(INT8_COPY), variant.endswith(INT8_COPY)
    if int8_copy:
        loading = replace(loading, kernels=replace(loading.kernels, native=""))
    loader = _loader(loading, weights, limit_bytes=None)
    loader.get_model()
    if weights == "int4" and not int8_copy and not loading.kernels.native:
        # As much memory as it takes for an int8 copy, less one byte.
        loader = _loader(loading, weights, limit_bytes=loader.info()["need_bytes"] - 1)
    loader.unload()
    found = loader.get_model()
    reason = str(loader.info()["reason"])
    if weights == "int4" and ("with an int8 copy" in reason) != int8_copy:
        raise RuntimeError(f"{variant} was not loaded: {reason}")
    return found


def _loader(loading: Loading, weights: str, *, limit_bytes: int | None) -> type[ModelServiceV4]:
    class ModelBackend(ModelServiceV4):
        """A model of its own."""

    ModelBackend.configure(
        model_id=str(loading.folder),
        weights=weights,
        threads=loading.threads,
        quant_cache_dir=str(loading.packed),
        memory_limit_bytes=limit_bytes,
        kernels=loading.kernels,
    )
    return ModelBackend


def damage(model: Any, layer: str) -> None:
    """Double what a layer gives, as if its scales were twice as large.

    Raises:
        SystemExit: there is no such layer.
    """
    found = dict(model.named_modules()).get(layer)
    if found is None:
        raise SystemExit(f"The model has no layer {layer}.")
    found.register_forward_hook(lambda module, given, output: output * 2)
