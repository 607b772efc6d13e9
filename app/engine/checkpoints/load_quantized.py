"""Builds a model of int8 or int4 layers, and any of a GGUF file: one layer of its files at a time,
or from a kept copy.

The model is made without storage first; then every tensor it names comes either from the
checkpoint, packed on the way, or from what `QuantizedCache` kept of an earlier time. It does not
know which format is right for the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import torch
import transformers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from app.engine.checkpoints.formats import Format, layer_format
from app.engine.checkpoints.gguf.model import gguf_config, set_gguf_generation, set_rope
from app.engine.checkpoints.headers import is_gguf
from app.engine.checkpoints.progress import MAKING, STEP
from app.engine.checkpoints.quantized_cache import QuantizedCache, Source, keep_folder
from app.engine.checkpoints.tensors import Tensors, unsupported
from app.engine.quantized.kernels import Kernels, find_kernels
from app.engine.quantized.layout import LAYOUT_VERSION, pack_int4, pack_int8
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

    Of a GGUF file the other formats too. `options` go to transformers. What was packed is kept on
    the disk where that is switched on.

    Raises:
        EngineUnavailable: `weights_unsupported` or, of a GGUF file, `model_load_failed`, for a
            checkpoint whose tensors are not those that the model names.
        OSError, ValueError, RuntimeError: the files cannot be read.
    """
    kernels: Kernels = config.kernels or find_kernels(native=config.native_kernels)
    model = _without_storage(folder, weights, options)
    layers = _put_layers(model, weights, kernels) if weights.packed else {}
    tied = model.all_tied_weights_keys
    wanted = {name: t for name, t in model.state_dict().items() if name not in tied}
    kept = _kept(folder, config, weights) if weights.packed else None
    found = kept.read(_forms(wanted)) if kept else None
    if found is not None:
        log.info("packed_weights_read", model_id=config.model_id, weights=weights.name)
        for name in list(found):
            _assign(model, name, found.pop(name))
    else:
        _pack(model, layers, wanted, Tensors(folder, model), kept, report)
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


def _without_storage(folder: Path, weights: Format, options: Mapping[str, Any]) -> Any:
    if is_gguf(folder):
        config = gguf_config(folder)
    else:
        config = transformers.AutoConfig.from_pretrained(folder, **options)
    if getattr(config, "quantization_config", None) is not None:
        raise unsupported()
    trust = bool(options.get("trust_remote_code"))
    with MAKING, _NoStorage():
        make: Any = transformers.AutoModelForCausalLM.from_config
        dtype = torch.bfloat16 if weights.packed else getattr(torch, weights.name)
        return make(config, dtype=dtype, trust_remote_code=trust)


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
    tensors: Tensors,
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
    name: str, layer: nn.Module | None, tensors: Tensors, wanted: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a layer, or of a parameter that stays as it is."""
    if layer is None:
        yield name, tensors.read(name, wanted[name].dtype)
        return
    yield f"{name}.packed", _packed(f"{name}.weight", layer, tensors)
    if f"{name}.bias" in wanted:
        yield f"{name}.bias", tensors.read(f"{name}.bias", torch.bfloat16)


def _packed(name: str, layer: nn.Module, tensors: Tensors) -> Tensor:
    """Return a weight as the layer holds it; what is in such blocks already is not rounded."""
    blocks = tensors.blocks(name)
    if blocks is not None:
        if isinstance(layer, Int4Linear) and blocks.minimum is not None:
            return pack_int4(blocks.codes, blocks.scale, blocks.minimum)
        signed = blocks.signed()
        if isinstance(layer, Int8Linear) and signed is not None:
            return pack_int8(signed, blocks.scale)
    weight = tensors.read(name)
    if weight.dtype not in _FLOATS:
        raise unsupported()
    return quantize_int4(weight) if isinstance(layer, Int4Linear) else quantize_int8(weight)


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
    if is_gguf(folder):
        set_rope(model, folder)
        set_gguf_generation(model, folder)
    elif (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
