"""What a variant of `bench.cpu` is to do, and the times that it measures.

It imports no library: llama.cpp runs in an environment that has none of the server's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

TEMPERATURE = 0.2
SEED = 1
WARM_UP_PROMPT_TOKENS = 64


class NotAvailable(Exception):
    """The variant cannot run here, for a reason that its message tells."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a variant is to do.

    `model`: the folder of the checkpoint, or the file for llama.cpp. `packed`: where Precis keeps
    weights that it has quantized. `users`: how many then write at once, `users_new_tokens` each.
    """

    model: Path
    packed: Path
    prompt_tokens: int
    new_tokens: int
    threads: int
    users: int = 1
    users_new_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Moments of one generation by one clock, and what it counted."""

    started_s: float
    first_s: float
    ended_s: float
    prompt_tokens: int
    new_tokens: int

    def rates(self) -> dict[str, Any]:
        """Return what is printed: the first token ends the prefill and does not count as decode."""
        first_token_s = self.first_s - self.started_s
        return {
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "first_token_s": first_token_s,
            "prefill_tokens_per_s": self.prompt_tokens / first_token_s,
            "decode_tokens_per_s": (self.new_tokens - 1) / (self.ended_s - self.first_s),
            "total_s": self.ended_s - self.started_s,
        }
