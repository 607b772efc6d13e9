"""The decoder's loop against transformers' own `generate`, alone and in company."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers

from app.engine.decoding.attention import NAME
from app.engine.decoding.decoder import Decoder, decoder_of
from app.engine.decoding.kv_cache import KeyValues
from app.engine.decoding.limits import ALONE_TOKENS, FIRST_ROWS, LEAST_ROWS, MOST_ROWS, DecodeLimits
from app.engine.decoding.sequence import Sequence

WAIT_S = 60.0
VOCABULARY = 97
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "phi3": ("Phi3", {}),
    "phi3 with a window": ("Phi3", {"sliding_window": 24}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "llama": ("Llama", {}),
}


def model_of(family: str = "phi3", **sizes: Any) -> Any:
    """Return a model with random weights, always the same."""
    name, more = FAMILIES[family]
    torch.manual_seed(7)
    config = getattr(transformers, f"{name}Config")(**SIZES | more | sizes)
    return getattr(transformers, f"{name}ForCausalLM")(config).eval()


def prompt_of(length: int, seed: int = 0) -> list[int]:
    """Return random tokens, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, VOCABULARY, (length,), generator=generator).tolist()


@dataclass
class Run:
    """What a sequence reported."""

    tokens: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    failure: BaseException | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> list[int]:
        assert self.ended.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure
        return self.tokens


def start(
    decoder: Decoder,
    prompt: abc.Sequence[int],
    *,
    max_tokens: int = 40,
    processors: abc.Sequence[Callable[..., torch.Tensor]] = (),
    constraint: Any = None,
    on_prefill: Callable[[float], None] | None = None,
    stop: threading.Event | None = None,
) -> Run:
    run = Run(stop=stop or threading.Event())

    def on_token(token: int) -> None:
        run.tokens.append(token)
        run.begun.set()

    def on_end(failure: BaseException | None) -> None:
        run.failure = failure
        run.ended.set()

    decoder.submit(
        Sequence(
            prompt=prompt,
            max_tokens=max_tokens,
            processors=processors,
            eos_ids=frozenset(),
            constraint=constraint,
            may_force=constraint is not None,
            stopped=run.stop.is_set,
            on_token=on_token,
            on_prefill=on_prefill or run.shares.append,
            on_end=on_end,
        )
    )
    return run


def expected_of(model: Any, prompt: abc.Sequence[int], max_tokens: int = 40) -> list[int]:
    """What `generate` itself writes, with transformers' plainest attention."""
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            ids = model.generate(
                torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)),
                max_new_tokens=max_tokens, do_sample=False, eos_token_id=None,
            )  # fmt: skip
    finally:
        model.set_attn_implementation(own)
    return ids[0, len(prompt) :].tolist()


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> Any:
    return model_of(request.param)


def decoder(model: Any) -> Decoder:
    found = decoder_of(model)
    assert found is not None
    return found


@pytest.mark.parametrize("length", [1, 2, 30, ALONE_TOKENS, ALONE_TOKENS + 1, 1200])
def test_greedy_text_is_that_of_generate(model: Any, length: int) -> None:
    """S0.13, S4.24: token for token in float32, whatever the chunks of the prompt."""
    prompt = prompt_of(length, seed=length)
    assert start(decoder(model), prompt).wait() == expected_of(model, prompt)


def test_generate_itself_still_works(model: Any) -> None:
    """C24: `get_model()` gives a model that anybody may use."""
    decoder(model)
    assert model.config._attn_implementation == NAME
    prompt = prompt_of(40)
    with torch.inference_mode():
        ids = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, 40), max_new_tokens=20,
            do_sample=False, eos_token_id=None,
        )  # fmt: skip
    assert ids[0, 40:].tolist() == expected_of(model, prompt, 20)


def test_those_who_decode_together_write_what_each_writes_alone(model: Any) -> None:
    """S4.24: joining and leaving between tokens; a newcomer's prompt is read beside the others."""
    prompts = [prompt_of(length, seed=length) for length in (20, 700, 3, 150)]
    budgets = [120, 30, 60, 90]
    first = start(decoder(model), prompts[0], max_tokens=budgets[0])
    assert first.begun.wait(WAIT_S)
    others = [
        start(decoder(model), prompt, max_tokens=budget)
        for prompt, budget in zip(prompts[1:], budgets[1:], strict=True)
    ]
    for run, prompt, budget in zip([first, *others], prompts, budgets, strict=True):
        assert run.wait() == expected_of(model, prompt, budget)


def rows_seen(model: Any) -> tuple[list[int], Any]:
    rows: list[int] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(
        lambda module, args: rows.append(args[0].shape[1])
    )
    return rows, hook


