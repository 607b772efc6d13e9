"""Sequences in the decoder's loop, with processors that look at its scores or lead it.

A logits processor is the loop's own way of letting somebody look. Import it only where the model
runs.
"""

from __future__ import annotations

import threading
from collections import abc
from collections.abc import Iterable
from typing import Any

import torch

from app.engine.decoding.decoder import Decoder, decoder_of
from app.engine.decoding.sampling import Processor
from app.engine.decoding.sequence import Forcing, Sequence

WAIT_S = 600.0
# One token that is chosen and those that follow from it are read together.
RUN_TOKENS = 8


def loop_of(model: Any) -> Decoder:
    """Return the decoder of the model; from then on the model's attention is the decoder's.

    Raises:
        RuntimeError: the server would not run the model in its own loop.
    """
    decoder = decoder_of(model)
    if decoder is None:
        raise RuntimeError("the server would run this model in generate, not in its own loop")
    return decoder


class Running:
    """One sequence, which begins when it is made; `beside` are those that may run with it.

    `shares`: what it told of reading its prompt. `widest`: how many wrote at once, itself included.
    """

    def __init__(
        self,
        decoder: Decoder,
        prompt: abc.Sequence[int],
        *,
        max_tokens: int,
        processors: abc.Sequence[Processor] = (),
        eos_ids: Iterable[int] = (),
        constraint: Forcing | None = None,
        may_force: bool = False,
        beside: abc.Sequence[Running] = (),
    ) -> None:
        self.tokens: list[int] = []
        self.shares: list[float] = []
        self.widest = 0
        self._beside = beside
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        decoder.submit(
            Sequence(
                prompt=prompt,
                max_tokens=max_tokens,
                processors=processors,
                eos_ids=frozenset(eos_ids),
                constraint=constraint,
                may_force=may_force,
                stopped=lambda: False,
                on_token=self._take,
                on_prefill=self.shares.append,
                on_end=self._end,
            )
        )

    def wait(self) -> list[int]:
        """Return the new tokens when there will be no more."""
        if not self._ended.wait(WAIT_S):
            raise TimeoutError("the decoder does not end")
        if self._failure is not None:
            raise self._failure
        return self.tokens

    @property
    def _writing(self) -> bool:
        return bool(self.tokens) and not self._ended.is_set()

    def _take(self, token: int) -> None:
        self.tokens.append(token)
        others = sum(one._writing for one in self._beside if one is not self)
        self.widest = max(self.widest, 1 + others)

    def _end(self, failure: BaseException | None) -> None:
        self._failure = failure
        self._ended.set()


class Follow:
    """Keeps the scores of every step and leaves only the text's own token.

    `scores`: (vocabulary,) before the token at a place, by places.
    """

    def __init__(self, ids: abc.Sequence[int]) -> None:
        self._ids = ids
        self.scores: dict[int, torch.Tensor] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of -inf but for one token. scores: (1, vocabulary) float."""
        at = input_ids.shape[1]
        self.scores[at] = scores[0].clone()
        only = torch.full_like(scores, -torch.inf)
        only[0, self._ids[at]] = 0.0
        return only


class Choices:
    """Notes the likeliest token of every step, by places, and changes nothing."""

    def __init__(self) -> None:
        self.found: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores. scores: (1, vocabulary) float."""
        self.found[input_ids.shape[1]] = int(scores[0].argmax())
        return scores


class Known:
    """A constraint that knows RUN_TOKENS - 1 tokens after each that is chosen."""

    complete = False

    def __init__(self, ids: abc.Sequence[int], prompt_tokens: int) -> None:
        self._ids = ids
        self._start = prompt_tokens
        self._at = prompt_tokens

    def advance(self, ids: abc.Sequence[int]) -> None:
        """Take the whole sequence."""
        self._at = len(ids)

    def forced(self) -> list[int]:
        """Return the rest of the run, nothing at its end."""
        rest = -(self._at - self._start) % RUN_TOKENS
        return list(self._ids[self._at : self._at + rest])
