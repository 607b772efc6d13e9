"""The next token: drawn with a seed of its own, penalised by the book, and told truthfully."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from app.engine.decoding.sampling import LEAST_LOGPROB, Penalties, Recorder, Sampler

PROMPT = torch.tensor([[1, 2, 3]])
SCORES = torch.tensor([[0.5, 2.0, 1.0, -1.0, 1.5]])


def drawn(sampler: Sampler, scores: torch.Tensor = SCORES) -> int:
    """Return the only token that is left, which must be one."""
    left = sampler(PROMPT, scores)
    assert left.shape == scores.shape
    assert int(torch.isfinite(left).sum()) == 1
    return int(left.argmax())


def sampler(**values: Any) -> Sampler:
    return Sampler(**{"temperature": 1.0, "top_p": 1.0, "seed": 1, **values})


def test_temperature_zero_is_the_likeliest_token_whatever_the_seed() -> None:
    """S2.18: do_sample only when temperature > 0."""
    assert {drawn(sampler(temperature=0, seed=seed, top_p=0.1)) for seed in range(20)} == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_are_drawn_as_often_as_they_are_likely(temperature: float) -> None:
    """S0.14: sampling."""
    one = sampler(temperature=temperature)
    counts = torch.zeros(5)
    for _ in range(4000):
        counts[drawn(one)] += 1
    expected = (SCORES[0] / temperature).softmax(-1)
    assert float((counts / 4000 - expected).abs().max()) < 0.03


@pytest.mark.parametrize("temperature", [1e-40, 1e-6, 1e6])
def test_no_temperature_overflows(temperature: float) -> None:
    """Contract 2: `temperature`."""
    token = drawn(sampler(temperature=temperature), SCORES * 1e4)
    assert token == 1 or temperature > 1


def test_top_p_leaves_the_fewest_likeliest_tokens() -> None:
    """Contract 2: `top_p`."""
    shares = SCORES[0].softmax(-1).sort(descending=True)
    for top_p in (0.0, 0.3, 0.6, 0.8, 0.99):
        count = 1 + next(n for n in range(5) if float(shares.values[: n + 1].sum()) >= top_p)
        allowed = set(shares.indices[:count].tolist())
        one = sampler(top_p=top_p)
        assert {drawn(one) for _ in range(400)} == allowed


def test_top_p_is_right_where_a_whole_vocabulary_is_needed() -> None:
    """Contract 2: also when the nucleus is wider than what is sorted first."""
    flat = torch.zeros(1, 5000)
    one = sampler(top_p=0.9)
    found = {drawn(one, flat) for _ in range(3000)}
    assert 1500 < len(found) <= 4501


def test_a_masked_token_is_never_drawn() -> None:
    """C13: what the grammar forbids stays forbidden."""
    masked = SCORES.masked_fill(torch.tensor([[True, True, False, True, False]]), -torch.inf)
    one = sampler(temperature=100.0)
    assert {drawn(one, masked) for _ in range(200)} == {2, 4}
    nothing = torch.full((1, 5), -torch.inf)
    assert int(torch.isfinite(sampler()(PROMPT, nothing)).sum()) == 1


def test_a_seed_repeats_and_nothing_else_disturbs_it() -> None:
    """Contract 2: `seed`, whatever else runs in the process."""
    one, two = sampler(seed=7), sampler(seed=7)
    first, second = [], []
    for number in range(50):
        first.append(drawn(one))
        torch.manual_seed(number)
        torch.rand(3)
        second.append(drawn(two))
    assert first == second
    unlike = sampler(seed=8)
    assert first != [drawn(unlike) for _ in range(50)]


def test_without_a_seed_nothing_repeats_and_the_process_keeps_its_own() -> None:
    """Contract 2."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        one = sampler(seed=None)
        runs.append([drawn(one, torch.zeros(1, 1000)) for _ in range(10)])
    assert runs[0] != runs[1]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**64 - 1, 2**70])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    """Contract 2: a seed is an integer, and the clients send all kinds."""
    assert drawn(sampler(seed=seed)) == drawn(sampler(seed=seed))


def test_penalties_follow_the_formula_and_spare_the_prompt() -> None:
    """Contract 2: `presence_penalty`, `frequency_penalty`: counts of generated tokens only."""
    penalties = Penalties(presence=0.5, frequency=0.25, prompt_tokens=3)
    assert torch.equal(penalties(PROMPT, SCORES), SCORES)
    ids = torch.cat([PROMPT, torch.tensor([[4, 0, 4]])], dim=-1)
    changed = penalties(ids, SCORES)
    expected = SCORES.clone()
    expected[0, 4] -= 2 * 0.25 + 0.5
    expected[0, 0] -= 0.25 + 0.5
    assert torch.allclose(changed, expected)
    assert torch.equal(SCORES, torch.tensor([[0.5, 2.0, 1.0, -1.0, 1.5]]))
    again = penalties(torch.cat([ids, torch.tensor([[0]])], dim=-1), SCORES)
    assert math.isclose(float(again[0, 0]), 0.5 - 2 * 0.25 - 0.5, abs_tol=1e-6)


def test_a_negative_penalty_makes_a_token_likelier_and_a_mask_stays() -> None:
    """Contract 2: -2 to 2."""
    penalties = Penalties(presence=-2.0, frequency=0.0, prompt_tokens=0)
    masked = SCORES.clone()
    masked[0, 2] = -torch.inf
    changed = penalties(torch.tensor([[0, 2]]), masked)
    assert float(changed[0, 0]) == 2.5
    assert float(changed[0, 2]) == -math.inf


def test_logprobs_are_those_of_the_raw_logits() -> None:
    """Contract 2: `logprobs`, `top_logprobs`: before temperature, penalties and masks."""
    recorder = Recorder(2, lambda token: b"\xc3" if token == 4 else f"t{token}".encode())
    one = sampler(temperature=0.0, recorder=recorder)
    masked = recorder(PROMPT, SCORES).masked_fill(
        torch.tensor([[False, True, True, False, False]]), -torch.inf
    )
    assert drawn(one, masked) == 4
    told = recorder.next()
    expected = SCORES[0].log_softmax(-1)
    assert (told.text, told.data) == ("\ufffd", b"\xc3")
    assert math.isclose(told.logprob, float(expected[4]), rel_tol=1e-5)
    assert [(text, data) for text, data, _ in told.top] == [("t1", b"t1"), ("\ufffd", b"\xc3")]
    assert math.isclose(told.top[0][2], float(expected[1]), rel_tol=1e-5)


def test_a_logprob_is_always_a_number_that_json_has() -> None:
    """Contract 2."""
    recorder = Recorder(5, lambda token: b"x")
    scores = recorder(PROMPT, torch.tensor([[0.0, -torch.inf, -torch.inf, -torch.inf, -1.0]]))
    drawn(sampler(temperature=0, recorder=recorder), scores)
    told = recorder.next()
    assert min(value for _, _, value in told.top) == LEAST_LOGPROB
