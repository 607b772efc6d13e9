"""Runs one task in transformers' own `generate`: for models that the decoder does not run.

It imports torch and transformers when it is imported. It knows token ids, not text.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers import (
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from app.engine.base import Status
from app.engine.decoding.detokenizer import Detokenizer
from app.engine.decoding.prefill_watch import PrefillProgress, Stopped, turn
from app.engine.decoding.sampling import Processor
from app.engine.decoding.sequence import Forcing


class Constraint(Forcing, Protocol):
    """What holds the output to a form: a logits processor that knows when it is done."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One generation, as either loop takes it. `on_end`: called once, last, with what failed."""

    prompt_ids: list[int]
    max_tokens: int
    processors: Sequence[Processor]
    eos_ids: Sequence[int]
    constraint: Constraint | None
    streamer: Detokenizer
    stop_event: threading.Event
    on_status: Callable[[Status], None]
    on_end: Callable[[BaseException | None], None]


class _StopWhen(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Ends `generate` after a cancel (S1.31), or when the constraint's output is complete."""

    def __init__(self, stop_event: threading.Event, constraint: Constraint | None) -> None:
        self._stop_event = stop_event
        self._constraint = constraint

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Return (1,) bool. input_ids: (1, tokens) int64."""
        done = self._stop_event.is_set()
        if self._constraint is not None and not done:
            self._constraint.advance(input_ids[0].tolist())
            done = self._constraint.complete
        return torch.full((input_ids.shape[0],), done, device=input_ids.device)


def start_generate(
    model: Any, task: Task, inputs: Mapping[str, Any], *, pad_token_id: int | None
) -> threading.Thread:
    """Start a thread that generates, and return it. `inputs`: more tensors for the model."""

    def work() -> None:
        failure: BaseException | None = None
        try:
            with (
                turn(model, task.stop_event),
                PrefillProgress(model, task.stop_event, task.on_status),
                torch.inference_mode(),
            ):
                model.generate(
                    torch.tensor([task.prompt_ids], device=model.device),
                    streamer=task.streamer,
                    max_new_tokens=task.max_tokens,
                    # The sampler draws; what `generate` takes is the only token that is left.
                    do_sample=False,
                    repetition_penalty=1.0,
                    eos_token_id=list(task.eos_ids) or None,
                    pad_token_id=pad_token_id,
                    logits_processor=LogitsProcessorList(task.processors),
                    stopping_criteria=StoppingCriteriaList(
                        [_StopWhen(task.stop_event, task.constraint)]
                    ),
                    **_on_device(inputs, model.device),
                )
        except Stopped:
            pass
        except BaseException as exc:
            failure = exc
        finally:
            # `generate` ends its streamer only when it succeeds.
            task.on_end(failure)

    thread = threading.Thread(target=work, name="generate", daemon=True)
    thread.start()
    return thread


def _on_device(inputs: Mapping[str, Any], device: Any) -> dict[str, Any]:
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


def pad_id(tokenizer: Any, prompt_ids: list[int], eos_ids: Sequence[int]) -> int | None:
    """Return an id that pads nothing.

    Without an attention mask `generate` infers one from the pad token, so that it must not occur
    in the prompt; and it warns when the pad token is the end token.
    """
    used = {*prompt_ids, *eos_ids}
    candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids)
    return next((id_ for id_ in candidates if id_ is not None and id_ not in used), None)