def test_what_was_computed_before_is_not_computed_again() -> None:
    """The same article again, another one with the same beginning, and after a cancel."""
    model = model_of()
    shared = prompt_of(300)
    prompts = [shared + prompt_of(50, seed=1), shared + prompt_of(50, seed=2)]
    expected = [expected_of(model, prompt, 10) for prompt in prompts]
    rows, hook = rows_seen(model)
    assert start(decoder(model), prompts[0], max_tokens=10).wait() == expected[0]
    assert sum(rows) == 350 + 9
    rows.clear()
    assert start(decoder(model), prompts[0], max_tokens=10).wait() == expected[0]
    assert sum(rows) == 1 + 9
    rows.clear()
    assert start(decoder(model), prompts[1], max_tokens=10).wait() == expected[1]
    assert sum(rows) == 50 + 9
    rows.clear()
    running = start(decoder(model), prompts[0], max_tokens=1000)
    assert running.begun.wait(WAIT_S)
    beside = start(decoder(model), prompts[0], max_tokens=10)
    assert beside.wait() == expected[0]
    running.stop.set()
    running.wait()
    hook.remove()


class Forced:
    """A constraint that knows three tokens after the first one."""

    complete = False
    tokens = (11, 12, 13)

    def __init__(self) -> None:
        self.known = list(self.tokens)

    def advance(self, ids: abc.Sequence[int]) -> None:
        """It follows nothing."""

    def forced(self) -> list[int]:
        known, self.known = self.known, []
        return known


def test_tokens_that_are_forced_go_into_one_forward() -> None:
    """The issue of speed: forced tokens cost no forward of their own, and change no other token."""
    model = model_of()
    prompt = prompt_of(30)
    first = expected_of(model, prompt, 1)
    expected = expected_of(model, [*prompt, *first, *Forced.tokens], 6)
    rows, hook = rows_seen(model)
    run = start(decoder(model), prompt, max_tokens=10, constraint=Forced())
    assert run.wait() == [*first, *Forced.tokens, *expected]
    hook.remove()
    assert rows == [30, 4, 1, 1, 1, 1, 1]


def test_one_that_comes_meanwhile_does_not_hold_up_one_that_rests() -> None:
    """S1.31: the end of one sequence is reported although the thread works on for another."""
    model = model_of()
    running = decoder(model)
    busy = start(running, prompt_of(9), max_tokens=1900)
    assert busy.begun.wait(WAIT_S)
    running.join(WAIT_S)
    assert not busy.ended.is_set()
    busy.stop.set()
    busy.wait()


def test_one_that_fails_does_not_take_the_others_along(model: Any) -> None:
    """Pitfall: an exception in the model's thread is an error, never a hang, and of one only."""

    def broken(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no")

    fine = start(decoder(model), prompt_of(20), max_tokens=60)
    bad = start(decoder(model), prompt_of(9, seed=4), processors=[broken])
    with pytest.raises(RuntimeError, match="no"):
        bad.wait()
    assert fine.wait() == expected_of(model, prompt_of(20), 60)


def test_a_model_that_fails_ends_everybody_and_works_again() -> None:
    """Pitfall: the request, and there the whole server, hung for good."""
    model = model_of()

    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("out of luck")

    hook = model.get_input_embeddings().register_forward_pre_hook(fail)
    both = [start(decoder(model), prompt_of(5, seed=seed)) for seed in range(2)]
    for run in both:
        with pytest.raises(RuntimeError):
            run.wait()
    hook.remove()
    assert start(decoder(model), prompt_of(5)).wait() == expected_of(model, prompt_of(5))


def test_a_cancel_ends_one_and_its_thread_ends_with_the_last() -> None:
    """S1.31, S4.23."""
    model = model_of()
    running = decoder(model)
    runs = [start(running, prompt_of(9, seed=seed), max_tokens=1900) for seed in range(2)]
    for one in runs:
        assert one.begun.wait(WAIT_S)
    runs[0].stop.set()
    assert len(runs[0].wait()) < 1900
    assert not runs[1].ended.is_set()
    runs[1].stop.set()
    runs[1].wait()
    running.join(WAIT_S)
    assert "decoder" not in {thread.name for thread in threading.enumerate()}


def test_reading_a_long_prompt_tells_how_far_it_is() -> None:
    """Contract 1: `status` reading with progress that moves, in steps of at least 2 %."""
    run = start(decoder(model_of(num_hidden_layers=24)), prompt_of(1500), max_tokens=2)
    run.wait()
    steps = [after - before for before, after in pairwise([0.0, *run.shares])]
    assert 30 < len(steps) <= 50
    assert min(steps) >= 0.02
    assert max(steps) < 0.04
    assert run.shares[-1] < 1


def test_progress_within_a_chunk_is_never_more_than_what_was_computed() -> None:
    """Contract 1: a chunk of 512 tokens takes 25 s in float32; what is reported is true."""
    model = model_of(num_hidden_layers=8)
    prompt = prompt_of(ALONE_TOKENS - 1)
    computed: list[int] = []
    shares: list[float] = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda module, args, output: computed.append(1))

    def on_prefill(share: float) -> None:
        assert share <= len(computed) / 8
        shares.append(share)

    start(decoder(model), prompt, max_tokens=1, on_prefill=on_prefill).wait()
    assert len(shares) == 7


