"""Builds a model of int8 or int4 layers: one layer of its files at a time, or from a kept copy.

The model is made without storage first; then every tensor it names comes either from the
checkpoint, packed on the way, or from what `QuantizedCache` kept of an earlier time. It does not
know which format is right for the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import torch
import transformers
from safetensors import safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.formats import Format, layer_format
from app.engine.checkpoints.headers import weight_files
from app.engine.checkpoints.progress import MAKING, STEP
from app.engine.checkpoints.quantized_cache import QuantizedCache, Source, keep_folder
from app.engine.quantized.kernels import Kernels, find_kernels
from app.engine.quantized.layout import LAYOUT_VERSION
from app.engine.quantized.linear import Int4Linear, Int8Linear
from app.engine.quantized.quantize import quantize_int4, quantize_int8

if TYPE_CHECKING:
    from app.engine.checkpoints.config import ModelConfig

log = structlog.get_logger(__name__)

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)

Layers = Mapping[str, nn.Module]


def read_packed(
    folder: Path,
    config: ModelConfig,
    weights: Format,
    report: Callable[[float], None],
    options: Mapping[str, Any],
) -> Any:
    """Load a checkpoint with its linear layers in int8 or int4, ready to generate.

    `options` go to transformers. What was packed is kept on the disk where that is switched on.

    Raises:
        EngineUnavailable: `weights_unsupported`, for a checkpoint whose tensors are not those that
            the model names.
        OSError, ValueError, RuntimeError: the files cannot be read.
    """
    kernels: Kernels = config.kernels or find_kernels(native=config.native_kernels)
    model = _without_storage(folder, options)
    layers = _put_layers(model, weights, kernels)
    tied = model.all_tied_weights_keys
    wanted = {name: t for name, t in model.state_dict().items() if name not in tied}
    kept = _kept(folder, config, weights)
    found = kept.read(_forms(wanted)) if kept else None
    if found is not None:
        log.info("packed_weights_read", model_id=config.model_id, weights=weights.name)
        for name in list(found):
            _assign(model, name, found.pop(name))
    else:
        _pack(model, layers, wanted, _Tensors(folder, model), kept, report)
    _tie(model)
    _set_generation(model, folder)
    return model.eval()


class _NoStorage(TorchFunctionMode):
    """Makes parameters on the meta device and leaves what is computed, such as buffers, real.

    Of this thread only, unlike accelerate's way, which changes torch for all.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.empty and named.get("device") is None:
            named["device"] = "meta"
        return func(*args, **named)


def _without_storage(folder: Path, options: Mapping[str, Any]) -> Any:
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    if getattr(config, "quantization_config", None) is not None:
        raise _unsupported()
    trust = bool(options.get("trust_remote_code"))
    with MAKING, _NoStorage():
        make: Any = transformers.AutoModelForCausalLM.from_config
        return make(config, dtype=torch.bfloat16, trust_remote_code=trust)


def _put_layers(model: Any, weights: Format, kernels: Kernels) -> dict[str, nn.Module]:
    """Put packed layers, without storage, where the format can hold linear ones."""
    head = model.get_output_embeddings()
    layers: dict[str, nn.Module] = {}
    left: list[str] = []
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear:
            continue
        shape = (module.out_features, module.in_features)
        held = layer_format(weights.name, shape, head=module is head)
        bias = module.bias is not None
        if held == "int4":
            layers[name] = Int4Linear(shape[1], shape[0], bias, kernels=kernels, device="meta")
        elif held == "int8":
            layers[name] = Int8Linear(shape[1], shape[0], bias, kernels=kernels, device="meta")
        else:
            left.append(name)
            continue
        model.set_submodule(name, layers[name])
    if left:
        log.debug("layers_left_in_bfloat16", layers=left)
    return layers


