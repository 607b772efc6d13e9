"""What `pytest --weights FORMAT` is for: the tiny models really are held in that format."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from torch import nn

from app.engine.quantized.linear import Int4Linear, Int8Linear
from app.services.model_loader_v4 import ModelServiceV4
from tests import weight_formats
from tests.checkpoints import make_checkpoint
from tests.weight_formats import INT4_ON_TORCH, WeightFormat, of_this_run

ROOT = Path(__file__).parents[3]
FIXTURES = ("checkpoint", "fallback_checkpoint", "qwen_checkpoint", "llama_checkpoint")


def layers_of(folder: Path) -> Counter[str]:
    """Load a checkpoint as any test does, and count its linear layers by how they are held."""

    class Tiny(ModelServiceV4):
        """A model of its own."""

    Tiny.configure(**of_this_run().loading(folder))
    model, _ = Tiny.get_model()
    assert Tiny.info()["weights"] == of_this_run().held
    found: Counter[str] = Counter()
    for module in model.modules():
        if isinstance(module, Int4Linear):
            found["int4"] += 1
        elif isinstance(module, Int8Linear):
            found["int8"] += 1
        elif type(module) is nn.Linear:
            found[str(module.weight.dtype).removeprefix("torch.")] += 1
    return found


def test_the_tiny_models_are_held_as_the_run_asks(request: pytest.FixtureRequest) -> None:
    """C12: all layers that a format packs are packed in it: a run for int4 never runs on floats."""
    total: Counter[str] = Counter()
    for fixture in FIXTURES:
        found = layers_of(request.getfixturevalue(fixture))
        run = of_this_run()
        if run.held == "int4":
            # The head is never int4.
            assert (found.total() - found["int4"], found["int8"]) == (1, 1)
            assert found["int4"] >= 4
        else:
            assert set(found) == {run.held}
            assert found.total() >= 5
        total += found
    counts = ", ".join(f"{count} {held}" for held, count in sorted(total.items()))
    weight_formats.note(f"linear layers of {len(FIXTURES)} tiny models: {counts}")


def test_a_format_that_a_test_names_is_left_alone(tmp_path: Path) -> None:
    """C12: tests of one format test it in every run."""
    folder = make_checkpoint(tmp_path / "m", hidden=128)
    for name in weight_formats.NAMES:
        run = WeightFormat(name)
        assert run.loading(folder, weights="float16")["weights"] == "float16"
        assert run.settings(folder, v4_weights="int8")["v4_weights"] == "int8"
        assert "torch_dtype" not in run.settings(folder, v4_weights="int8")
        if run.packed:
            assert "weights" not in run.loading(folder, reads_images=True)


@pytest.mark.timeout(120)
def test_the_option_reaches_the_loaders() -> None:
    """C12: asked from outside, as a person does."""
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "pytest",
                "--weights",
                INT4_ON_TORCH,
                "-p",
                "no:cacheprovider",
            ),
            f"{__file__}::{test_the_tiny_models_are_held_as_the_run_asks.__name__}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout
    last = next(line for line in done.stdout.splitlines() if "linear layers" in line)
    assert f"--weights {INT4_ON_TORCH}" in last
    assert " int4" in last
    assert "float32" not in last
