"""What this machine's CPU does fast, by its flags.

Nothing is measured: a start on a busy machine would choose others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from app.engine.quantized.cpu_flags import cpu_flags
from app.engine.quantized.native.library import Level, best_level


@dataclass(frozen=True, slots=True)
class Kernels:
    """What this machine does fast; everything else has a correct, slower way.

    `dense`: the type in which weights that were made into floats are multiplied. `native`: which
    kernels of our own multiply packed weights; None for none.
    """

    dense: str
    native: Level | None = None


@cache
def find_kernels(*, native: bool = True) -> Kernels:
    """Return what this machine does fast, without kernels of our own where not `native`."""
    dense = "bfloat16" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "float32"
    return Kernels(dense, best_level() if native else None)
