"""Weight formats, the memory that each needs, and the memory that is there (C12).

Reads only the headers of safetensors files and the kernel's counters: no torch, nothing loaded.
It does not know where checkpoints come from or who loads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from app.core.errors import EngineUnavailable

# What a process with torch, a tokenizer and this server holds beside weights and cache: measured
# 0.3 GB after the imports.
RUNTIME_BYTES = 400_000_000
MAX_HEADER_BYTES = 100_000_000
_UNLIMITED_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Format:
    """How weights are held. `available`: the loader can load it today.

    `packed`: linear layers are made into integers, see `held_as`. `twin`: layers of int4 are held
    in int8 as well, which reads prompts faster.
    """

    name: str
    bytes_per_element: float
    compute_bytes: int
    available: bool
    packed: bool = False
    twin: bool = False


# Largest first: `auto` takes the first one that fits. int8 has one scale a row, int4 one scale
# and zero point (4 bytes) per group of 128.
FORMATS = (
    Format("float32", 4.0, 4, True),
    Format("bfloat16", 2.0, 2, True),
    Format("int8", 1.01, 2, True, packed=True),
    Format("int4", 0.53, 2, True, packed=True),
)
# Models whose layers the packed formats do not know, such as those that read images.
FLOAT_FORMATS = tuple(item for item in FORMATS if not item.packed)
_BYTES = {item.name: item.bytes_per_element for item in FORMATS}


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


@dataclass(frozen=True, slots=True)
class Choice:
    """The format to load, the two sides of the comparison, and why it was chosen."""

    format: Format
    need_bytes: int
    available_bytes: int | None
    reason: str


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the sizes of the checkpoint in `folder` from its safetensors headers.

    A tensor tied to the embedding counts once, whether or not the files repeat it; an untied head
    that the files lack counts as one more embedding, since loading creates it.

    Raises:
        EngineUnavailable: `model_load_failed`, when config or headers cannot be read.
    """
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
        shapes: dict[str, tuple[int, ...]] = {}
        for file in weight_files(folder):
            shapes.update(_header_shapes(file))
    except (OSError, ValueError, KeyError, TypeError) as exc:
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


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that make up the checkpoint, named by its index if it has one.

    Raises:
        OSError, ValueError, KeyError: the index cannot be read.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        return [folder / PurePosixPath(name).name for name in sorted(names)]
    return [folder / "model.safetensors"]


def held_as(weights: str, shape: tuple[int, int], *, head: bool = False) -> str:
    """Return the format in which a packed format holds a layer of (out, in): int4, int8, bfloat16.

    The kernels take certain sizes only. The head is never int4: an error there is an error of the
    scores themselves.
    """
    outputs, inputs = shape
    if weights == "int4" and not head and outputs % 64 == 0 and inputs % 128 == 0:
        return "int4"
    if weights in ("int8", "int4") and outputs % 16 == 0 and inputs % 32 == 0:
        return "int8"
    return "bfloat16"


