"""Runs transformers' `generate` in a thread and streams its text (S0.13, S0.15, S1.31).

The one module that imports torch and transformers when it is imported: import it only in a thread
that is about to run the model. It knows nothing of loading, queues or event loops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from app.engine.base import Finish, FinishReason, Status
from app.engine.failures import as_app_error
from app.engine.grammar import GrammarProcessor

JOIN_TIMEOUT_S = 120.0
_PROGRESS_STEP = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 takes the likeliest one."""

    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None


class _Stopped(Exception):
    """Leaves `generate` in the middle of the prompt, after a cancel."""


class PieceStreamer(TextIteratorStreamer):
    """A `TextIteratorStreamer` that hands over every token's text at once and loses nothing.

    The stock one waits for a space. This one decodes a window of the last tokens twice, without
    and with the new one, and emits the difference unless it ends inside a character.
    """

    def __init__(self, tokenizer: Any, stop_event: threading.Event) -> None:
        super().__init__(
            tokenizer,
            skip_prompt=True,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
        self.tokens = 0
        self.last_token: int | None = None
        self._stop_event = stop_event
        self._ids: list[int] = []
        self._read = 0

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, then one token at a time. value: (1, tokens) or (1,) int64."""
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        if self._stop_event.is_set():
            return
        for token in value.flatten().tolist():
            self.tokens += 1
            self.last_token = token
            self._ids.append(token)
            self._emit(final=False)

    def end(self) -> None:
        """Flush an unfinished character and end the iteration; without effect the second time."""
        try:
            if self._ids:
                self._emit(final=True)
        finally:
            # Whatever the tokenizer does, whoever reads must not wait for ever.
            self._ids = []
            self._read = 0
            self.on_finalized_text("", stream_end=True)

    def _emit(self, *, final: bool) -> None:
        before = self._decode(self._ids[: self._read])
        text = self._decode(self._ids)
        if len(text) > len(before) and (final or not text.endswith("\ufffd")):
            self.on_finalized_text(text[len(before) :])
            del self._ids[: self._read]
            self._read = len(self._ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, **self.decode_kwargs)) if ids else ""


class StopText:
    """Passes text on up to the first stop string, which may span pieces (S1.18)."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """Return what may be sent now; the rest is held while it may begin a stop string."""
        text = self._held + piece
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.found = True
            self._held = ""
            return text[: min(places)]
        held = max((self._overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """Return what was held back, at the end."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        longest = min(len(stop) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


class _StopWhen(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Ends `generate` after a cancel (S1.31), or when the grammar's object is complete."""

    def __init__(self, stop_event: threading.Event, grammar: GrammarProcessor | None) -> None:
        self._stop_event = stop_event
        self._grammar = grammar

    def __call__(
        self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Return (1,) bool. input_ids: (1, tokens) int64."""
        done = self._stop_event.is_set()
        if self._grammar is not None and not done:
            self._grammar.advance(input_ids[0].tolist())
            done = self._grammar.complete
        return torch.full((input_ids.shape[0],), done, device=input_ids.device)


def stream_text(
    model: Any,
    tokenizer: Any,
    prompt_ids: list[int],
    *,
    sampling: Sampling,
    eos_ids: Sequence[int],
    stop: Sequence[str] = (),
    grammar: GrammarProcessor | None = None,
    stop_event: threading.Event,
    on_status: Callable[[Status], None],
) -> Generator[str, None, Finish]:
    """Yield the text of one generation, piece by piece; return its `Finish`.

    `generate` runs in a thread of its own, which is gone when this ends, however it ends.
    `on_status` is called from both threads.

    Raises:
        GenerationFailed: `generate` raised; an `AppError` of the grammar comes as it is.
    """
    streamer = PieceStreamer(tokenizer, stop_event)
    failures: list[BaseException] = []

    def work() -> None:
        stopping = _StopWhen(stop_event, grammar)
        try:
            with _PromptWatch(model, stop_event, on_status):
                _run(model, tokenizer, prompt_ids, sampling, eos_ids, grammar, streamer, stopping)
        except _Stopped:
            pass
        except BaseException as exc:
            failures.append(exc)
        finally:
            # `generate` ends its streamer only when it succeeds.
            streamer.end()

    on_status(Status("reading", progress=0.0))
    thread = threading.Thread(target=work, name="generate", daemon=True)
    thread.start()
    stops = StopText(stop)
    writing = False
    try:
        for piece in streamer:
            if piece and not writing:
                writing = True
                on_status(Status("writing"))
            text = stops.feed(piece)
            if text:
                yield text
            if stops.found:
                break
        if failures:
            raise as_app_error(failures[0])
        rest = "" if stops.found else stops.flush()
        if rest:
            yield rest
        cancelled = stop_event.is_set()
    finally:
        stop_event.set()
        thread.join(JOIN_TIMEOUT_S)
    ended = stops.found or streamer.last_token in eos_ids
    ended = ended or (grammar is not None and grammar.complete)
    reason: FinishReason = "stop" if ended else "cancelled" if cancelled else "length"
    return Finish(reason, len(prompt_ids), streamer.tokens)


def _run(
    model: Any,
    tokenizer: Any,
    prompt_ids: list[int],
    sampling: Sampling,
    eos_ids: Sequence[int],
    grammar: GrammarProcessor | None,
    streamer: PieceStreamer,
    stopping: StoppingCriteria,
) -> None:
    # The sampler draws from torch's global generator; without a seed it must not repeat the last.
    if sampling.seed is None:
        torch.seed()
    else:
        torch.manual_seed(sampling.seed)
    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        chosen = {
            "do_sample": True,
            "temperature": float(sampling.temperature),
            "top_p": float(sampling.top_p),
            "top_k": 0,
        }
    with torch.inference_mode():
        model.generate(
            torch.tensor([prompt_ids], device=model.device),
            streamer=streamer,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=list(eos_ids) or None,
            pad_token_id=_pad_id(tokenizer, prompt_ids, eos_ids),
            logits_processor=LogitsProcessorList([grammar] if grammar else []),
            stopping_criteria=StoppingCriteriaList([stopping]),
            **chosen,
        )


def _pad_id(tokenizer: Any, prompt_ids: list[int], eos_ids: Sequence[int]) -> int | None:
    """Return an id that pads nothing.

    Without an attention mask `generate` infers one from the pad token, so that it must not occur
    in the prompt; and it warns when the pad token is the end token.
    """
    used = {*prompt_ids, *eos_ids}
    candidates = (tokenizer.pad_token_id, tokenizer.unk_token_id, *tokenizer.all_special_ids)
    return next((id_ for id_ in candidates if id_ is not None and id_ not in used), None)


class _PromptWatch:
    """While the prompt is read: reports progress by layers, and leaves at once after a cancel.

    A prompt of 2,560 tokens takes up to two minutes in float32, and the stopping criteria are only
    asked after it.
    """

    def __init__(
        self, model: Any, stop_event: threading.Event, on_status: Callable[[Status], None]
    ) -> None:
        self._layers = list(getattr(getattr(model, "model", None), "layers", ()))
        self._stop_event = stop_event
        self._on_status = on_status
        self._thread = 0
        self._told = 0.0
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self._thread = threading.get_ident()
        for index, layer in enumerate(self._layers):
            self._hooks.append(layer.register_forward_pre_hook(self._before(index)))

    def __exit__(self, *exc_info: object) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _before(self, index: int) -> Callable[[Any, Any], None]:
        def hook(module: Any, args: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            if self._stop_event.is_set():
                raise _Stopped
            progress = round(index / len(self._layers), 3)
            if progress - self._told >= _PROGRESS_STEP:
                self._told = progress
                self._on_status(Status("reading", progress=progress))

        return hook
