"""Draws the next token: penalties, temperature, top_p, a seed of its own; and keeps its logprob.

Logits processors for `generate` with `do_sample=False`: `Sampler`, the last one, leaves only the
token that it drew, from a generator that belongs to one generation alone. Knows no grammar and no
tokenizer; torch is imported when a generation begins.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from app.engine.base import TokenLogprob

if TYPE_CHECKING:
    import torch

# The nucleus is nearly always among these; sorting a whole vocabulary of 152,000 takes 8 ms.
_NUCLEUS_TOKENS = 1024
# What OpenAI's API gives for a token that is out of the question; JSON has no infinity.
LEAST_LOGPROB = -9999.0
_SEEDS = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 takes the likeliest one (S2.18).

    `top_logprobs`: how many alternatives are reported with each token; None for no logprobs.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int | None = None


class Processor(Protocol):
    """A logits processor. input_ids: (1, tokens) int64, scores: (1, vocabulary) float."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor: ...


class Recorder:
    """Keeps what the model itself thought of each token: the first processor of all.

    `bytes_of` returns the bytes that a token stands for.
    """

    def __init__(self, top: int, bytes_of: Callable[[int], bytes]) -> None:
        self._top = top
        self._bytes_of = bytes_of
        self._scores: Any = None
        self._ready: deque[TokenLogprob] = deque()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Keep log_softmax of the raw logits. scores: (1, vocabulary) float."""
        self._scores = scores[0].float().log_softmax(-1)
        return scores

    def choose(self, token: int) -> None:
        """Note the token that was drawn from these logits."""
        best = self._scores.topk(min(self._top, self._scores.shape[-1]))
        top = tuple(
            (*self._text(one), _finite(value))
            for one, value in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        text, data = self._text(token)
        self._ready.append(TokenLogprob(text, data, _finite(float(self._scores[token])), top))

    def next(self) -> TokenLogprob:
        """Return the tokens that were chosen, each once, in their order."""
        return self._ready.popleft()

    def _text(self, token: int) -> tuple[str, bytes]:
        data = self._bytes_of(token)
        return data.decode("utf-8", "replace"), data


class Penalties:
    """Makes tokens less likely that were generated before; comes before any mask.

    logit -= count * frequency_penalty + (count > 0) * presence_penalty
    https://platform.openai.com/docs/api-reference/chat/create
    """

    def __init__(self, *, presence: float, frequency: float, prompt_tokens: int) -> None:
        self._presence = presence
        self._frequency = frequency
        self._seen = prompt_tokens
        self._counts: Counter[int] = Counter()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return changed scores. input_ids: (1, tokens) int64, scores: (1, vocabulary) float."""
        import torch

        self._counts.update(input_ids[0, self._seen :].tolist())
        self._seen = input_ids.shape[1]
        if not self._counts:
            return scores
        tokens = torch.tensor(list(self._counts), device=scores.device)
        counts = torch.tensor(list(self._counts.values()), device=scores.device, dtype=scores.dtype)
        penalised = scores.clone()
        penalised[0, tokens] -= counts * self._frequency + self._presence
        return penalised


class Sampler:
    """The last processor: draws a token and makes it the only one that is left."""

    def __init__(
        self,
        *,
        temperature: float,
        top_p: float,
        seed: int | None,
        recorder: Recorder | None = None,
    ) -> None:
        self._temperature = temperature
        self._top_p = top_p
        self._seed = seed
        self._recorder = recorder
        self._generator: torch.Generator | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of -inf but for the drawn token. scores: (1, vocabulary) float."""
        import torch

        token = self._draw(scores[0].float())
        if self._recorder is not None:
            self._recorder.choose(token)
        chosen = torch.full_like(scores, -torch.inf)
        chosen[0, token] = 0.0
        return chosen

    def _draw(self, scores: torch.Tensor) -> int:
        import torch

        best = scores.max()
        if self._temperature <= 0 or bool(torch.isneginf(best)):
            return int(scores.argmax())
        # From the best one downwards: no temperature is small enough to overflow.
        shares = ((scores - best) / self._temperature).softmax(-1)
        ids = None
        if self._top_p < 1:
            shares, ids = _nucleus(shares, self._top_p)
        drawn = self._at_random(shares)
        return drawn if ids is None else int(ids[drawn])

    def _at_random(self, shares: torch.Tensor) -> int:
        """Return a place with the probability of its share; torch's own way takes 1 ms for 32k."""
        import torch

        ends = shares.double().cumsum(-1)
        own, device = self._own(shares.device), shares.device
        point = torch.rand(1, generator=own, dtype=ends.dtype, device=device)
        # To the right of what is equal, so that nothing without a share is ever drawn.
        drawn = int(torch.searchsorted(ends, point * ends[-1], right=True))
        return drawn if drawn < len(ends) else int(shares.argmax())

    def _own(self, device: Any) -> torch.Generator:
        import torch

        if self._generator is None:
            self._generator = torch.Generator(device)
            if self._seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self._seed % _SEEDS)
        return self._generator


def processors(
    sampling: Sampling,
    constraint: Processor | None,
    recorder: Recorder | None,
    *,
    prompt_tokens: int,
    repetition_penalty: float | None = None,
) -> list[Processor]:
    """Return what is done to the logits, in order: look, penalise, mask, draw.

    `repetition_penalty`: the checkpoint's own, which `generate` would apply before anybody looks.
    """
    from transformers import RepetitionPenaltyLogitsProcessor

    chain: list[Processor] = [recorder] if recorder else []
    if repetition_penalty and repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(float(repetition_penalty)))
    if sampling.presence_penalty or sampling.frequency_penalty:
        chain.append(
            Penalties(
                presence=sampling.presence_penalty,
                frequency=sampling.frequency_penalty,
                prompt_tokens=prompt_tokens,
            )
        )
    if constraint is not None:
        chain.append(constraint)
    chain.append(
        Sampler(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            recorder=recorder,
        )
    )
    return chain


def _nucleus(shares: torch.Tensor, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the fewest likeliest tokens that have `top_p` in all: (shares, ids), never none."""
    found = shares.topk(min(_NUCLEUS_TOKENS, shares.shape[-1]))
    if float(found.values.sum()) < top_p:
        found = shares.topk(shares.shape[-1])
    before = found.values.cumsum(-1) - found.values
    count = max(1, int((before < top_p).sum()))
    return found.values[:count], found.indices[:count]


def _finite(value: float) -> float:
    return max(value, LEAST_LOGPROB)
