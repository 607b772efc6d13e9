"""What the tests of packed models share: a loader of its own for each, and how far it is off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from app.engine.base import Finish
from app.engine.quantized.cpu_flags import cpu_flags
from app.engine.quantized.kernels import Kernels, find_kernels
from app.engine.quantized.native.library import levels
from app.services.model_loader_v4 import ModelServiceV4
from tests.programs import missing

# No kernels of our own, and each level of them that the processor has.
TORCH = find_kernels(native=False)
NATIVE = levels(cpu_flags())
LAYOUTS = ["torch", *NATIVE]
ROOT = Path(__file__).parents[1]
IDS = torch.arange(5, 45).view(1, -1)


def kernels_of(layout: str) -> Kernels:
    """Return this machine's kernels with one of `LAYOUTS`."""
    if layout == "torch":
        return TORCH
    if not find_kernels().native:
        missing("there is no C compiler: install gcc")
    return replace(TORCH, native=layout)


def service(folder: Path, weights: str, **values: Any) -> type[ModelServiceV4]:
    class Service(ModelServiceV4):
        """A model of its own."""

    Service.configure(model_id=str(folder), weights=weights, threads=1, **values)
    return Service


def logits(loader: type[ModelServiceV4], ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = loader.get_model()[0](ids).logits.float()
    return found


def float_logits(folder: Path, ids: torch.Tensor = IDS) -> torch.Tensor:
    return logits(service(folder, "float32"), ids)


def error(made: torch.Tensor, true: torch.Tensor) -> float:
    return float(((made.float() - true).square().mean() / true.square().mean()).sqrt())


def generated(loader: type[ModelServiceV4]) -> tuple[str, Finish]:
    pieces = []
    stream = loader.stream_generation("Hello", max_tokens=12, temperature=0.0)
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return "".join(pieces), end.value


def folders(cache: Path) -> list[Path]:
    return sorted(cache.iterdir()) if cache.exists() else []
