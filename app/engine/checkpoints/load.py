"""Reads a checkpoint's tokenizer and weights from a folder, onto the CPU or the GPUs.

torch and transformers are imported when something is read. It does not know whether there is
memory for it, nor what becomes of a failure later.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.formats import Choice, Format
from app.engine.checkpoints.headers import is_gguf
from app.engine.checkpoints.progress import MAKING, weights_progress
from app.engine.decoding.limits import CHEAP_ROWS
from app.engine.quantized.native.library import can_compile

if TYPE_CHECKING:
    from app.engine.checkpoints.config import ModelConfig

FAILED_LOAD_RETRY_S = 60
FLOAT16 = Format("float16", 2.0, 2, True)
_ON_GPU = ("auto", "float32", "bfloat16", "float16")
_NVIDIA = (Path("/dev/nvidiactl"), Path("/dev/dxg"))

log = structlog.get_logger(__name__)


def read_tokenizer(folder: Path, config: ModelConfig) -> Any:
    """Load the tokenizer alone.

    Raises:
        EngineUnavailable: `model_load_failed`.
    """
    try:
        if is_gguf(folder):
            from app.engine.checkpoints.gguf.tokenizer import read_gguf_tokenizer

            return read_gguf_tokenizer(folder)
        import transformers

        return transformers.AutoTokenizer.from_pretrained(folder, **_options(config))
    except EngineUnavailable:
        raise
    except Exception as exc:
        raise _failed(config, exc) from exc


def read_model(
    folder: Path, config: ModelConfig, choice: Choice, report: Callable[[float], None]
) -> Any:
    """Load the weights, ready to generate.

    Raises:
        EngineUnavailable: `model_load_failed`; `weights_unsupported`, when a packed format cannot
            be made of these files.
    """
    try:
        import torch
        import transformers

        if config.threads:
            torch.set_num_threads(config.threads)
        if choice.format.packed or is_gguf(folder):
            from app.engine.checkpoints.load_quantized import read_packed

            return read_packed(folder, config, choice.format, report, _options(config))
        name = choice.format.name
        with MAKING, weights_progress(report):
            model = getattr(transformers, config.auto_class).from_pretrained(
                folder,
                dtype=name if name == "auto" else getattr(torch, name),
                device_map=config.device_map if on_gpu(config.device_map) else "cpu",
                use_safetensors=True,
                **_options(config),
            )
        model.eval()
    except EngineUnavailable:
        raise
    except Exception as exc:
        raise _failed(config, exc) from exc
    return model


def has_native_kernels(config: ModelConfig) -> bool:
    """Tell whether int8 and int4 layers run on kernels of our own, which may compile them."""
    if config.kernels is not None:
        return bool(config.kernels.native)
    return config.native_kernels and can_compile()


def cheap_rows(config: ModelConfig, choice: Choice | None) -> int:
    """Return how many rows of a step take hardly longer than one."""
    packed = choice is not None and choice.format.packed
    return CHEAP_ROWS if packed and has_native_kernels(config) else 1


def on_gpu(device_map: str) -> bool:
    """Tell whether weights go elsewhere than into the machine's own memory.

    Raises:
        EngineUnavailable: `device_unavailable`, when a device is named that is not there.
    """
    if device_map == "cpu":
        return False
    if _cuda():
        return True
    if device_map == "auto":
        return False
    raise EngineUnavailable(
        "The device that DEVICE_MAP names is not there: use auto or cpu, or a build of PyTorch "
        "that knows it.",
        code="device_unavailable",
    )


def gpu_choice(weights: str) -> Choice:
    """Return what is loaded onto a GPU: its driver knows what fits, and says so when it does not.

    Raises:
        EngineUnavailable: `weights_unsupported`.
    """
    if weights not in _ON_GPU:
        raise EngineUnavailable(
            f"V4_WEIGHTS={weights} is not supported on a GPU: use one of {', '.join(_ON_GPU)}.",
            code="weights_unsupported",
        )
    why = "the checkpoint's own" if weights == "auto" else f"{weights} is set"
    return Choice(Format(weights, 0.0, 0, True), 0, None, f"on the GPU; {why}")


@cache
def _cuda() -> bool:
    # Importing torch takes a second and 300 MB: only where there may be a GPU.
    try:
        if metadata.version("torch").endswith("+cpu"):
            return False
    except metadata.PackageNotFoundError:
        return False
    if sys.platform == "linux" and not any(path.exists() for path in _NVIDIA):
        return False
    import torch

    return bool(torch.cuda.is_available())


def _options(config: ModelConfig) -> dict[str, Any]:
    return {"trust_remote_code": config.trust_remote_code, "local_files_only": True}


def _failed(config: ModelConfig, exc: Exception) -> EngineUnavailable:
    log.error("model_load_failed", model_id=config.model_id, error=type(exc).__name__)
    return EngineUnavailable(
        "The model could not be loaded: its files are damaged, or this version of "
        "transformers does not know it. The server's log says more.",
        code="model_load_failed",
        retry_after_s=FAILED_LOAD_RETRY_S,
    )
