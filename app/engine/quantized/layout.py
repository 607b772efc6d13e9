"""How int8 and int4 weights lie in memory: one layout for every kernel and every processor.

A weight of (out, in) is cut into squares of 32 outputs x 32 inputs. Each output of a square is a
block with a scale of its own, and in int4 a minimum: int8 weight = scale * code (-128 to 127), int4
weight = scale * code + minimum (0 to 15), the formulas of GGUF's Q8_0, Q4_0 and Q4_1, whose blocks
therefore fit in bit for bit. A square is one run of bytes, read from its first to its last:

    int4, 640 bytes: 32 scales, 32 minimums (float16), 8 lines
    int8, 1,088 bytes: 32 scales (float16), 8 lines of outputs 0 to 15, 8 lines of 16 to 31

A line is 64 bytes: 4 inputs of each of 16 outputs. In int4 the low half of a byte is of output i,
the high half of 16 + i; in int8 a byte is the code with 128 added, since the instructions multiply
unsigned by signed. Packed weights are uint8 tensors of (out / 32, in / 32, bytes of a square).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Raised when the layout changes, so that what was kept on a disk is made anew.
LAYOUT_VERSION = 1
BLOCK = 32
SQUARE_BYTES = {4: 640, 8: 1088}
_LANES, _INPUTS = 16, 4
_LINES = (BLOCK // _INPUTS, _LANES, _INPUTS)
_SCALES_BYTES = 2 * BLOCK


def fits(outputs: int, inputs: int) -> bool:
    """Tell whether a weight consists of whole squares."""
    return outputs % BLOCK == 0 and inputs % BLOCK == 0


def packed_shape(outputs: int, inputs: int, bits: int) -> tuple[int, int, int]:
    """Return the shape of the packed weight."""
    return outputs // BLOCK, inputs // BLOCK, SQUARE_BYTES[bits]


def pack_int4(codes: Tensor, scales: Tensor, minimums: Tensor) -> Tensor:
    """Pack weights that are scales * codes + minimums, exactly as they are given.

    codes: (out, in) 0 to 15 of any integer type · scales, minimums: (out, in / 32)

    Raises:
        ValueError: the sizes do not fit, or float16 cannot hold a scale or minimum exactly.
    """
    rows, columns = _squares(codes, scales, minimums)
    halves = codes.to(torch.uint8).reshape(rows, 2, _LANES, columns, BLOCK // _INPUTS, _INPUTS)
    lines = (halves[:, 0] | (halves[:, 1] << 4)).permute(0, 2, 3, 1, 4)
    parts = [_halves(scales), _halves(minimums), lines.reshape(rows, columns, -1)]
    return torch.cat(parts, dim=2)


def pack_int8(codes: Tensor, scales: Tensor) -> Tensor:
    """Pack weights that are scales * codes, exactly as they are given.

    codes: (out, in) int8 · scales: (out, in / 32)

    Raises:
        ValueError: the sizes do not fit, or float16 cannot hold a scale exactly.
    """
    rows, columns = _squares(codes, scales)
    # The highest bit is what an addition of 128 changes.
    halves = codes.contiguous().view(torch.uint8).bitwise_xor(128)
    halves = halves.view(rows, 2, _LANES, columns, BLOCK // _INPUTS, _INPUTS)
    lines = halves.permute(0, 3, 1, 4, 2, 5).reshape(rows, columns, -1)
    return torch.cat([_halves(scales), lines], dim=2)


def unpack_int4(packed: Tensor) -> Tensor:
    """Return the (out, in) float32 weight."""
    rows, columns, _ = packed.shape
    lines = packed[:, :, 2 * _SCALES_BYTES :].reshape(rows, columns, *_LINES)
    made = _by_outputs(torch.stack((lines & 15, lines >> 4), dim=2))
    made = made.mul_(_numbers(packed, 0)).add_(_numbers(packed, 1))
    return made.view(rows * BLOCK, columns * BLOCK)


def unpack_int8(packed: Tensor) -> Tensor:
    """Return the (out, in) float32 weight."""
    rows, columns, _ = packed.shape
    lines = packed[:, :, _SCALES_BYTES:].reshape(rows, columns, 2, *_LINES)
    made = _by_outputs(lines.bitwise_xor(128).view(torch.int8)).mul_(_numbers(packed, 0))
    return made.view(rows * BLOCK, columns * BLOCK)


def _by_outputs(codes: Tensor) -> Tensor:
    """Return (out, blocks, 32) float32 of codes by squares, halves, lines, lanes and inputs."""
    rows, columns = codes.shape[:2]
    return codes.permute(0, 2, 4, 1, 3, 5).float().reshape(rows * BLOCK, columns, BLOCK)


def _numbers(packed: Tensor, which: int) -> Tensor:
    """Return the scales (0) or the minimums (1) of all blocks: (out, in / 32, 1) float32."""
    part = packed[:, :, which * _SCALES_BYTES : (which + 1) * _SCALES_BYTES].contiguous()
    return part.view(torch.float16).transpose(1, 2).float().reshape(-1, packed.shape[1], 1)


def _halves(numbers: Tensor) -> Tensor:
    """Return the numbers of all blocks, (out, in / 32), as bytes of their squares."""
    halves = numbers.to(torch.float16)
    if not torch.equal(halves.float(), numbers.float()):
        raise ValueError("a scale or minimum is not one that float16 holds exactly")
    outputs, columns = halves.shape
    squares = halves.view(outputs // BLOCK, BLOCK, columns).transpose(1, 2).contiguous()
    return squares.view(torch.uint8)


def _squares(codes: Tensor, *numbers: Tensor) -> tuple[int, int]:
    outputs, inputs = codes.shape
    if not fits(outputs, inputs):
        raise ValueError(f"a weight of {outputs} x {inputs} has no whole squares of {BLOCK}")
    for one in numbers:
        if tuple(one.shape) != (outputs, inputs // BLOCK):
            raise ValueError(f"wanted {outputs} x {inputs // BLOCK} numbers, got {one.shape}")
    return outputs // BLOCK, inputs // BLOCK
