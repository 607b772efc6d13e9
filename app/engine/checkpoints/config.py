"""What to load and how: the values that settings hand down to one model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.engine.base import Status
from app.engine.checkpoints.files import Fetch, fetch_from_hub

if TYPE_CHECKING:
    from app.engine.quantized.kernels import Kernels

DEFAULT_MODEL_ID = "microsoft/Phi-3-mini-4k-instruct"
# Of the models that are loaded through other classes, no layers are made into integers.
PACKED_CLASS = "AutoModelForCausalLM"

OnStatus = Callable[[Status], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What to load and how. `clock` counts seconds, `fetch` downloads; both are for tests.

    `auto_class`: the class of transformers that loads the weights. `weights`: a format's name, or
    "auto". `device_map`: as transformers takes it, where there is a GPU. `setting`: the variable
    that messages name for the model. `quant_cache_dir`: where int8 and int4 weights are kept for
    the next start, a folder or "auto"; None for nowhere. `native_kernels`: int8 and int4 by kernels
    of our own, where the machine can have them. `kernels`: what the machine does fast, where that
    should not be found out. `sequences`: how many generations may run at once. `keep_s`: how long
    what was read for one is kept after its end, for those that begin alike.
    """

    model_id: str = DEFAULT_MODEL_ID
    auto_class: str = PACKED_CLASS
    revision: str | None = None
    weights: str = "auto"
    device_map: str = "cpu"
    setting: str = "V4_MODEL_ID"
    trust_remote_code: bool = False
    hf_token: str | None = field(default=None, repr=False)
    threads: int | None = None
    memory_limit_bytes: int | None = None
    context_tokens: int | None = None
    sequences: int = 1
    keep_s: float = math.inf
    quant_cache_dir: str | None = None
    native_kernels: bool = True
    kernels: Kernels | None = None
    fetch: Fetch = fetch_from_hub
    clock: Callable[[], float] = time.monotonic
