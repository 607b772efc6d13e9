"""Greedy text of transformers' own `generate`, and where another text leaves it.

It runs a model that no decoder was made for, with transformers' own cache and attention.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# bfloat16 keeps 8 bits of a number: the two likeliest tokens so few of its steps apart change
# places when sums are added up in another order.
NEAR_STEPS = 4
_FRACTION_BITS = 7


@dataclass(frozen=True, slots=True)
class Reference:
    """A text, and of each of its tokens the logit and how far the second one is below it."""

    tokens: list[int]
    best: list[float]
    gaps: list[float]


def generated(
    model: Any, prompt: Sequence[int], *, max_tokens: int, eos_ids: Iterable[int]
) -> Reference:
    """Return what `generate` writes after the prompt."""
    ends = list(eos_ids)
    with torch.inference_mode():
        made = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
            return_dict_in_generate=True,
            output_logits=True,
        )
        pairs = torch.cat(made.logits).float().topk(2).values
    tokens = made.sequences[0, len(prompt) :].tolist()
    return Reference(tokens, pairs[:, 0].tolist(), (pairs[:, 0] - pairs[:, 1]).tolist())


def compare(texts: Sequence[Sequence[int]], references: Sequence[Reference]) -> dict[str, Any]:
    """Return how many texts are equal, and the first divergence of each other one.

    `steps`: the gap in steps of bfloat16 at the size of the likeliest logit. `near`: no more than
    NEAR_STEPS of them.
    """
    divergences = []
    for place, (text, reference) in enumerate(zip(texts, references, strict=True)):
        at = _first_difference(text, reference.tokens)
        if at is not None:
            gap = reference.gaps[at]
            steps = gap / 2.0 ** (math.frexp(reference.best[at])[1] - 1 - _FRACTION_BITS)
            divergences.append(
                {"prompt": place, "token": at, "gap": gap, "steps": steps}
                | {"near": steps <= NEAR_STEPS}
            )
    return {
        "prompts": len(references),
        "tokens": sum(len(one.tokens) for one in references),
        "equal": len(references) - len(divergences),
        "divergences": divergences,
    }


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the place of the first token that differs; texts end alike or not at all."""
    if list(one) == list(other):
        return None
    pairs = zip(one, other, strict=False)
    different = (at for at, (left, right) in enumerate(pairs) if left != right)
    return next(different, min(len(one), len(other)) - 1)
