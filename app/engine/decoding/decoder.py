"""The loop over a model's forward: several sequences decode together, joining and leaving between
tokens, while at most one prompt is prefilled, in chunks.

transformers' continuous batching runs on a CPU too, but its logits processors belong to the batch,
and every sequence here has a grammar, a sampler and a stop of its own. Import it only where the
model runs. It knows token ids, not text.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from app.engine.decoding.attention import NAME, Step, Way, choose_ways, register
from app.engine.decoding.kv_cache import Abandoned, KeyValues, Span, StepCache
from app.engine.decoding.limits import ATTRIBUTE, BLOCK_TOKENS, ChunkSizer, DecodeLimits, runs
from app.engine.decoding.prefix_cache import PrefixCache
from app.engine.decoding.scheduler import Plan, plan_step
from app.engine.decoding.sequence import Sequence

JOIN_SLICE_S = 0.02


class Decoder:
    """Runs the sequences of one model in a thread of its own, which ends when there are none.

    `clock` counts the seconds that steps take.
    """

    def __init__(self, model: Any, limits: DecodeLimits, clock: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self._chunk_sizer = ChunkSizer()
        context = int(model.config.max_position_embeddings)
        most = context if limits.max_tokens is None else min(limits.max_tokens, context)
        self._prefix_cache = PrefixCache(most, ttl_s=limits.ttl_s, clock=limits.clock)
        self._max_sequences = limits.sequences or sys.maxsize
        self._cheap_rows = limits.cheap_rows
        self._layers = int(model.config.num_hidden_layers)
        self._ways = _ways(model)
        self._lock = threading.Lock()
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._thread_needed = False
        self._thread: threading.Thread | None = None

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence; it joins the others at the next step."""
        with self._lock:
            self._waiting.append(sequence)
            if not self._thread_needed:
                self._thread_needed = True
                self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)
                self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended; return at once while a sequence needs it."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            with self._lock:
                thread = None if self._running or self._waiting else self._thread
            if thread is None or not thread.is_alive():
                return
            # In slices: a sequence that is submitted meanwhile keeps the thread alive.
            thread.join(JOIN_SLICE_S)

    def forget_expired(self) -> list[KeyValues]:
        """Return the caches of sequences that ended longer ago than they are kept, to be freed."""
        return self._prefix_cache.forget_expired()

    def _run(self) -> None:
        with torch.inference_mode():
            while True:
                try:
                    if not self._admit():
                        return
                    if self._running:
                        self._step()
                except BaseException as failure:
                    # Whatever it was, no caller may be left waiting.
                    for sequence in list(self._running):
                        self._finish(sequence, failure)

    def _admit(self) -> bool:
        """Admit waiting sequences up to the limit, end stopped ones; False when none is left."""
        for sequence in [one for one in self._running if one.stopped()]:
            self._finish(sequence, None)
        with self._lock:
            waiting = [one for one in self._waiting if not one.stopped()]
            gone = [one for one in self._waiting if one.stopped()]
            free = max(0, self._max_sequences - len(self._running))
            self._waiting = deque(waiting[free:])
            if not waiting and not gone and not self._running:
                self._thread_needed = False
                return False
        for sequence in gone:
            sequence.on_end(None)
        for sequence in waiting[:free]:
            sequence.ids = list(sequence.prompt)
            try:
                sequence.kv = self._prefix_cache.acquire(
                    sequence.ids,
                    [(one.ids, one.kv) for one in self._running],
                    layers=self._layers,
                    # What follows the prompt comes by blocks: a budget is seldom used up.
                    reserve_tokens=len(sequence.ids) + min(sequence.max_tokens, BLOCK_TOKENS),
                )
            except BaseException as failure:
                sequence.on_end(failure)
            else:
                self._running.append(sequence)
        return True

    def _step(self) -> None:
        """Run the model once: for each decoding sequence, and for a chunk of one prefill."""
        plan, chunk_rows = plan_step(self._running, self._chunk_sizer, cheap_rows=self._cheap_rows)
        started_s = self._clock()
        try:
            logits = self._forward(plan)
        except Abandoned:
            return
        if plan[-1][1] == chunk_rows:
            self._chunk_sizer.record(chunk_rows, self._clock() - started_s)
        for sequence, count in plan:
            sequence.kv.length += count - len(sequence.proposed)
        decoding = [one for one, _ in plan if not one.uncomputed]
        at = 0
        for sequence in decoding:
            rows = 1 + len(sequence.proposed)
            self._accept(sequence, logits[at : at + rows])
            at += rows

    def _forward(self, plan: Plan) -> torch.Tensor:
        """Return the logits of the decoding sequences: (rows, vocabulary).

        Each has the row of its last token, and behind it those of its proposed tokens. A prefill
        has one row, with its last chunk.
        """
        spans: list[Span] = []
        ids: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        for sequence, count in plan:
            kv = sequence.kv
            kv.reserve(kv.length + count)
            spans.append(Span(kv, len(ids), count))
            ids += [*sequence.ids[kv.length :], *sequence.proposed][:count]
            positions += range(kv.length, kv.length + count)
            if count == sequence.uncomputed + len(sequence.proposed):
                last += range(len(ids) - 1 - len(sequence.proposed), len(ids))
        cache = StepCache(spans, lambda layer: self._at_layer(plan, layer))
        hidden = self._model.get_decoder()(
            input_ids=torch.tensor([ids]),
            position_ids=torch.tensor([positions]),
            cache=cache,
            use_cache=True,
            step=Step(cache, *self._ways),
        ).last_hidden_state
        if not last:
            return torch.empty(0, 0)
        logits: torch.Tensor = self._model.get_output_embeddings()(hidden[:, last])[0]
        return logits

    def _at_layer(self, plan: Plan, layer: int) -> None:
        """Abandon a step that nobody wants any more; report the progress of a prefill.

        A step with a chunk takes long: it is abandoned when any of its sequences is stopped, and
        run again without that one, which costs the others no more than one step.
        """
        stopped = [one.stopped() for one, _ in plan]
        sequence, count = plan[-1]
        if all(stopped) or (sequence.in_prefill and any(stopped)):
            raise Abandoned
        if sequence.in_prefill:
            sequence.report_prefill(sequence.kv.length + count * layer / self._layers)

    def _accept(self, sequence: Sequence, scores: torch.Tensor) -> None:
        """Sample a token, and further ones as long as the proposed token is what is sampled.

        scores: (1 + proposed, vocabulary)
        """
        start, accepted = len(sequence.ids), 0
        while True:
            sequence.kv.length = start + accepted
            self._sample(sequence, scores[accepted][None])
            chosen = sequence.ids[start:]
            if sequence not in self._running or sequence.stopped():
                return
            if chosen != sequence.proposed[: len(chosen)]:
                break
            accepted = len(chosen)
        if sequence.proposed:
            sequence.lookup.record(accepted)

    def _sample(self, sequence: Sequence, scores: torch.Tensor) -> None:
        """Choose the next token of a sequence, and those that follow from it. scores: (1, n)."""
        try:
            ids = torch.tensor([sequence.ids])
            scores = scores.float()
            for processor in sequence.processors:
                scores = processor(ids, scores)
            self._append(sequence, int(scores[0].argmax()))
            if sequence.may_force and sequence.constraint is not None:
                while sequence in self._running and (forced := sequence.constraint.forced()):
                    for token in forced:
                        if sequence in self._running:
                            self._append(sequence, token)
        except BaseException as failure:
            self._finish(sequence, failure)

    def _append(self, sequence: Sequence, token: int) -> None:
        sequence.ids.append(token)
        sequence.new_tokens += 1
        sequence.on_token(token)
        constraint = sequence.constraint
        if constraint is not None:
            constraint.advance(sequence.ids)
        ended = token in sequence.eos_ids or sequence.new_tokens >= sequence.max_tokens
        if ended or (constraint is not None and constraint.complete):
            self._finish(sequence, None)

    def _finish(self, sequence: Sequence, failure: BaseException | None) -> None:
        if sequence not in self._running:
            return
        self._running.remove(sequence)
        try:
            if failure is None:
                self._prefix_cache.store(sequence.ids, sequence.kv)
        finally:
            sequence.on_end(failure)


_making = threading.Lock()


def decoder_of(
    model: Any,
    limits: DecodeLimits | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Decoder | None:
    """Return the model's decoder, made once; None for a model that it cannot run.

    It runs models of text on the CPU whose attention is transformers' own: Phi-3, Qwen3, Llama.
    `limits` and `clock` count only in the call that makes the decoder.
    """
    with _making:
        # An attribute of the model, so that both are freed together.
        found: Decoder | None = getattr(model, ATTRIBUTE, None)
        if found is None and model.device.type == "cpu" and runs(model.config.to_dict()):
            register()
            model.set_attn_implementation(NAME)
            found = Decoder(model, limits or DecodeLimits(), clock)
            setattr(model, ATTRIBUTE, found)
        return found


def _ways(model: Any) -> tuple[Way, Way]:
    config = model.config
    heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return choose_ways(heads, int(config.num_key_value_heads), head_dim, model.dtype)
