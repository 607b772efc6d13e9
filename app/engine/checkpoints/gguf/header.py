"""What a GGUF file says of itself: its metadata, and where its tensors lie.

The file may come from anywhere: every count, length and offset is checked against the file's size
and bounds of our own before it is used. No tensor is read here, and no torch is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from io import BufferedReader
from math import isfinite, prod
from pathlib import Path
from typing import Any

from app.core.errors import EngineUnavailable

# What can be read, by its number in the file: elements and bytes of a block.
BLOCKS: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    20: ("IQ4_NL", 32, 18),
    23: ("IQ4_XS", 256, 136),
    30: ("BF16", 1, 2),
}
# Long lists of which only the tokenizer needs the content; otherwise their length is kept.
TEXTS = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
# Ten times what the largest vocabularies take.
_MOST_BYTES = 256_000_000
_MOST_ITEMS = 4_000_000
_MOST_FIELDS = 4096
_MOST_TENSORS = 65_536
_MOST_DIMENSIONS = 4
_MOST_ALIGNMENT = 1 << 16
_MOST_ELEMENTS = 1 << 40
_NAME_BYTES = 1024
_PIECE_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor lies: `shape` as torch counts it, `offset` from the beginning of the file."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    row_bytes: int

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def rows(self) -> int:
        return prod(self.shape[:-1])

    @property
    def nbytes(self) -> int:
        return self.rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A file's metadata by its names, and its tensors by theirs."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        return str(self.fields.get("general.architecture", ""))

    def of_model(self, name: str) -> Any:
        """Return a field of the model's own, such as `block_count`; None if there is none."""
        return self.fields.get(f"{self.architecture}.{name}")


class _Damaged(ValueError):
    """What is wrong, in words for people."""


def read_header(path: Path, *, texts: Collection[str] = ()) -> GgufHeader:
    """Read metadata and tensor table; of the lists in `TEXTS` only those named in `texts`.

    Raises:
        EngineUnavailable: `model_load_failed` for a file that is damaged, cut short or no GGUF;
            `weights_unsupported` for tensors in a format that cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return _read(path, _Bytes(stream, path.stat().st_size), texts)
    except _Damaged as exc:
        raise damaged(str(exc)) from exc
    except (OSError, ValueError, OverflowError, struct.error) as exc:
        raise damaged("it cannot be read") from exc


def damaged(reason: str) -> EngineUnavailable:
    """Return the error for a file that cannot be what it should be."""
    return EngineUnavailable(
        f"The model's GGUF file cannot be used: {reason}. Download it again, or set V4_MODEL_ID to "
        "another one.",
        code="model_load_failed",
    )


class _Bytes:
    """The beginning of a file, read as far as it is asked for, and never past the bound."""

    def __init__(self, stream: BufferedReader, size: int) -> None:
        self._stream = stream
        self._held = b""
        self.size = size
        self.at = 0

    def need(self, count: int) -> int:
        """Make sure that so many bytes more are held; return where they begin, and go past them."""
        start, end = self.at, self.at + count
        if end > self.size:
            raise _Damaged("it is cut short, or a length in it is wrong")
        if end > _MOST_BYTES:
            raise _Damaged("its metadata is far too long")
        while end > len(self._held):
            more = self._stream.read(max(_PIECE_BYTES, end - len(self._held)))
            if not more:
                raise _Damaged("it is cut short")
            self._held += more
        self.at = end
        return start

    def numbers(self, form: str) -> tuple[Any, ...]:
        start = self.need(struct.calcsize(form))
        return struct.unpack_from(form, self._held, start)

    def number(self, form: str) -> Any:
        return self.numbers(f"<{form}")[0]

    def text(self, most: int = _MOST_BYTES) -> str:
        length = int(self.number("Q"))
        if length > most:
            raise _Damaged("a name in it is far too long")
        start = self.need(length)
        return self._held[start : self.at].decode("utf-8")

    def skip_text(self) -> None:
        self.need(int(self.number("Q")))


def _read(path: Path, file: _Bytes, texts: Collection[str]) -> GgufHeader:
    if file.size < 24 or file.numbers("4s")[0] != b"GGUF":
        raise _Damaged("it is no GGUF file")
    version, tensors, count = file.numbers("<IQQ")
    if version not in _VERSIONS:
        raise _Damaged("it has a version that is not known, or another byte order")
    if count > _MOST_FIELDS or tensors > _MOST_TENSORS:
        raise _Damaged("it claims to hold more than a model has")
    fields: dict[str, Any] = {}
    for _ in range(count):
        name = file.text(_NAME_BYTES)
        if name in fields:
            raise _Damaged("it says something twice")
        fields[name] = _value(file, keep=name not in TEXTS or name in texts)
    if int(fields.get("split.count") or 0) > 1:
        raise _Damaged("it is one of several parts: join them with llama-gguf-split --merge")
    return GgufHeader(path, fields, _tensors(file, tensors, fields))


def _value(file: _Bytes, *, keep: bool) -> Any:
    kind = file.number("I")
    if kind == _STRING:
        return file.text()
    if kind != _ARRAY:
        return _finite(file.number(_form(kind)))
    kind, count = file.numbers("<IQ")
    if count > _MOST_ITEMS:
        raise _Damaged("it claims to hold a list that is far too long")
    if kind != _STRING:
        return list(file.numbers(f"<{count}{_form(kind)}"))
    if keep:
        return [file.text() for _ in range(count)]
    for _ in range(count):
        file.skip_text()
    return count


def _form(kind: int) -> str:
    if kind not in _SCALARS:
        raise _Damaged("it holds a value of an unknown kind")
    return _SCALARS[kind]


def _finite(number: Any) -> Any:
    if isinstance(number, float) and not isfinite(number):
        raise _Damaged("it holds a number that is none")
    return number


def _tensors(file: _Bytes, count: int, fields: Mapping[str, Any]) -> dict[str, TensorInfo]:
    entries = []
    for _ in range(count):
        name = file.text(_NAME_BYTES)
        dimensions = file.number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise _Damaged("it holds a tensor of an impossible shape")
        shape = tuple(reversed(file.numbers(f"<{dimensions}Q")))
        entries.append((name, shape, *file.numbers("<IQ")))
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= _MOST_ALIGNMENT:
        raise _Damaged("its alignment is wrong")
    start = -(-file.at // alignment) * alignment
    found: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in entries:
        info = _placed(name, shape, kind, start + offset)
        if name in found or offset % alignment:
            raise _Damaged("its table of tensors is wrong")
        if info.offset + info.nbytes > file.size:
            raise _Damaged("it is cut short, or tensors are said to lie outside of it")
        found[name] = info
    end = 0
    for info in sorted(found.values(), key=lambda one: one.offset):
        if info.offset < end:
            raise _Damaged("its tensors overlap")
        end = info.offset + info.nbytes
    return found


def _placed(name: str, shape: tuple[int, ...], kind: int, offset: int) -> TensorInfo:
    if min(shape) < 1 or prod(shape) > _MOST_ELEMENTS:
        raise _Damaged("it holds a tensor of an impossible shape")
    if kind not in BLOCKS:
        known = ", ".join(name for name, _, _ in BLOCKS.values())
        raise EngineUnavailable(
            f"The model's GGUF file holds tensors of a type that cannot be read here ({kind}): use "
            f"a file in one of {known}.",
            code="weights_unsupported",
        )
    kind_name, elements, size_bytes = BLOCKS[kind]
    if shape[-1] % elements:
        raise _Damaged("it holds a tensor of an impossible shape")
    return TensorInfo(name, kind_name, shape, offset, shape[-1] // elements * size_bytes)
