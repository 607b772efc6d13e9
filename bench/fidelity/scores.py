"""How far scores are from those of float32: perplexity, the likeliest token, divergence.

Plain arithmetic on logits, and the plain forward that gives the first of them. It knows neither
formats nor the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Tokens at the start of a window are guessed from little, and are left out.
FIRST = 32


@dataclass(frozen=True, slots=True)
class Window:
    """A part of the held-out text: its tokens, and the float32 logits before those from FIRST on.

    reference: (tokens - FIRST, vocabulary)
    """

    ids: list[int]
    reference: torch.Tensor

    def reference_at(self, at: int) -> torch.Tensor:
        """Return the float32 logits that foretell the token at `at`: (vocabulary,)."""
        return self.reference[at - FIRST]


def cut(ids: Sequence[int], *, count: int, tokens: int) -> list[list[int]]:
    """Return parts of the held-out text, spread evenly, as many as there is room for."""
    count = min(count, len(ids) // tokens)
    if not count:
        raise SystemExit(f"{len(ids)} held-out tokens are too few for a window of {tokens}.")
    step = (len(ids) - tokens) / max(1, count - 1)
    return [list(ids[int(at * step) : int(at * step) + tokens]) for at in range(count)]


def forward(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """Return the logits before the tokens from FIRST on, by one forward: (tokens - FIRST, n)."""
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids]), use_cache=False).logits
    return logits[0, FIRST - 1 : -1].float()


class Comparison:
    """Gathers logits and those of float32 at the same places of the same text."""

    def __init__(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._true_losses: list[torch.Tensor] = []
        self._same: list[torch.Tensor] = []
        self._divergences: list[torch.Tensor] = []

    def add(self, logits: torch.Tensor, reference: torch.Tensor, next_ids: Sequence[int]) -> None:
        """Take logits of (places, vocabulary) both, and the tokens that come next in the text."""
        with torch.inference_mode():
            shares, true = (one.double().log_softmax(-1) for one in (logits, reference))
            places = torch.tensor(next_ids)[:, None]
            self._losses.append(-shares.gather(1, places)[:, 0])
            self._true_losses.append(-true.gather(1, places)[:, 0])
            self._same.append(shares.argmax(-1) == true.argmax(-1))
            self._divergences.append((true.exp() * (true - shares)).sum(-1))

    def add_window(self, window: Window, logits: torch.Tensor) -> None:
        """Take all logits of a window, as `forward` returns them."""
        self.add(logits, window.reference, window.ids[FIRST:])

    def add_steps(self, window: Window, scores: dict[int, torch.Tensor]) -> None:
        """Take the logits (vocabulary,) before some tokens of a window, by the tokens' places."""
        places = sorted(scores)
        self.add(
            torch.stack([scores[at] for at in places]),
            torch.stack([window.reference_at(at) for at in places]),
            [window.ids[at] for at in places],
        )

    def row(self) -> dict[str, Any]:
        """Return the numbers of a row of the table.

        `ratio`: of the perplexities. `ratio_error`: its standard error, from the differences of
        the losses token by token. `agreement`: how often the likeliest token is the same.
        `divergence`: the mean Kullback-Leibler divergence from float32, in nats.
        """
        losses, true = torch.cat(self._losses), torch.cat(self._true_losses)
        more = losses - true
        ratio = math.exp(float(more.mean()))
        divergence = float(torch.cat(self._divergences).mean())
        return {
            "tokens": len(losses),
            "perplexity": math.exp(float(losses.mean())),
            "ratio": ratio,
            "ratio_error": ratio * float(more.std()) / math.sqrt(len(more)),
            "agreement": float(torch.cat(self._same).double().mean()),
            # Rounding may leave it a little below zero; what is no number stays so.
            "divergence": 0.0 if divergence < 0 else divergence,
        }
