"""One sequence that the decoder writes, and all that is its own. It knows token ids, not text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.engine.decoding.kv_cache import KeyValues
from app.engine.decoding.prompt_lookup import PromptLookup
from app.engine.decoding.sampling import Processor

# How far a prompt is read is told in steps of this share.
TOLD_SHARE = 0.02


class Forcing(Protocol):
    """A constraint that may know the next tokens without asking the model."""

    @property
    def complete(self) -> bool: ...

    def advance(self, ids: Sequence[int]) -> None: ...

    def forced(self) -> list[int]: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Generation:
    """A prompt, what chooses and checks its next tokens, and who is told.

    `guessed`: tokens that a step computes behind `ids`, to see whether the model chooses them.
    `on_token` is called in the decoder's thread for each new token, `on_read` with the share of the
    prompt that has been read, `on_end` once, last, with what went wrong or None.
    """

    prompt: Sequence[int]
    max_tokens: int
    processors: Sequence[Processor]
    eos_ids: frozenset[int]
    constraint: Forcing | None
    may_force: bool
    stopped: Callable[[], bool]
    on_token: Callable[[int], None]
    on_read: Callable[[float], None]
    on_end: Callable[[BaseException | None], None]
    ids: list[int] = field(init=False)
    kv: KeyValues = field(init=False)
    lookup: PromptLookup = field(init=False, default_factory=PromptLookup)
    guessed: list[int] = field(init=False, default_factory=list)
    made: int = 0
    told: float = 0.0

    @property
    def unread(self) -> int:
        """How many of its tokens the model has not seen."""
        return len(self.ids) - self.kv.length

    @property
    def reading(self) -> bool:
        """The prompt is not whole yet."""
        return self.kv.length < len(self.prompt) - 1

    def tell_read(self, tokens: float) -> None:
        """Tell how much of the prompt has been read, where that is news."""
        share = tokens / len(self.prompt)
        if self.told + TOLD_SHARE <= share < 1:
            self.told = share
            self.on_read(share)
