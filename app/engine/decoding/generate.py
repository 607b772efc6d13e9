"""Streams the text of one generation (S0.13, S0.15, S1.31): the entry to both loops.

The models that `decoder.py` knows run in its loop, all others in transformers' `generate`. It
imports torch and transformers when it is imported: import it only in a thread that is about to run
the model. It knows nothing of loading, queues or event loops.
"""

from __future__ import annotations

import threading
from collections import abc
from collections.abc import Callable, Generator, Mapping
from typing import Any

import torch

from app.engine.base import Finish, FinishReason, Status
from app.engine.decoding.decoder import Decoder, decoder_of
from app.engine.decoding.detokenizer import Detokenizer
from app.engine.decoding.limits import DecodeLimits
from app.engine.decoding.sampling import Processor, Recorder, Sampling, processors
from app.engine.decoding.sequence import Sequence
from app.engine.decoding.transformers_loop import Constraint, Task, pad_id, start_generate
from app.engine.failures import as_app_error
from app.engine.text.output_parser import CALL, CALL_END, THINK, THINK_END
from app.engine.text.pieces import StopStringFilter, TextChunk, TokenTrack

JOIN_TIMEOUT_S = 120.0


class _Ending:
    """Is called by the loop when its work for one generation is over, with what went wrong."""

    def __init__(self, streamer: Detokenizer) -> None:
        self.failure: BaseException | None = None
        self.reached = threading.Event()
        self._streamer = streamer

    def __call__(self, failure: BaseException | None) -> None:
        self.failure = failure
        self._streamer.end()
        self.reached.set()


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
    logged = sampling.top_logprobs
    recorder = Recorder(logged, bytes_of) if logged is not None and bytes_of is not None else None
    silent = silent_ids(tokenizer) | set(eos_ids)
    streamer = Detokenizer(tokenizer, stop_event, silent=silent, recorder=recorder)
    ending = _Ending(streamer)
    task = Task(
        prompt_ids=prompt_ids,
        max_tokens=sampling.max_tokens,
        processors=_chain(model, sampling, grammar, recorder, prompt_tokens=len(prompt_ids)),
        eos_ids=eos_ids,
        constraint=grammar,
        streamer=streamer,
        stop_event=stop_event,
        on_status=on_status,
        on_end=ending,
    )
    join = _start(model, tokenizer, task, inputs, limits, may_force=recorder is None)
    stops = StopStringFilter(stop)
    try:
        yield from _until_stop(streamer, stops, on_status)
        if ending.failure is not None:
            raise as_app_error(ending.failure)
        cancelled = stop_event.is_set()
    finally:
        stop_event.set()
        ending.reached.wait(JOIN_TIMEOUT_S)
        join(JOIN_TIMEOUT_S)
    done = stops.found or streamer.last_token in eos_ids
    done = done or (grammar is not None and grammar.complete)
    reason: FinishReason = "stop" if done else "cancelled" if cancelled else "length"
    return Finish(reason, len(prompt_ids), streamer.tokens)


def _chain(
    model: Any,
    sampling: Sampling,
    grammar: Constraint | None,
    recorder: Recorder | None,
    *,
    prompt_tokens: int,
) -> list[Processor]:
    own = getattr(getattr(model, "generation_config", None), "repetition_penalty", None)
    return processors(
        sampling, grammar, recorder, prompt_tokens=prompt_tokens, repetition_penalty=own
    )


def _start(
    model: Any,
    tokenizer: Any,
    task: Task,
    inputs: Mapping[str, Any] | None,
    limits: DecodeLimits | None,
    *,
    may_force: bool,
) -> Callable[[float], None]:
    """Start the task in the decoder or in `generate`; return what waits for the thread's end."""
    decoder = None if inputs else decoder_of(model, limits)
    task.on_status(Status("reading", progress=0.0))
    if decoder is None:
        padding = pad_id(tokenizer, task.prompt_ids, task.eos_ids)
        return start_generate(model, task, inputs or {}, pad_token_id=padding).join
    _submit(decoder, task, may_force=may_force)
    return decoder.join


def _submit(decoder: Decoder, task: Task, *, may_force: bool) -> None:
    task.streamer.next_tokens_are_prompt = False
    decoder.submit(
        Sequence(
            prompt=task.prompt_ids,
            max_tokens=task.max_tokens,
            processors=task.processors,
            eos_ids=frozenset(task.eos_ids),
            constraint=task.constraint,
            may_force=may_force,
            stopped=task.stop_event.is_set,
            on_token=lambda token: task.streamer.put(torch.tensor([token])),
            on_prefill=lambda share: task.on_status(Status("reading", progress=round(share, 3))),
            on_end=task.on_end,
        )
    )


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