def need_bytes(
    checkpoint: Checkpoint, weights: Format, *, context_tokens: int, prompt_tokens: int
) -> int:
    """Return the peak memory of a generation: weights, key-value cache, activations, runtime.

    Cache: keys and values of every layer for `context_tokens`, and one layer more because the
    dynamic cache copies a layer when it grows. Activations: the widest point of one layer during
    the prompt, the gate and up projections (2 x intermediate), their product and four hidden rows.
    Against 16.4 GB measured for Phi-3-mini in float32 at 1,024 tokens this gives 16.7.
    """
    config = checkpoint.config
    layers = int(config.get("num_hidden_layers") or 0)
    hidden = int(config.get("hidden_size") or 0)
    heads = int(config.get("num_attention_heads") or 1)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_elements = int(config.get("head_dim") or hidden // heads)
    intermediate = int(config.get("intermediate_size") or 4 * hidden)
    cache = 2 * (layers + 1) * kv_heads * head_elements * context_tokens
    activations = prompt_tokens * (3 * intermediate + 4 * hidden)
    loaded = _loaded_bytes(checkpoint, weights)
    # One tensor is held in the file's format and in the target's while it is converted.
    converting = checkpoint.largest_elements * max(weights.bytes_per_element, 4 * weights.packed)
    running = (cache + activations) * weights.compute_bytes
    return int(loaded + max(converting, running)) + RUNTIME_BYTES


def _loaded_bytes(checkpoint: Checkpoint, weights: Format) -> float:
    if not weights.packed:
        return checkpoint.elements * weights.bytes_per_element
    total = checkpoint.elements * _BYTES["bfloat16"]
    for shape in checkpoint.layers:
        held = held_as(weights.name, shape)
        total += prod(shape) * (_BYTES[held] - _BYTES["bfloat16"])
        if held == "int4" and weights.twin:
            total += prod(shape) * _BYTES["int8"]
    if checkpoint.head is not None:
        held = held_as(weights.name, checkpoint.head, head=True)
        # A head that is the embedding becomes one beside it.
        saved = 0.0 if checkpoint.tied else _BYTES["bfloat16"]
        if held != "bfloat16":
            total += prod(checkpoint.head) * (_BYTES[held] - saved)
    return total


def available_bytes(*, root: Path = Path("/"), limit_bytes: int | None = None) -> int | None:
    """Return the memory that this process may still take, or None where nothing says.

    The least of the kernel's MemAvailable, the room in every memory cgroup that holds the process
    (v2 and v1; the reclaimable page cache counts as room) and `limit_bytes`. `root` is where /proc
    and /sys are found.
    """
    rooms = [_mem_available(root), _cgroup_room(root), limit_bytes]
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else None


def choose(
    checkpoint: Checkpoint,
    *,
    weights: str = "auto",
    available: int | None,
    context_tokens: int,
    prompt_tokens: int,
    formats: tuple[Format, ...] = FORMATS,
) -> Choice:
    """Choose the largest format that fits, or check the forced one. `available` is in bytes.

    int4 gets its int8 twin when that fits as well.

    Raises:
        EngineUnavailable: `weights_unsupported` for a format that cannot be loaded yet or is not
            known; `not_enough_memory` with both numbers and the fix.
    """
    offered = [item for item in formats if item.available]
    names = ", ".join(item.name for item in offered)
    smallest = offered[-1].name
    if weights != "auto":
        offered = [item for item in offered if item.name == weights]
        if not offered:
            raise EngineUnavailable(
                f"V4_WEIGHTS={weights} is not supported here: use auto or one of {names}.",
                code="weights_unsupported",
            )
    too_big: list[str] = []
    for item in offered:
        need = need_bytes(
            checkpoint, item, context_tokens=context_tokens, prompt_tokens=prompt_tokens
        )
        if available is None or need <= available:
            choice = Choice(item, need, available, _why(item, weights, too_big, available))
            return _with_twin(choice, checkpoint, context_tokens, prompt_tokens)
        too_big.append(f"{item.name} needs {gigabytes(need)}")
    fix = "" if weights in ("auto", smallest) else ", or V4_WEIGHTS=auto"
    if weights == "float32":
        fix = ", V4_WEIGHTS=bfloat16 or V4_WEIGHTS=auto"
    raise EngineUnavailable(
        f"The model does not fit in memory: {', '.join(too_big)}, {gigabytes(available or 0)} are "
        f"available. Give the server more memory{fix}.",
        code="not_enough_memory",
    )


def _with_twin(
    choice: Choice, checkpoint: Checkpoint, context_tokens: int, prompt_tokens: int
) -> Choice:
    if choice.format.name != "int4":
        return choice
    both = replace(choice.format, bytes_per_element=_BYTES["int4"] + _BYTES["int8"], twin=True)
    need = need_bytes(checkpoint, both, context_tokens=context_tokens, prompt_tokens=prompt_tokens)
    available = choice.available_bytes
    if need == choice.need_bytes:
        return choice
    if available is not None and need > available:
        without = f"{choice.reason}; no int8 twin for prompts, which needs {gigabytes(need)}"
        return replace(choice, reason=without)
    reason = f"{choice.reason}; with an int8 twin for prompts"
    return Choice(both, need, available, reason)


def gigabytes(size_bytes: int) -> str:
    """Write a size for people, in decimal gigabytes."""
    return f"{size_bytes / 1e9:.1f} GB"


def _why(item: Format, weights: str, too_big: list[str], available: int | None) -> str:
    if weights != "auto":
        return f"{item.name} is set"
    if available is None:
        return f"{item.name} is the largest; the memory available is not known"
    if too_big:
        return f"{'; '.join(too_big)}; {gigabytes(available)} are available"
    return f"{item.name} is the largest and fits in {gigabytes(available)}"


def _header_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise ValueError("not a safetensors header")
        header = json.loads(stream.read(length))
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        shapes[name] = tuple(int(side) for side in entry["shape"])
        end = max(end, int(entry["data_offsets"][1]))
    if file.stat().st_size < 8 + length + end:
        raise ValueError("the file is shorter than its header says")
    return shapes


def _mem_available(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if root != Path("/"):
        return None
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _cgroup_room(root: Path) -> int | None:
    """Return the least room of the process's own memory cgroups and all their ancestors."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return None
    rooms: list[int] = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            base = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path is the host's and absent here; the mount point then holds it.
        folder = base / path.strip("/")
        for group in (folder, *folder.parents):
            if group == base or base in group.parents:
                room = _room(group, *names)
                if room is not None:
                    rooms.append(room)
    return min(rooms) if rooms else None


def _room(group: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    try:
        limit_text = (group / limit_name).read_text("ascii").strip()
        if limit_text == "max" or int(limit_text) >= _UNLIMITED_BYTES:
            return None
        usage = int((group / usage_name).read_text("ascii"))
    except (OSError, ValueError):
        return None
    reclaimable = 0
    try:
        for line in (group / "memory.stat").read_text("ascii").splitlines():
            if line.split(" ", 1)[0] == cache_name:
                reclaimable = int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return int(limit_text) - usage + reclaimable
