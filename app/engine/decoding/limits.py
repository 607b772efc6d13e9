"""Which models the decoder runs, how much one step computes, and how much is kept.

No torch: code that only counts memory imports it too. It knows no tensors and no sequences.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

# Families whose attention goes through transformers' interface and whose forward is decoder + head.
RUNS = frozenset(("phi3", "qwen3", "llama"))
# A rotary embedding that follows the length of the sequence would see all sequences as one.
_FIXED_ROPE = frozenset(("default", "linear", "llama3"))
# Under this name a model has its decoder.
ATTRIBUTE = "precis_decoder"
# Rows of a prefill chunk while no other sequence decodes.
ALONE_TOKENS = 512
# With kernels of our own, 2 rows of int4 take 1.03 times as long as one, 4 1.2 and 8 1.7; with
# torch's 1.3, 1.9 and 3.7 (the linear layers of a block of Phi-3, an Intel with AMX).
CHEAP_ROWS = 8
# Of them, so many of one sequence are proposed tokens.
MAX_PROPOSED = 3
# Buffers of keys and values have whole blocks.
BLOCK_TOKENS = 256
# A step with a chunk in it aims at this: running streams never stand still for 2 s, even when a
# step is run again because a sequence was stopped. A smaller one would mostly pay for what a step
# costs in any case. Then the rows that a chunk beside others has; the first has the middle number.
STEP_S = 0.9
LEAST_ROWS, FIRST_ROWS, MOST_ROWS = 8, 16, 256
_LEAST_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """How many sequences run at once; how much of ended ones is kept, and for how long.

    `sequences`: None for no limit. `max_tokens`: kept in all; None for the model's context.
    `cheap_rows`: up to so many rows take hardly longer than one. `clock` counts seconds; it is for
    tests.
    """

    sequences: int | None = None
    max_tokens: int | None = None
    ttl_s: float = math.inf
    cheap_rows: int = 1
    clock: Callable[[], float] = time.monotonic


def runs(config: Mapping[str, Any]) -> bool:
    """Tell whether the loop runs a model on the CPU, from its configuration or its config.json."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    return config.get("model_type") in RUNS and kind in _FIXED_ROPE


class ChunkSizer:
    """How many rows a prefill chunk has beside decoding sequences, from how long steps take.

    The rate includes what the others' tokens cost, and so the step comes to `STEP_S`, not the chunk
    alone: rows * STEP_S / seconds has its fixed point there.
    """

    def __init__(self) -> None:
        self._rows_per_s: float | None = None

    def rows(self) -> int:
        """Return the rows of the next chunk."""
        if self._rows_per_s is None:
            return FIRST_ROWS
        return max(LEAST_ROWS, min(MOST_ROWS, int(self._rows_per_s * STEP_S)))

    def record(self, rows: int, seconds: float) -> None:
        """Note how long a step with a whole chunk took; a short one would look slow."""
        self._rows_per_s = rows / max(seconds, _LEAST_S)
