"""The loop over a model's forward: several sequences decode together, joining and leaving between
tokens, while at most one newcomer's prompt is read in chunks.

transformers' continuous batching runs on a CPU too, but its logits processors belong to the batch,
and every sequence here has a grammar, a sampler and a stop of its own. Import it only where the
model runs. It knows token ids, not text.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from app.engine.attention import NAME, Step, Way, choose_ways, register
from app.engine.kv_cache import Abandoned, KeyValues, Span, StepCache
from app.engine.prefixes import Prefixes
from app.engine.sampling import Processor

# A chunk of a prompt that is read alone, and of one that is read while others write: at 100 tokens
# a second, nobody's stream stands still for longer than about a second.
ALONE_TOKENS = 512
BESIDE_TOKENS = 96
REST_SLICE_S = 0.02
# Families whose attention goes through transformers' interface and whose forward is decoder + head.
RUNS = frozenset(("phi3", "qwen3", "llama"))


class Forcing(Protocol):
    """A constraint that may know the next tokens without asking the model."""

    @property
    def complete(self) -> bool: ...

    def advance(self, ids: Sequence[int]) -> None: ...

    def forced(self) -> list[int]: ...


@dataclass(slots=True, kw_only=True, eq=False)
class Generation:
    """One sequence and all that is its own.

    `on_token` is called in the decoder's thread for each new token, `on_read` with the share of the
    prompt that has been read, `on_end` once, last, with what went wrong or None.
    """

    prompt: Sequence[int]
    max_tokens: int
    processors: Sequence[Processor]
    eos_ids: frozenset[int]
    constraint: Forcing | None
    may_force: bool
    stopped: Callable[[], bool]
    on_token: Callable[[int], None]
    on_read: Callable[[float], None]
    on_end: Callable[[BaseException | None], None]
    ids: list[int] = field(init=False)
    kv: KeyValues = field(init=False)
    made: int = 0

    @property
    def unread(self) -> int:
        """How many of its tokens the model has not seen."""
        return len(self.ids) - self.kv.length

    @property
    def reading(self) -> bool:
        """The prompt is not whole yet."""
        return self.kv.length < len(self.prompt) - 1


class Decoder:
    """Runs the generations of one model in a thread of its own, which ends when there are none."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._prefixes = Prefixes(int(model.config.max_position_embeddings))
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

    def _work(self) -> None:
        with torch.inference_mode():
            while True:
                try:
                    if not self._join():
                        return
                    self._step()
                except BaseException as failure:
                    # Whatever it was, nobody may be left waiting.
                    for generation in list(self._active):
                        self._leave(generation, failure)

    def _join(self) -> bool:
        """Let in who has arrived and let go who was stopped; False when nobody is left."""
        for generation in [one for one in self._active if one.stopped()]:
            self._leave(generation, None)
        with self._lock:
            arrived = list(self._arrived)
            self._arrived.clear()
            if not arrived and not self._active:
                self._working = False
                return False
        for generation in arrived:
            generation.ids = list(generation.prompt)
            try:
                generation.kv = self._prefixes.take(
                    generation.ids,
                    self._running(),
                    layers=self._layers,
                    room_tokens=len(generation.ids) + generation.max_tokens,
                )
            except BaseException as failure:
                generation.on_end(failure)
            else:
                self._active.append(generation)
        return True

    def _running(self) -> list[tuple[Sequence[int], KeyValues]]:
        return [(one.ids, one.kv) for one in self._active]

    def _step(self) -> None:
        """Run the model once: a token for everybody who writes, a chunk for who still reads."""
        try:
            plan = self._plan()
            logits = self._forward(plan)
        except Abandoned:
            return
        for generation, count in plan:
            generation.kv.length += count
            if generation.reading or generation.unread:
                generation.on_read(generation.kv.length / len(generation.prompt))
        for (generation, _), scores in zip(_writers(plan), logits, strict=True):
            self._advance(generation, scores[None])

    def _plan(self) -> list[tuple[Generation, int]]:
        """Say whose tokens are computed in this step, and how many of each."""
        writers = [(one, one.unread) for one in self._active if not one.reading]
        reader = next((one for one in self._active if one.reading), None)
        if reader is None:
            return writers
        room = BESIDE_TOKENS if writers else ALONE_TOKENS
        return [*writers, (reader, min(reader.unread, room))]

    def _forward(self, plan: Sequence[tuple[Generation, int]]) -> torch.Tensor:
        """Return the logits after the last token of each that now writes: (writers, vocabulary)."""
        spans: list[Span] = []
        ids: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        for generation, count in plan:
            kv = generation.kv
            kv.reserve(kv.length + count)
            spans.append(Span(kv, len(ids), count))
            ids += generation.ids[kv.length : kv.length + count]
            positions += range(kv.length, kv.length + count)
            if count == generation.unread:
                last.append(len(ids) - 1)
        cache = StepCache(spans, lambda: all(one.stopped() for one, _ in plan))
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


def _writers(plan: Sequence[tuple[Generation, int]]) -> list[tuple[Generation, int]]:
    """Return those whose tokens have all been seen: they have logits."""
    return [(one, count) for one, count in plan if not one.unread]


_making = threading.Lock()


def decoder_of(model: Any) -> Decoder | None:
    """Return the model's decoder, made once; None for a model that it cannot run.

    It runs models of text on the CPU whose attention is transformers' own: Phi-3, Qwen3, Llama.
    """
    with _making:
        # Kept with the model, so that both are let go together.
        found: Decoder | None = getattr(model, "precis_decoder", None)
        if found is None and _runs_here(model):
            register()
            model.set_attn_implementation(NAME)
            found = model.precis_decoder = Decoder(model)
        return found


def _runs_here(model: Any) -> bool:
    config = model.config
    # A rotary embedding that follows the length of the sequence would see all of them as one.
    rope = getattr(config, "rope_parameters", None) or {}
    fixed = rope.get("rope_type", "default") in ("default", "linear", "llama3")
    return bool(fixed and model.device.type == "cpu" and config.model_type in RUNS)


def _ways(model: Any) -> tuple[Way, Way]:
    config = model.config
    heads = int(config.num_attention_heads)
    head_dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return choose_ways(heads, int(config.num_key_value_heads), head_dim, model.dtype)