def test_a_cancel_within_a_chunk_ends_it_at_the_next_layer() -> None:
    """S1.31: not after the chunk, which may take half a minute."""
    model = model_of(num_hidden_layers=8)
    reached: list[int] = []
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_pre_hook(lambda module, args, number=number: reached.append(number))
    prompt = prompt_of(1000)
    stop = threading.Event()
    hook = model.model.layers[3].register_forward_pre_hook(lambda module, args: stop.set())
    run = start(decoder(model), prompt, stop=stop)
    assert run.wait() == []
    assert reached == [0, 1, 2, 3]
    hook.remove()
    assert start(decoder(model), prompt).wait() == expected_of(model, prompt)


def test_a_cancel_of_one_who_reads_beside_others_takes_nothing_from_them() -> None:
    """S1.31, S4.24: it ends at the next layer; the step is made again without the chunk."""
    model = model_of()
    decoding = start(decoder(model), prompt_of(20), max_tokens=300)
    assert decoding.begun.wait(WAIT_S)
    rows: list[int] = []
    stop = threading.Event()

    def look(module: Any, args: Any) -> None:
        rows.append(args[0].shape[1])
        if rows[-1] > 1:
            stop.set()

    ended: list[int] = []
    hook = model.model.layers[0].register_forward_pre_hook(look)
    # A step that was on its way when this was said has shown no rows.
    last = model.model.layers[-1].register_forward_hook(lambda *_: ended.extend(rows[-1:]))
    prefill = start(decoder(model), prompt_of(1500, seed=3), stop=stop)
    assert prefill.wait() == []
    written = decoding.wait()
    hook.remove()
    last.remove()
    assert written == expected_of(model, prompt_of(20), 300)
    assert [count for count in rows if count > 1] == [1 + FIRST_ROWS]
    assert set(ended) == {1}


def test_a_cancel_of_one_who_writes_does_not_wait_for_a_newcomers_chunk() -> None:
    """S1.31: a step with a chunk takes most of a second; the newcomer reads on without it."""
    model = model_of(num_hidden_layers=4)
    stop = threading.Event()
    decoding = start(decoder(model), prompt_of(20), max_tokens=1900, stop=stop)
    assert decoding.begun.wait(WAIT_S)
    reached: list[tuple[int, int]] = []

    def look(number: int, rows: int) -> None:
        reached.append((number, rows))
        if (number, rows) == (1, 1 + FIRST_ROWS):
            stop.set()

    hooks = [
        layer.register_forward_pre_hook(
            lambda module, args, number=number: look(number, args[0].shape[1])
        )
        for number, layer in enumerate(model.model.layers)
    ]
    prefill = start(decoder(model), prompt_of(200, seed=3), max_tokens=5)
    decoding.wait()
    read = prefill.wait()
    for hook in hooks:
        hook.remove()
    assert [number for number, rows in reached if rows == 1 + FIRST_ROWS] == [0, 1]
    assert read == expected_of(model, prompt_of(200, seed=3), 5)


class Machine:
    """A clock that a model's forward moves on: so long for each step, and so long for each row."""

    def __init__(self, model: Any, step_s: float, row_s: float) -> None:
        self.now_s = 0.0
        self.steps: list[tuple[int, float]] = []
        self._costs = (step_s, row_s)
        model.get_decoder().register_forward_pre_hook(self._forward, with_kwargs=True)

    def __call__(self) -> float:
        return self.now_s

    def _forward(self, module: Any, args: Any, options: Any) -> None:
        rows = options["input_ids"].shape[1]
        took_s = self._costs[0] + self._costs[1] * rows
        self.now_s += took_s
        self.steps.append((rows, took_s))


