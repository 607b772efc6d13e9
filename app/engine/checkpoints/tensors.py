"""A checkpoint's tensors by the model's own names, from safetensors files or a GGUF file.

Each is read when it is asked for. It does not know what becomes of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.gguf.header import damaged, read_header
from app.engine.checkpoints.gguf.tensors import Blocks, GgufTensors
from app.engine.checkpoints.headers import is_gguf, weight_files
from app.engine.quantized.linear import Int4Linear, Int8Linear


class _Files(Protocol):
    """Where tensors are, by the names that the files have for them."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]: ...

    def read(self, name: str, dtype: torch.dtype | None) -> Tensor: ...

    def blocks(self, name: str) -> Blocks | None: ...

    def unlike(self) -> EngineUnavailable: ...


class Tensors:
    """The tensors of a checkpoint's folder, or of its GGUF file."""

    def __init__(self, folder: Path, model: Any) -> None:
        self._files: _Files = _Gguf(folder) if is_gguf(folder) else _Safetensors(folder)
        self._shapes = self._files.shapes()
        self._tied: Mapping[str, str] = model.all_tied_weights_keys
        self._base = f"{model.base_model_prefix}."

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """Return a tensor, which may share memory with its file; as it is there without `dtype`."""
        return self._files.read(self._own(name), dtype)

    def blocks(self, name: str) -> Blocks | None:
        """Return a weight as its file has it, if it is made of blocks that layers can hold."""
        return self._files.blocks(self._own(name))

    def elements(self, name: str, layer: nn.Module | None, wanted: Mapping[str, Tensor]) -> int:
        """Return the elements of a layer's weight, or of a parameter.

        Raises:
            EngineUnavailable: `weights_unsupported` or, of a GGUF file, `model_load_failed`, when
                the files have none of that shape.
        """
        if isinstance(layer, Int8Linear | Int4Linear):
            shape: tuple[int, ...] = (layer.out_features, layer.in_features)
            name = f"{name}.weight"
        else:
            shape = tuple(wanted[name].shape)
        if self._shapes[self._own(name)] != shape:
            raise self._files.unlike()
        return prod(shape)

    def _own(self, name: str) -> str:
        """Return what the files call a tensor: they may lack a tied one, or the prefix."""
        for candidate in (name, self._tied.get(name, name)):
            for own in (candidate, candidate.removeprefix(self._base)):
                if own in self._shapes:
                    return own
        raise self._files.unlike()


class _Safetensors:
    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in weight_files(folder):
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no mapping
                    self._files[name] = file
                    self._shapes[name] = tuple(opened.get_slice(name).get_shape())

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._shapes

    def read(self, name: str, dtype: torch.dtype | None) -> Tensor:
        # Opened for each: pages of a file that stays open would count as the process's memory.
        with safe_open(self._files[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        # A copy, since the tensor is a view of the whole file.
        return tensor if dtype is None else tensor.to(dtype, copy=True)

    def blocks(self, name: str) -> Blocks | None:
        del name
        return None

    def unlike(self) -> EngineUnavailable:
        return unsupported()


class _Gguf:
    def __init__(self, path: Path) -> None:
        self._tensors = GgufTensors(read_header(path))

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return self._tensors.shapes()

    def read(self, name: str, dtype: torch.dtype | None) -> Tensor:
        return self._tensors.tensor(name).dequantize(dtype or torch.float32)

    def blocks(self, name: str) -> Blocks | None:
        return self._tensors.tensor(name).blocks()

    def unlike(self) -> EngineUnavailable:
        return damaged("it lacks tensors of its model, or they have other shapes")


def unsupported() -> EngineUnavailable:
    """Return the error for files of which no packed layers can be made."""
    return EngineUnavailable(
        "int8 and int4 cannot be made of this model's files: use V4_WEIGHTS=bfloat16.",
        code="weights_unsupported",
    )
