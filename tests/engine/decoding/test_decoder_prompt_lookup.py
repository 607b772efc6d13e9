"""Guessed tokens in the decoder's loop: fewer forwards, and the same text."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from app.engine.decoding.attention import by_products, fused
from app.engine.decoding.decoder import Decoder, decoder_of
from app.engine.decoding.limits import CHEAP_ROWS, MAX_PROPOSED, DecodeLimits
from tests.engine.decoding.test_decoder import (
    FAMILIES,
    Forced,
    expected_of,
    model_of,
    prompt_of,
    rows_seen,
    start,
)

CIRCLE = (11, 12, 13, 14, 15)


@pytest.fixture(scope="module", params=list(FAMILIES))
def model(request: pytest.FixtureRequest) -> Any:
    return model_of(request.param)


def proposing(model: Any) -> Decoder:
    found = decoder_of(model, DecodeLimits(cheap_rows=CHEAP_ROWS))
    assert found is not None
    return found


def in_a_circle(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Choose the tokens of `CIRCLE` one after the other."""
    last = int(ids[0, -1])
    at = CIRCLE.index(last) if last in CIRCLE else -1
    scores[0, CIRCLE[(at + 1) % len(CIRCLE)]] += 1000
    return scores


def circle(count: int) -> list[int]:
    return [CIRCLE[at % len(CIRCLE)] for at in range(count)]


def test_a_text_with_proposals_is_that_of_generate(model: Any) -> None:
    """S0.13, issue 5: prompts that repeat themselves, and a model that mostly does not follow."""
    decoder = proposing(model)
    rows, hook = rows_seen(model)
    prompts = [prompt_of(9, seed=seed) * 6 for seed in range(4)]
    texts = [start(decoder, prompt).wait() for prompt in prompts]
    hook.remove()
    # Some proposals were made: else nothing is shown.
    assert set(rows) & {2, 3, 1 + MAX_PROPOSED}
    assert texts == [expected_of(model, prompt) for prompt in prompts]


def test_right_proposals_save_forwards() -> None:
    """Issue 5: a token that was proposed costs no forward of its own."""
    model = model_of()
    rows, hook = rows_seen(model)
    run = start(proposing(model), prompt_of(30), max_tokens=90, processors=[in_a_circle])
    assert run.wait() == circle(90)
    hook.remove()
    # The prompt, and a little more than one round of the circle; then four tokens a forward.
    assert len(rows) < 10 + 85 / (1 + MAX_PROPOSED)
    assert max(rows[1:]) == 1 + MAX_PROPOSED


def test_what_is_kept_after_proposals_is_what_was_said() -> None:
    """Issue 5: keys and values of a wrong proposal are not taken for those of the text."""
    model = model_of()
    decoder = proposing(model)
    prompt = prompt_of(9) * 6
    first = start(decoder, prompt, max_tokens=33).wait()
    longer = [*prompt, *first]
    assert start(decoder, longer, max_tokens=20).wait() == expected_of(model, longer, 20)


@pytest.mark.parametrize("budget", range(1, 16))
def test_a_budget_is_not_exceeded_by_proposals(budget: int) -> None:
    """Contract 1: max_tokens."""
    prompt = [*circle(15), *prompt_of(5), *circle(10)]
    run = start(proposing(model_of()), prompt, max_tokens=budget, processors=[in_a_circle])
    assert run.wait() == circle(budget)


def test_a_stop_ends_the_text_within_a_proposal() -> None:
    """S1.31: a token after a stop was not asked for."""

    def until_the_third(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] == 25 + 2:
            run.stop.set()
        return in_a_circle(ids, scores)

    model = model_of()
    run = start(proposing(model), circle(25), max_tokens=50, processors=[until_the_third])
    assert run.wait() == circle(3)


def test_forced_tokens_and_proposals_together_change_no_token() -> None:
    """Issue 5: what the grammar forces may be what was proposed, or not."""
    model = model_of()
    prompt = prompt_of(30)
    first = expected_of(model, prompt, 1)
    repeated = [*first, *Forced.tokens]
    for before in (repeated, [*first, Forced.tokens[0], 20, 21], [*first, 30, 31, 32]):
        asked = [*before, *prompt_of(6, seed=3), *prompt]
        own = expected_of(model, asked, 1)
        expected = expected_of(model, [*asked, *own, *Forced.tokens], 6)
        run = start(proposing(model), asked, max_tokens=10, constraint=Forced())
        assert run.wait() == [*own, *Forced.tokens, *expected]


def test_several_share_the_cheap_rows_and_a_newcomer_ends_the_proposals() -> None:
    """S4.24: a step never has more rows than are cheap, or than were planned for a chunk."""
    model = model_of()
    decoder = proposing(model)
    rows, hook = rows_seen(model)
    prompts = [[*prompt_of(4, seed=seed), *circle(12)] for seed in range(4)]
    texts = [start(decoder, one, max_tokens=60, processors=[in_a_circle]) for one in prompts]
    for run, _ in zip(texts, prompts, strict=True):
        assert run.wait() == [CIRCLE[(at + 2) % len(CIRCLE)] for at in range(60)]
    hook.remove()
    assert max(rows[-8:]) <= CHEAP_ROWS
    together = [count for count in rows if count == CHEAP_ROWS]
    assert together, rows


def test_what_the_model_is_not_known_to_do_cheaply_is_not_proposed() -> None:
    """Issue 5: where a second row costs as much as the first one, there is none."""
    model = model_of()
    decoder = decoder_of(model)
    assert decoder is not None
    rows, hook = rows_seen(model)
    assert start(decoder, circle(25), processors=[in_a_circle]).wait() == circle(40)
    hook.remove()
    assert rows == [25, *[1] * 39]


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("window", [None, 2, 50])
@pytest.mark.parametrize("groups", [1, 3])
def test_a_few_rows_over_whole_buffers_see_what_they_may(
    rows: int, window: int | None, groups: int
) -> None:
    """Issue 5: both ways of attention give the same for proposals."""
    made = torch.Generator().manual_seed(3)
    query = torch.randn(2, groups, rows, 16, generator=made)
    keys, values = torch.randn(2, 2, 96, 16, generator=made)
    given: dict[str, Any] = {"start": 70, "scaling": 0.25, "window": window}
    # What lies behind the written tokens is finite, and not seen.
    keys[:, 70 + rows :] = 1e4
    one, other = (way(query, keys, values, **given) for way in (fused, by_products))
    assert torch.allclose(one, other, atol=1e-5)
