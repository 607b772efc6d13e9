"""One sequence that the decoder extends, and all state of its own. It knows token ids, not text."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from app.engine.decoding.kv_cache import KeyValues
from app.engine.decoding.prompt_lookup import PromptLookup
from app.engine.decoding.sampling import Processor

# Progress of a prefill is reported in steps of this share of the prompt.
REPORT_STEP = 0.02


class Forcing(Protocol):
    """A constraint that may know the next tokens without asking the model."""

    @property
    def complete(self) -> bool: ...

    def advance(self, ids: abc.Sequence[int]) -> None: ...

    def forced(self) -> list[int]: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """A prompt and the tokens after it, what chooses and checks them, and the callbacks.

    `proposed`: tokens that a step computes behind `ids`, to see whether the model chooses them.
    `on_token` is called in the decoder's thread for each new token, `on_prefill` with the share of
    the prompt that is in the cache, `on_end` once, last, with what went wrong or None.
    """

    prompt: abc.Sequence[int]
    max_tokens: int
    processors: abc.Sequence[Processor]
    eos_ids: frozenset[int]
    constraint: Forcing | None
    may_force: bool
    stopped: Callable[[], bool]
    on_token: Callable[[int], None]
    on_prefill: Callable[[float], None]
    on_end: Callable[[BaseException | None], None]
    ids: list[int] = field(init=False)
    kv: KeyValues = field(init=False)
    lookup: PromptLookup = field(init=False, default_factory=PromptLookup)
    proposed: list[int] = field(init=False, default_factory=list)
    new_tokens: int = 0
    reported_share: float = 0.0

    @property
    def uncomputed(self) -> int:
        """How many of its tokens the model has not seen."""
        return len(self.ids) - self.kv.length

    @property
    def in_prefill(self) -> bool:
        """More than the last token of the prompt is not computed yet."""
        return self.kv.length < len(self.prompt) - 1

    def report_prefill(self, tokens: float) -> None:
        """Report how much of the prompt has been computed, once for each `REPORT_STEP`."""
        share = tokens / len(self.prompt)
        if self.reported_share + REPORT_STEP <= share < 1:
            self.reported_share = share
            self.on_prefill(share)
