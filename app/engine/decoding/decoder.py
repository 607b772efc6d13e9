"""The loop over a model's forward: several sequences decode together, joining and leaving between
tokens, while at most one newcomer's prompt is read in chunks.

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
from app.engine.decoding.sequence import Generation

REST_SLICE_S = 0.02


class Decoder:
    """Runs the generations of one model in a thread of its own, which ends when there are none.

    `clock` counts the seconds that steps take.
    """

    def __init__(self, model: Any, room: DecodeLimits, clock: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self._pace = ChunkSizer()
        context = int(model.config.max_position_embeddings)
        most = context if room.max_tokens is None else min(room.max_tokens, context)
        self._prefixes = PrefixCache(most, ttl_s=room.ttl_s, clock=room.clock)
        self._most = room.sequences or sys.maxsize
        self._cheap_rows = room.cheap_rows
        self._layers = int(model.config.num_hidden_layers)
        self._ways = _ways(model)
        self._lock = threading.Lock()
        self._arrived: deque[Generation] = deque()
        self._active: list[Generation] = []
        self._working = False
        self._thread: threading.Thread | None = None

    def submit(self, generation: Generation) -> None:
        """Let a generation join at the next token."""
        with self._lock:
            self._arrived.append(generation)
            if not self._working:
                self._working = True
                self._thread = threading.Thread(target=self._work, name="decoder", daemon=True)
                self._thread.start()

    def rest(self, timeout_s: float) -> None:
        """Wait until the thread has ended, unless somebody needs it, now or before it has."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            with self._lock:
                thread = None if self._active or self._arrived else self._thread
            if thread is None or not thread.is_alive():
                return
            # In slices: who comes meanwhile keeps the thread alive for as long as it takes.
            thread.join(REST_SLICE_S)

    def forget_expired(self) -> list[KeyValues]:
        """Return what was kept of generations that ended too long ago, to be freed."""
        return self._prefixes.forget_expired()

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                try:
                    if not self._join():
                        return
                    if self._active:
                        self._step()
                except BaseException as failure:
                    # Whatever it was, nobody may be left waiting.
                    for generation in list(self._active):
                        self._leave(generation, failure)

    def _join(self) -> bool:
        """Let in whom there is room for and let go who was stopped; False when nobody is left."""
        for generation in [one for one in self._active if one.stopped()]:
            self._leave(generation, None)
        with self._lock:
            waiting = [one for one in self._arrived if not one.stopped()]
            gone = [one for one in self._arrived if one.stopped()]
            free = max(0, self._most - len(self._active))
            self._arrived = deque(waiting[free:])
            if not waiting and not gone and not self._active:
                self._working = False
                return False
        for generation in gone:
            generation.on_end(None)
        for generation in waiting[:free]:
            generation.ids = list(generation.prompt)
            try:
                generation.kv = self._prefixes.take(
                    generation.ids,
                    [(one.ids, one.kv) for one in self._active],
                    layers=self._layers,
                    # What follows the prompt comes by blocks: a budget is seldom used up.
                    room_tokens=len(generation.ids) + min(generation.max_tokens, BLOCK_TOKENS),
                )
            except BaseException as failure:
                generation.on_end(failure)
            else:
                self._active.append(generation)
        return True

    def _step(self) -> None:
        """Run the model once: a token, or more, for everybody who writes, a chunk for who reads."""
        plan, room = plan_step(self._active, self._pace, cheap_rows=self._cheap_rows)
        started_s = self._clock()
        try:
            logits = self._forward(plan)
        except Abandoned:
            return
        if plan[-1][1] == room:
            self._pace.took(room, self._clock() - started_s)
        for generation, count in plan:
            generation.kv.length += count - len(generation.guessed)
        writers = [one for one, _ in plan if not one.unread]
        at = 0
        for generation in writers:
            rows = 1 + len(generation.guessed)
            self._write(generation, logits[at : at + rows])
            at += rows

    def _forward(self, plan: Plan) -> torch.Tensor:
        """Return the logits after the last token of each that now writes: (rows, vocabulary).

        Behind that row of each are those of what it guessed.
        """
        spans: list[Span] = []
        ids: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        for generation, count in plan:
            kv = generation.kv
            kv.reserve(kv.length + count)
            spans.append(Span(kv, len(ids), count))
            ids += [*generation.ids[kv.length :], *generation.guessed][:count]
            positions += range(kv.length, kv.length + count)
            if count == generation.unread + len(generation.guessed):
                last += range(len(ids) - 1 - len(generation.guessed), len(ids))
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
        """Leave a step that is not wanted any more; tell who reads how far the layers are.

        A step with a chunk takes long: it is left when anybody in it is stopped, and made again
        without them, which costs the others no more than one step.
        """
        stopped = [one.stopped() for one, _ in plan]
        generation, count = plan[-1]
        if all(stopped) or (generation.reading and any(stopped)):
            raise Abandoned
        if generation.reading:
            generation.tell_read(generation.kv.length + count * layer / self._layers)

    def _write(self, generation: Generation, scores: torch.Tensor) -> None:
        """Choose a token, and further ones while what was guessed is what is chosen.

        scores: (1 + guessed, vocabulary)
        """
        start, right = len(generation.ids), 0
        while True:
            generation.kv.length = start + right
            self._advance(generation, scores[right][None])
            chosen = generation.ids[start:]
            if generation not in self._active or generation.stopped():
                return
            if chosen != generation.guessed[: len(chosen)]:
                break
            right = len(chosen)
        if generation.guessed:
            generation.lookup.learn(right)

    def _advance(self, generation: Generation, scores: torch.Tensor) -> None:
        """Choose the next token of a sequence, and those that follow from it. scores: (1, n)."""
        try:
            ids = torch.tensor([generation.ids])
            scores = scores.float()
            for processor in generation.processors:
                scores = processor(ids, scores)
            self._put(generation, int(scores[0].argmax()))
            if generation.may_force and generation.constraint is not None:
                while generation in self._active and (forced := generation.constraint.forced()):
                    for token in forced:
                        if generation in self._active:
                            self._put(generation, token)
        except BaseException as failure:
            self._leave(generation, failure)

    def _put(self, generation: Generation, token: int) -> None:
        generation.ids.append(token)
        generation.made += 1
        generation.on_token(token)
        constraint = generation.constraint
        if constraint is not None:
            constraint.advance(generation.ids)
        ended = token in generation.eos_ids or generation.made >= generation.max_tokens
        if ended or (constraint is not None and constraint.complete):
            self._leave(generation, None)

    def _leave(self, generation: Generation, failure: BaseException | None) -> None:
        if generation not in self._active:
            return
        self._active.remove(generation)
        try:
            if failure is None:
                self._prefixes.keep(generation.ids, generation.kv)
        finally:
            generation.on_end(failure)


_making = threading.Lock()


def decoder_of(
    model: Any,
    room: DecodeLimits | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Decoder | None:
    """Return the model's decoder, made once; None for a model that it cannot run.

    It runs models of text on the CPU whose attention is transformers' own: Phi-3, Qwen3, Llama.
    What is asked beside the model counts when the decoder is made.
    """
    with _making:
        # Kept with the model, so that both are let go together.
        found: Decoder | None = getattr(model, ATTRIBUTE, None)
        if found is None and model.device.type == "cpu" and runs(model.config.to_dict()):
            register()
            model.set_attn_implementation(NAME)
            found = Decoder(model, room or DecodeLimits(), clock)
            setattr(model, ATTRIBUTE, found)
        return found


def _ways(model: Any) -> tuple[Way, Way]:
    config = model.config
    heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return choose_ways(heads, int(config.num_key_value_heads), head_dim, model.dtype)