def _pack(
    model: Any,
    layers: Layers,
    wanted: Mapping[str, Tensor],
    tensors: _Tensors,
    kept: QuantizedCache | None,
    report: Callable[[float], None],
) -> None:
    """Fill the model from the checkpoint, and keep what was made."""
    names = [*layers, *(name for name in wanted if name.rpartition(".")[0] not in layers)]
    sizes = {name: tensors.elements(name, layers.get(name), wanted) for name in names}
    total = sum(sizes.values()) or 1
    done, reported = 0, 0.0
    size_bytes = sum(tensor.nbytes for tensor in wanted.values())
    with QuantizedCache.keeping(kept, size_bytes) as keep:
        for name in names:
            for full, tensor in _made(name, layers.get(name), tensors, wanted):
                _assign(model, full, tensor)
                keep(full, tensor)
            done += sizes[name]
            if done / total - reported >= STEP:
                reported = done / total
                report(round(min(reported, 0.99), 2))


def _made(
    name: str, layer: nn.Module | None, tensors: _Tensors, wanted: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a layer, or of a parameter that stays as it is."""
    if layer is None:
        # A copy, since the tensor is a view of the whole file.
        yield name, tensors.read(name).to(wanted[name].dtype, copy=True)
        return
    weight = tensors.read(f"{name}.weight")
    if weight.dtype not in _FLOATS:
        raise _unsupported()
    if isinstance(layer, Int4Linear):
        yield f"{name}.packed", quantize_int4(weight)
    if isinstance(layer, Int8Linear):
        yield f"{name}.packed", quantize_int8(weight)
    if f"{name}.bias" in wanted:
        yield f"{name}.bias", tensors.read(f"{name}.bias").to(torch.bfloat16, copy=True)


class _Tensors:
    """The checkpoint's tensors by the model's own names; each is read when it is asked for."""

    def __init__(self, folder: Path, model: Any) -> None:
        self._files: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in weight_files(folder):
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no mapping
                    self._files[name] = file
                    self._shapes[name] = tuple(opened.get_slice(name).get_shape())
        self._tied: Mapping[str, str] = model.all_tied_weights_keys
        self._base = f"{model.base_model_prefix}."

    def read(self, name: str) -> Tensor:
        """Return a tensor that shares memory with its file."""
        own = self._own(name)
        # Opened for each: pages of a file that stays open would count as the process's memory.
        with safe_open(self._files[own], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(own)
        return tensor

    def elements(self, name: str, layer: nn.Module | None, wanted: Mapping[str, Tensor]) -> int:
        """Return the elements of a layer's weight, or of a parameter.

        Raises:
            EngineUnavailable: `weights_unsupported`, when the files have none of that shape.
        """
        if isinstance(layer, Int8Linear | Int4Linear):
            shape: tuple[int, ...] = (layer.out_features, layer.in_features)
            name = f"{name}.weight"
        else:
            shape = tuple(wanted[name].shape)
        if self._shapes[self._own(name)] != shape:
            raise _unsupported()
        return prod(shape)

    def _own(self, name: str) -> str:
        """Return what the files call a tensor: they may lack a tied one, or the prefix."""
        for candidate in (name, self._tied.get(name, name)):
            for own in (candidate, candidate.removeprefix(self._base)):
                if own in self._files:
                    return own
        raise _unsupported()


def _kept(folder: Path, config: ModelConfig, weights: Format) -> QuantizedCache | None:
    root = keep_folder(config.quant_cache_dir)
    if root is None:
        return None
    return QuantizedCache(root, Source(folder, weights.name, f"squares-{LAYOUT_VERSION}"))


def _assign(model: Any, name: str, tensor: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if isinstance(getattr(module, leaf), nn.Parameter):
        setattr(module, leaf, nn.Parameter(tensor, requires_grad=False))
    else:
        setattr(module, leaf, tensor)


def _tie(model: Any) -> None:
    for target, source in model.all_tied_weights_keys.items():
        owner, _, leaf = target.rpartition(".")
        module = model.get_submodule(owner)
        # A packed head has no such parameter.
        if isinstance(getattr(module, leaf, None), nn.Parameter):
            setattr(module, leaf, model.get_parameter(source))


def _set_generation(model: Any, folder: Path) -> None:
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def _unsupported() -> EngineUnavailable:
    return EngineUnavailable(
        "int8 and int4 cannot be made of this model's files: use V4_WEIGHTS=bfloat16.",
        code="weights_unsupported",
    )
