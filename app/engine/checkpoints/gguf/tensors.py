"""The tensors of a GGUF file by the model's own names, each read when it is asked for.

Only the bytes that are asked for are read, some rows at a time, so that nothing of a weight's own
size is made beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from app.engine.checkpoints.gguf.header import BLOCKS, GgufHeader, TensorInfo, damaged
from app.engine.checkpoints.gguf.names import heads_to_untwist, is_shifted, model_names

# Elements of the inputs that share a scale, in the formats whose blocks can be taken as they are.
BLOCK = 32
_ELEMENTS_AT_ONCE = 1 << 20
_BYTES = {name: size for name, _, size in BLOCKS.values()}
_NUMBERS = {name: number for number, (name, _, _) in BLOCKS.items()}
# Of these the minimum follows from the scale: level 8 is zero.
_MIDDLE = 8


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight as the file has it, by blocks of 32 inputs: weight = codes * scale + minimum.

    `codes`: (out, in), uint8 0 to 15 or, without a minimum, int8 · `scale`, `minimum`:
    (out, in / 32) float16.
    """

    codes: Tensor
    scale: Tensor
    minimum: Tensor | None
    # Level 8 is zero.
    centred: bool = False

    def signed(self) -> Tensor | None:
        """Return codes that are weights by the scale alone, int8; None where there are none."""
        if self.centred:
            return self.codes.to(torch.int8) - _MIDDLE
        return self.codes if self.minimum is None else None


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of a file. `heads`: of so many the order of rows is undone; 0 for none."""

    header: GgufHeader
    info: TensorInfo
    heads: int = 0
    shifted: bool = False

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the numbers, of the model's own shape and order.

        Raises:
            EngineUnavailable: `model_load_failed`, for numbers that are none.
            OSError: the file cannot be read.
        """
        info = self.info
        made = torch.empty((info.rows, info.shape[-1]), dtype=dtype)

        def fill(part: slice) -> None:
            values = _floats(self._raw(part), info.kind)
            # Not a number, or infinite, is what one of them makes of the sum.
            if not bool(values.sum(dtype=torch.float64).isfinite()):
                raise damaged("it holds numbers that are none")
            made[part] = values - 1 if self.shifted else values

        self._for_rows(fill)
        return self._untwisted(made).view(info.shape)

    def blocks(self) -> Blocks | None:
        """Return the weight as the file has it, unrounded; None where it has no blocks of 32.

        Raises:
            EngineUnavailable: `model_load_failed`, for scales that are no numbers.
            OSError: the file cannot be read.
        """
        kind = self.info.kind
        if kind not in ("Q4_0", "Q4_1", "Q8_0") or self.shifted or len(self.info.shape) != 2:
            return None
        outputs, inputs = self.info.shape
        codes = torch.empty((outputs, inputs), dtype=torch.int8 if kind == "Q8_0" else torch.uint8)
        scale = torch.empty((outputs, inputs // BLOCK), dtype=torch.float16)
        minimum = torch.empty_like(scale) if kind == "Q4_1" else None

        def fill(part: slice) -> None:
            raw = torch.from_numpy(self._raw(part)).view(-1, inputs // BLOCK, _BYTES[kind])
            scale[part] = _half(raw, 0)
            if minimum is not None:
                minimum[part] = _half(raw, 2)
            codes[part] = _codes(raw, kind).view(-1, inputs)

        self._for_rows(fill)
        for numbers in (scale, minimum):
            if numbers is not None and not bool(numbers.isfinite().all()):
                raise damaged("it holds numbers that are none")
        if kind == "Q4_0":
            # -8 times a float16 is one, unless it is too large.
            minimum = (scale.float() * -_MIDDLE).to(torch.float16)
            if not bool(minimum.isfinite().all()):
                return None
        return Blocks(
            self._untwisted(codes),
            self._untwisted(scale),
            None if minimum is None else self._untwisted(minimum),
            centred=kind == "Q4_0",
        )

    def _raw(self, part: slice) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the bytes of some rows: (rows, bytes of a row)."""
        info = self.info
        count = min(part.stop, info.rows) - part.start
        with self.header.path.open("rb", buffering=0) as stream:
            stream.seek(info.offset + part.start * info.row_bytes)
            held = bytearray(count * info.row_bytes)
            if _fill(stream, memoryview(held)) < len(held):
                raise damaged("it is cut short")
        return np.frombuffer(held, dtype=np.uint8).reshape(count, info.row_bytes)

    def _for_rows(self, fill: Any) -> None:
        step = max(1, _ELEMENTS_AT_ONCE // self.info.shape[-1])
        parts = [slice(at, at + step) for at in range(0, self.info.rows, step)]
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for _ in threads.map(fill, parts):
                pass

    def _untwisted(self, rows: Tensor) -> Tensor:
        """Return the rows in the model's order; a bias is one row of all outputs."""
        if not self.heads:
            return rows
        outputs = rows.numel() if len(self.info.shape) == 1 else rows.shape[0]
        pairs = outputs // self.heads // 2
        made = rows.reshape(self.heads, pairs, 2, -1).transpose(1, 2)
        return made.reshape(rows.shape)


class GgufTensors:
    """A file's tensors by the model's own names."""

    def __init__(self, header: GgufHeader) -> None:
        self._header = header
        self._names = {own: name for name, own in model_names(header).items()}

    def names(self) -> Iterator[str]:
        return iter(self._names)

    def tensor(self, name: str) -> GgufTensor:
        """Return the tensor of that name; KeyError if there is none."""
        own = self._names[name]
        return GgufTensor(
            self._header,
            self._header.tensors[own],
            heads_to_untwist(self._header, own),
            is_shifted(self._header, own),
        )

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {own: self._header.tensors[name].shape for own, name in self._names.items()}


def _floats(raw: np.ndarray[Any, Any], kind: str) -> Tensor:
    """Return rows of bytes as float32."""
    if kind in ("Q4_0", "Q4_1", "Q8_0"):
        # The same numbers as those of the package, in a quarter of the time.
        blocks = torch.from_numpy(raw).view(len(raw), -1, _BYTES[kind])
        codes = _codes(blocks, kind).float()
        if kind == "Q4_0":
            codes -= _MIDDLE
        made = codes.mul_(_half(blocks, 0).float().unsqueeze(2))
        if kind == "Q4_1":
            made += _half(blocks, 2).float().unsqueeze(2)
        return made.view(len(raw), -1)
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(invalid="ignore", over="ignore"):
        made_by_numpy = dequantize(raw, GGMLQuantizationType(_NUMBERS[kind]))
    return torch.from_numpy(np.ascontiguousarray(made_by_numpy, dtype=np.float32))


def _half(raw: Tensor, start: int) -> Tensor:
    return raw[..., start : start + 2].contiguous().view(torch.float16).squeeze(-1)


def _codes(raw: Tensor, kind: str) -> Tensor:
    """Return the levels of blocks: the low halves of bytes come first, then the high ones."""
    if kind == "Q8_0":
        return raw[..., 2:].contiguous().view(torch.int8)
    packed = raw[..., 4 if kind == "Q4_1" else 2 :]
    return torch.cat((packed & 15, packed >> 4), dim=-1)


def _fill(stream: Any, into: memoryview) -> int:
    """Read until it is full or the file ends; return how many bytes were read."""
    done = 0
    while done < len(into) and (count := stream.readinto(into[done:])):
        done += count
    return done
