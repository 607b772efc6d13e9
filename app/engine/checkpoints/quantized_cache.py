"""Packed weights on the disk, so that a model is packed once and later loaded in seconds.

One folder for each checkpoint and format: safetensors files and a manifest, made elsewhere and
renamed into place, so that a folder is whole or not there. It knows nothing of models or formats:
tensors come in and go out by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from app.engine.checkpoints.headers import is_gguf, weight_files

# Raised when tensors are named, laid out or computed in another way.
LAYOUT = 4
_MANIFEST = "manifest.json"
_FILE_BYTES = 256_000_000
_SPARE_BYTES = 1_000_000_000
_ABANDONED_S = 24 * 3600.0
# Rows of a layer begin at multiples of this in memory: the kernels load so many bytes at once.
_ALIGNMENT = 64
_NAMES = {
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
}

log = structlog.get_logger(__name__)

Forms = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
Keep = Callable[[str, Tensor], None]


@dataclass(frozen=True, slots=True)
class Source:
    """What was packed and how: the checkpoint's folder or file, the format, the layout's name."""

    folder: Path
    weights: str
    layout: str

    def key(self) -> str:
        """Return a name that changes when the checkpoint or the way of packing does.

        A file of the hub's cache is known by its blob, which is named after its content; another
        by its header, size and time of change, since reading gigabytes for a hash takes too long.

        Raises:
            OSError, ValueError, KeyError: the checkpoint cannot be read.
        """
        marks: list[Any] = [LAYOUT, self.weights, self.layout]
        if not is_gguf(self.folder):
            config = (self.folder / "config.json").read_bytes()
            marks.append(hashlib.sha256(config).hexdigest())
        for file in weight_files(self.folder):
            real = file.resolve()
            if real.parent.name == "blobs":
                marks.append(real.name)
            else:
                about = file.stat()
                marks.append((_header_hash(file), about.st_size, about.st_mtime_ns))
        return hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32]


def keep_folder(setting: str | None) -> Path | None:
    """Return where packed weights are kept: "auto" is beside the hub's cache; None for nowhere."""
    if not setting or setting.lower() == "none":
        return None
    if setting.lower() != "auto":
        return Path(setting).expanduser()
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "precis-quantized"


class QuantizedCache:
    """What is kept of one source under a folder."""

    def __init__(self, root: Path, source: Source) -> None:
        self.root = root
        self.folder = root / source.key()

    def read(self, forms: Forms) -> dict[str, Tensor] | None:
        """Return tensors of these shapes and types that share memory with the files, or None.

        What is kept and not as its manifest says is damaged, and left for `keeping` to replace.
        """
        if not self.folder.exists():
            return None
        try:
            return self._read(forms)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as exc:
            log.warning("packed_weights_damaged", error=type(exc).__name__)
            return None

    def _read(self, forms: Forms) -> dict[str, Tensor]:
        manifest = json.loads((self.folder / _MANIFEST).read_text("utf-8"))
        found: dict[str, Tensor] = {}
        for name, mark in manifest["files"].items():
            file = self.folder / Path(name).name
            if _mark(file) != mark:
                raise ValueError("a file is not the one that was written")
            with safe_open(file, framework="pt") as opened:
                # Earlier versions kept int8 copies of int4 layers too, which nobody reads.
                for tensor in set(opened.keys()) & set(forms):
                    found[tensor] = opened.get_tensor(tensor)
        if {name: (tuple(t.shape), t.dtype) for name, t in found.items()} != dict(forms):
            raise ValueError("tensors are missing")
        return found

    @staticmethod
    @contextmanager
    def keeping(files: QuantizedCache | None, size_bytes: int) -> Iterator[Keep]:
        """Give a function that takes tensors; at the end of the block they are kept as a whole.

        `size_bytes`: of all of them. A disk that is full or may not be written to is a warning.
        """
        writer = _Writer.start(files, size_bytes) if files is not None else None
        if files is None or writer is None:
            yield lambda name, tensor: None
            return
        try:
            yield writer.add
            writer.finish(files.folder)
        finally:
            writer.discard()


class _Writer:
    """Writes a folder beside its place, file by file; the first failure ends it with a warning."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Each kind has files of its own: some are copied when they are loaded, and then let go.
        self._pending: dict[tuple[torch.dtype, int], dict[str, Tensor]] = {}
        self._marks: dict[str, dict[str, Any]] = {}
        self._failed = False

    @classmethod
    def start(cls, files: QuantizedCache, size_bytes: int) -> _Writer | None:
        try:
            files.root.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(files.root)
            if shutil.disk_usage(files.root).free < size_bytes + _SPARE_BYTES:
                log.warning("packed_weights_not_kept", reason="no room", size_bytes=size_bytes)
                return None
            return cls(Path(tempfile.mkdtemp(prefix=".making-", dir=files.root)))
        except OSError as exc:
            _not_kept(exc)
            return None

    def add(self, name: str, tensor: Tensor) -> None:
        if self._failed:
            return
        pending = self._pending.setdefault((tensor.dtype, tensor.dim()), {})
        pending[name] = tensor
        if sum(waiting.nbytes for waiting in pending.values()) >= _FILE_BYTES:
            self._attempt(partial(self._write, pending))

    def finish(self, place: Path) -> None:
        """Put the folder in its place, unless another process was faster."""
        for pending in self._pending.values():
            if pending:
                self._attempt(partial(self._write, pending))
        self._attempt(lambda: self._publish(place))

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _attempt(self, step: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            step()
        except OSError as exc:
            self._failed = True
            for pending in self._pending.values():
                pending.clear()
            _not_kept(exc)

    def _write(self, tensors: dict[str, Tensor]) -> None:
        file = self._folder / f"{len(self._marks):05}.safetensors"
        _write_tensors(file, tensors)
        self._marks[file.name] = _mark(file)
        tensors.clear()

    def _publish(self, place: Path) -> None:
        manifest = self._folder / _MANIFEST
        with manifest.open("w", encoding="utf-8") as stream:
            json.dump({"layout": LAYOUT, "files": self._marks}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        _sync_folder(self._folder)
        if place.exists():
            # What is there could not be used: this was asked before anything was made.
            old = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
            with suppress(OSError):
                place.rename(old / "old")
            shutil.rmtree(old, ignore_errors=True)
        self._folder.rename(place)
        _sync_folder(place.parent)


def _write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, straight from the tensors' memory."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        offsets = [end, end + tensor.nbytes]
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": offsets,
        }
        end = offsets[1]
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            stream.write(tensor.contiguous().view(torch.uint8).numpy().data)
        stream.flush()
        os.fsync(stream.fileno())


def _mark(file: Path) -> dict[str, Any]:
    return {"bytes": file.stat().st_size, "header": _header_hash(file)}


def _header_hash(file: Path) -> str:
    with file.open("rb") as stream:
        length = stream.read(8)
        header = stream.read(min(int.from_bytes(length, "little"), 100_000_000))
    return hashlib.sha256(length + header).hexdigest()


def _remove_abandoned(root: Path) -> None:
    """Remove what a process that was killed left half-made."""
    for folder in root.glob(".making-*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(folder, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _not_kept(exc: OSError) -> None:
    log.warning("packed_weights_not_kept", reason=os.strerror(exc.errno or 0))
