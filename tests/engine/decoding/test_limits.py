"""In what portions prompts are read: as many rows beside others as a second allows."""

from __future__ import annotations

import pytest

from app.engine.decoding.limits import FIRST_ROWS, LEAST_ROWS, MOST_ROWS, STEP_S, ChunkSizer, runs


@pytest.mark.parametrize("step_s", [0.0, 0.05, 0.3, 0.6])
@pytest.mark.parametrize("row_s", [0.004, 0.01, 0.03])
def test_the_rows_come_to_what_a_step_may_take(step_s: float, row_s: float) -> None:
    """The issue of speed: never a stall of more than 2 s; the others' own tokens count as well."""
    sizer = ChunkSizer()
    assert sizer.rows() == FIRST_ROWS
    for _ in range(20):
        rows = sizer.rows()
        sizer.record(rows, step_s + rows * row_s)
    best = max(LEAST_ROWS, min(MOST_ROWS, (STEP_S - step_s) / row_s))
    assert best - 5 < sizer.rows() <= best + 1e-9


def test_the_rows_have_bounds_and_one_slow_step_is_forgotten() -> None:
    """A machine that stood still for a moment reads on as before."""
    sizer = ChunkSizer()
    sizer.record(64, 0.0)
    assert sizer.rows() == MOST_ROWS
    sizer.record(MOST_ROWS, 3600.0)
    assert sizer.rows() == LEAST_ROWS
    sizer.record(LEAST_ROWS, 0.08)
    assert sizer.rows() == pytest.approx(100 * STEP_S, abs=1)


@pytest.mark.parametrize(
    ("config", "known"),
    [
        ({"model_type": "phi3", "rope_scaling": None}, True),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "llama3"}}, True),
        ({"model_type": "llama", "rope_scaling": {"type": "dynamic"}}, False),
        ({"model_type": "phi3", "rope_scaling": {"type": "longrope"}}, False),
        ({"model_type": "qwen3", "rope_parameters": {"rope_type": "default"}}, True),
        ({"model_type": "qwen3", "rope_parameters": {"rope_type": "yarn"}}, False),
        ({"model_type": "gemma2"}, False),
        ({}, False),
    ],
)
def test_what_the_loop_runs_is_known_from_the_configuration(
    config: dict[str, object], known: bool
) -> None:
    """C12: memory is counted before anything is loaded, in old spellings too."""
    assert runs(config) is known
