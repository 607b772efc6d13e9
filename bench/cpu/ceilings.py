"""What the machine can do at most, and what a phase of generation asks of it at least.

The ceilings are measured at the shapes of the model; the demands follow from its sizes. It knows
nothing of how a variant computes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.cpu.checkpoint import Shape

MATRIX_ROWS = 1024
MIN_REPEATS = 3

# Bytes that a weight takes where it is read at every token: (layers, head). int8 has one scale a
# row, int4 a scale and a zero point per 128; llama.cpp's blocks are 18 bytes for 32 weights (Q4_0)
# and 210 for 256 (Q6_K). The head of int8 and int4 is counted as int8.
WEIGHT_BYTES: Mapping[str, tuple[float, float]] = {
    "float32": (4, 4),
    "bfloat16": (2, 2),
    "int8": (1.01, 1.01),
    "int4": (0.53, 1.01),
    "q4_0": (18 / 32, 210 / 256),
}


def decode_bytes(shape: Shape, weights: str, context_tokens: float) -> float:
    """Return what a decode step cannot avoid reading: weights but the embedding, keys and values.

    Keys and values count as far as the model's sliding window reaches, 4 bytes an element in
    float32 and 2 otherwise.
    """
    layer_bytes, head_bytes = WEIGHT_BYTES[weights]
    read = shape.layers * shape.layer_elements * layer_bytes + shape.head_elements * head_bytes
    element_bytes = 4 if weights == "float32" else 2
    reach = min(context_tokens, shape.window)
    return read + 2 * shape.layers * shape.hidden * reach * element_bytes


def prefill_operations(shape: Shape, tokens: int) -> float:
    """Return the multiplications and additions of a prompt: linear maps, attention, the last head.

    Attention counts half of the square, 2 x tokens^2 x hidden a layer; the window is not deducted.
    """
    linear = 2.0 * tokens * shape.layers * shape.layer_elements
    attention = 2.0 * tokens**2 * shape.hidden * shape.layers
    return linear + attention + 2.0 * shape.head_elements


def measure(shape: Shape, *, threads: int, copy_bytes: int, each_s: float) -> dict[str, Any]:
    """Return the ceilings: bytes/s of a copy and of reading, operations/s of matrix products.

    Each is the best of what fits in `each_s`.
    """
    import torch

    torch.set_num_threads(threads)
    rates: dict[str, Any] = _memory(copy_bytes, each_s)
    rows, inner, outer = MATRIX_ROWS, shape.hidden, 2 * shape.intermediate
    operations = 2.0 * rows * inner * outer
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        left = torch.randn(rows, inner).to(dtype)
        right = torch.randn(outer, inner).to(dtype)
        seconds = _best_s(lambda a=left, b=right: torch.nn.functional.linear(a, b), each_s)
        rates[f"{name}_operations_per_s"] = operations / seconds
    left8 = torch.randint(-127, 128, (rows, inner), dtype=torch.int8)
    right8 = torch.randint(-127, 128, (outer, inner), dtype=torch.int8)
    seconds = _best_s(lambda: torch._int_mm(left8, right8.t()), each_s)
    rates["int8_operations_per_s"] = operations / seconds
    rates["capability"] = torch.backends.cpu.get_cpu_capability()
    rates["threads"] = torch.get_num_threads()
    return rates


def _memory(copy_bytes: int, each_s: float) -> dict[str, Any]:
    import torch

    source = torch.ones(copy_bytes // 4)
    target = torch.zeros_like(source)
    return {
        # A copy reads and writes every byte.
        "copy_bytes_per_s": 2 * copy_bytes / _best_s(lambda: target.copy_(source), each_s),
        "read_bytes_per_s": copy_bytes / _best_s(source.sum, each_s),
    }


def _best_s(work: Callable[[], Any], each_s: float) -> float:
    """Return the shortest time of several runs: a ceiling is what was reached once."""
    work()
    best = float("inf")
    begun = time.perf_counter()
    repeats = 0
    while repeats < MIN_REPEATS or time.perf_counter() - begun < each_s:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
        repeats += 1
    return best
