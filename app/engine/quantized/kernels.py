"""What this machine's CPU does fast, by its flags.

Nothing is measured: what is kept on the disk is laid out for these kernels, and a start on a busy
machine would choose others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from app.engine.quantized.cpu_flags import cpu_flags
from app.engine.quantized.int4_layout import GROUP, pack_int4
from app.engine.quantized.native.library import library
from app.engine.quantized.native.matmul import amx_allowed


@dataclass(frozen=True, slots=True)
class Kernels:
    """What this machine does fast; everything else has a correct, slower way.

    `weight_only`: the int8 and int4 kernels are vectorised. `int4_block`: how many outputs the int4
    kernel's layout interleaves. `int_matmul`: int8 matmuls have their instruction (VNNI, AMX),
    without which they may saturate. `dense`: the type in which unpacked blocks are multiplied.
    `native`: there are kernels of our own, with AMX or with VNNI alone; "" for torch's only.
    """

    weight_only: bool
    int4_block: int
    int_matmul: bool
    dense: str
    native: Literal["", "vnni", "amx"] = ""


@cache
def find_kernels(*, native: bool = True) -> Kernels:
    """Return what this machine does fast, by torch's kernels alone where not `native`."""
    capability = torch.backends.cpu.get_cpu_capability()
    block = {"AVX512": 64, "AVX2": 32}.get(capability)
    weight_only = block is not None and _is_laid_out_as_known(block)
    flags = cpu_flags()
    onednn: Any = torch.backends.mkldnn
    int_matmul = bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"}) and onednn.is_available()
    return Kernels(
        weight_only=weight_only,
        int4_block=block or 64,
        int_matmul=int_matmul,
        dense="bfloat16" if flags & {"avx512_bf16", "amx_bf16"} else "float32",
        native=_native() if native else "",
    )


def _native() -> Literal["", "vnni", "amx"]:
    if library() is None:
        return ""
    return "amx" if amx_allowed() else "vnni"


def _is_laid_out_as_known(block: int) -> bool:
    """Tell whether this build of torch packs int4 as `pack_int4` does, on this machine."""
    levels = (torch.arange(block * GROUP, dtype=torch.int32) * 7 % 16).view(block, GROUP)
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 2)
    except (RuntimeError, AttributeError):
        return False
    return torch.equal(packed, pack_int4(levels, block))
