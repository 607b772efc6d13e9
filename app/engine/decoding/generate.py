"""Runs a model in a thread and streams its text (S0.13, S0.15, S1.31).

The models that `decoder.py` knows run in its loop, all others in transformers' `generate`. It
imports torch and transformers when it is imported: import it only in a thread that is about to run
the model. It knows nothing of loading, queues or event loops.
"""

from __future__ import annotations

import threading
from collections import abc
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol

import torch
from transformers import (
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from app.engine.base import Finish, FinishReason, Status
from app.engine.decoding.decoder import decoder_of
from app.engine.decoding.detokenizer import Detokenizer
from app.engine.decoding.limits import DecodeLimits
from app.engine.decoding.prefill_watch import PrefillProgress, Stopped, turn
from app.engine.decoding.sampling import Recorder, Sampling, processors
from app.engine.decoding.sequence import Forcing, Sequence
from app.engine.failures import as_app_error
from app.engine.text.output_parser import CALL, CALL_END, THINK, THINK_END
from app.engine.text.pieces import StopStringFilter, TextChunk, TokenTrack

JOIN_TIMEOUT_S = 120.0


class Constraint(Forcing, Protocol):
    """What holds the output to a form: a logits processor that knows when it is done."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor: ...


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


def stream_text(
    model: Any,
    tokenizer: Any,
    prompt_ids: list[int],
    *,
    sampling: Sampling,
    eos_ids: abc.Sequence[int],
    stop: abc.Sequence[str] = (),
    grammar: Constraint | None = None,
    inputs: Mapping[str, Any] | None = None,
    bytes_of: Callable[[int], bytes] | None = None,
    limits: DecodeLimits | None = None,
    stop_event: threading.Event,
    on_status: Callable[[Status], None],
) -> Generator[TextChunk, None, Finish]:
    """Yield the text of one generation, chunk by chunk; return its `Finish`.

    The model runs in another thread, which no longer works for this when it ends, however it ends.
    `inputs` are more tensors for the model, such as `pixel_values`. With `sampling.top_logprobs`
    the chunks carry their tokens, whose bytes `bytes_of` knows. `limits` are for the model's
    decoder, which the first call makes. `on_status` is called from both threads.

    Raises:
        GenerationFailed: the model raised; an `AppError` of the grammar comes as it is.
    """
    recorder = None
    if sampling.top_logprobs is not None and bytes_of is not None:
        recorder = Recorder(sampling.top_logprobs, bytes_of)
    silent = silent_ids(tokenizer) | set(eos_ids)
    streamer = Detokenizer(tokenizer, stop_event, silent=silent, recorder=recorder)
    own = getattr(getattr(model, "generation_config", None), "repetition_penalty", None)
    chain = processors(
        sampling, grammar, recorder, prompt_tokens=len(prompt_ids), repetition_penalty=own
    )
    failures: list[BaseException] = []
    ended = threading.Event()
    decoder = None if inputs else decoder_of(model, limits)
    thread: threading.Thread | None = None

    def work() -> None:
        try:
            with (
                turn(model, stop_event),
                PrefillProgress(model, stop_event, on_status),
                torch.inference_mode(),
            ):
                model.generate(
                    torch.tensor([prompt_ids], device=model.device),
                    streamer=streamer,
                    max_new_tokens=sampling.max_tokens,
                    # The sampler draws; what `generate` takes is the only token that is left.
                    do_sample=False,
                    repetition_penalty=1.0,
                    eos_token_id=list(eos_ids) or None,
                    pad_token_id=_pad_id(tokenizer, prompt_ids, eos_ids),
                    logits_processor=LogitsProcessorList(chain),
                    stopping_criteria=StoppingCriteriaList([_StopWhen(stop_event, grammar)]),
                    **_on_device(inputs or {}, model.device),
                )
        except Stopped:
            pass
        except BaseException as exc:
            failures.append(exc)
        finally:
            # `generate` ends its streamer only when it succeeds.
            streamer.end()
            ended.set()

    def end(failure: BaseException | None) -> None:
        if failure is not None:
            failures.append(failure)
        streamer.end()
        ended.set()

    on_status(Status("reading", progress=0.0))
    if decoder is None:
        thread = threading.Thread(target=work, name="generate", daemon=True)
        thread.start()
    else:
        streamer.next_tokens_are_prompt = False
        decoder.submit(
            Sequence(
                prompt=prompt_ids,
                max_tokens=sampling.max_tokens,
                processors=chain,
                eos_ids=frozenset(eos_ids),
                constraint=grammar,
                may_force=recorder is None,
                stopped=stop_event.is_set,
                on_token=lambda token: streamer.put(torch.tensor([token])),
                on_prefill=lambda share: on_status(Status("reading", progress=round(share, 3))),
                on_end=end,
            )
        )
    stops = StopStringFilter(stop)
    try:
        yield from _until_stop(streamer, stops, on_status)
        if failures:
            raise as_app_error(failures[0])
        cancelled = stop_event.is_set()
    finally:
        stop_event.set()
        ended.wait(JOIN_TIMEOUT_S)
        if decoder is not None:
            decoder.join(JOIN_TIMEOUT_S)
        elif thread is not None:
            thread.join(JOIN_TIMEOUT_S)
    done = stops.found or streamer.last_token in eos_ids
    done = done or (grammar is not None and grammar.complete)
    reason: FinishReason = "stop" if done else "cancelled" if cancelled else "length"
    return Finish(reason, len(prompt_ids), streamer.tokens)


def _until_stop(
    streamer: Detokenizer, stops: StopStringFilter, on_status: Callable[[Status], None]
) -> Generator[TextChunk, None, None]:
    """Pass chunks on until a stop string; a token goes where its first character goes."""
    track = TokenTrack()
    writing = False
    for chunk in streamer:
        if not chunk:
            continue
        if not writing:
            writing = True
            on_status(Status("writing"))
        track.feed(len(chunk), chunk.logprobs)
        if text := stops.feed(chunk):
            yield TextChunk(text, track.take(len(text)))
        if stops.found:
            return
    if rest := stops.flush():
        yield TextChunk(rest, track.take(len(rest)))


def silent_ids(tokenizer: Any) -> set[int]:
    """Return the tokens that are no text: the special ones but for those that mark its parts."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = set(tokenizer.all_special_ids)
    special |= {id_ for id_, token in added.items() if token.special}
    markers = {THINK, THINK_END, CALL, CALL_END}
    return special - {id_ for id_, token in added.items() if str(token) in markers}


def _on_device(inputs: Mapping[str, Any], device: Any) -> dict[str, Any]:
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


def _pad_id(tokenizer: Any, prompt_ids: list[int], eos_ids: abc.Sequence[int]) -> int | None:
    """Return an id that pads nothing.

    Without an attention mask `generate` infers one from the pad token, so that it must not occur
    in the prompt; and it warns when the pad token is the end token.
    """
    used = {*prompt_ids, *eos_ids}
    candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids)
    return next((id_ for id_ in candidates if id_ is not None and id_ not in used), None)