@pytest.mark.parametrize(
    ("step_s", "row_s", "chunk", "longest_s"),
    [
        pytest.param(0.7, 0.048, LEAST_ROWS, 1.6, id="float32 on two cores"),
        pytest.param(0.15, 0.009, 82, 1.0, id="int4 with its int8 copy"),
        pytest.param(0.001, 0.0001, MOST_ROWS, 0.1, id="a fast machine"),
    ],
)
@pytest.mark.parametrize("read_before", [False, True], ids=["at first", "after a prompt"])
def test_a_newcomers_prompt_never_holds_the_others_up_for_long(
    step_s: float, row_s: float, chunk: int, longest_s: float, read_before: bool
) -> None:
    """The issue of speed: running streams never stall for more than 2 s, on any machine."""
    model = model_of()
    machine = Machine(model, step_s, row_s)
    running = decoder_of(model, clock=machine)
    assert running is not None
    if read_before:
        start(running, prompt_of(ALONE_TOKENS + 1, seed=5), max_tokens=1).wait()
    decoding = start(running, prompt_of(9), max_tokens=1900)
    assert decoding.begun.wait(WAIT_S)
    newcomer = start(running, prompt_of(1200, seed=6), max_tokens=1)
    newcomer.wait()
    decoding.stop.set()
    decoding.wait()
    beside = [(rows, took) for rows, took in machine.steps if 1 < rows <= 1 + MOST_ROWS][1:]
    assert max(took for _, took in beside) <= longest_s + 0.8
    assert max(took for _, took in beside) <= 2.0
    assert max(took for _, took in beside[2:]) <= longest_s
    # The one before the last: what is left for the last one is less than a chunk.
    assert beside[-2][0] == pytest.approx(1 + chunk, rel=0.06)


def test_who_has_no_room_waits_for_somebody_to_leave() -> None:
    """C12, C25: keys and values were counted for so many sequences, and no more of them run."""
    model = model_of()
    rows: list[int] = []
    hook = model.get_decoder().register_forward_hook(
        lambda _, __, output: rows.append(output.last_hidden_state.shape[1])
    )
    running = decoder_of(model, DecodeLimits(sequences=2))
    assert running is not None
    prompts = [prompt_of(9, seed=seed) for seed in range(5)]
    texts = [start(running, prompt, max_tokens=30) for prompt in prompts]
    assert [run.wait() for run in texts] == [expected_of(model, one, 30) for one in prompts]
    hook.remove()
    # A prompt of nine tokens, one or two who write, or one of each.
    assert set(rows) <= {1, 2, 9, 9 + 1}


def test_who_is_stopped_while_waiting_ends_at_once() -> None:
    """S1.31: a cancel does not wait for those who run."""
    running = decoder_of(model_of(), DecodeLimits(sequences=1))
    assert running is not None
    first = start(running, prompt_of(9), max_tokens=1500)
    assert first.begun.wait(WAIT_S)
    second = start(running, prompt_of(9, seed=1))
    assert not second.ended.is_set()
    second.stop.set()
    assert second.wait() == []
    assert not first.ended.is_set()
    first.stop.set()
    first.wait()


def alive() -> list[weakref.ref[KeyValues]]:
    return [weakref.ref(one) for one in gc.get_objects() if type(one) is KeyValues]


def test_what_users_sent_is_let_go_in_time() -> None:
    """SESSIONS_TTL_SECONDS: keys and values are the text that was sent, in another form."""
    others = {id(ref()) for ref in alive()}
    now = [0.0]
    model = model_of()
    running = decoder_of(model, DecodeLimits(ttl_s=600.0, clock=lambda: now[0]))
    assert running is not None
    start(running, prompt_of(300), max_tokens=3).wait()
    running.join(WAIT_S)
    kept = [ref for ref in alive() if id(ref()) not in others]
    assert len(kept) == 1
    now[0] = 599.0
    assert running.forget_expired() == []
    now[0] = 600.0
    assert len(running.forget_expired()) == 1
    assert kept[0]() is None


@pytest.mark.parametrize("kind", ["Gemma2", "Phi3 with a growing context"])
def test_a_model_that_it_cannot_run_is_left_to_generate(kind: str) -> None:
    """Another family, or positions that depend on the length: the plain path."""
    if kind == "Gemma2":
        config = transformers.Gemma2Config(**SIZES, head_dim=12)
        model: Any = transformers.Gemma2ForCausalLM(config)
    else:
        factors = [1.0] * 6
        rope = {
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": factors,
            "long_factor": factors, "original_max_position_embeddings": 1024,
        }  # fmt: skip
        config = transformers.Phi3Config(**SIZES, rope_parameters=rope)
        model = transformers.Phi3ForCausalLM(config)
    assert decoder_of(model) is None
