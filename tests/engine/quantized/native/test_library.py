"""How the C files become a library, and what happens where they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.engine.quantized.cpu_flags import cpu_flags
from app.engine.quantized.kernels import find_kernels
from app.engine.quantized.native.library import (
    LEVEL_FLAGS,
    Level,
    build,
    can_compile,
    levels,
)
from tests.packed_models import NATIVE, ROOT, kernels_of
from tests.programs import program


def test_a_processor_with_the_instructions_has_kernels_of_our_own() -> None:
    """C12: they are not lost without a word."""
    program("gcc")
    able = levels(cpu_flags())
    assert can_compile() == bool(able)
    # The kernel may forbid AMX.
    assert find_kernels().native in (able[:2] if able else [None])


@pytest.mark.parametrize(
    ("flags", "compiler", "reason"),
    [
        (LEVEL_FLAGS["avx2"] - {"avx2"}, "gcc", "no avx2"),
        (LEVEL_FLAGS["avx2"], None, "install gcc"),
        (LEVEL_FLAGS["vnni"], "/bin/false", "not compiled"),
        (LEVEL_FLAGS["amx"], "/no/such/compiler", "not compiled"),
    ],
)
def test_what_is_missing_is_told_and_torchs_kernels_stay(
    flags: frozenset[str], compiler: str | None, reason: str
) -> None:
    """C12: a correct, slower path, and an operator who can find out why."""
    with capture_logs() as logs:
        assert build(flags, compiler) is None
    (event,) = logs
    assert event["event"] == "native_kernels_missing"
    assert reason in event["reason"]


@pytest.mark.parametrize("level", list(LEVEL_FLAGS))
def test_every_level_compiles(level: Level) -> None:
    """C12: also those levels that this processor cannot run."""
    with capture_logs() as logs:
        assert build(LEVEL_FLAGS[level], program("gcc"), level) is not None
    assert not logs


@pytest.mark.parametrize(
    ("missing", "best"),
    [(set(), "amx"), ({"amx_bf16"}, "vnni"), ({"avx512_vnni"}, "avx512"), ({"avx512bw"}, "avx2")],
)
def test_a_processor_gets_the_best_level_that_it_has(missing: set[str], best: Level) -> None:
    """C12: chosen by the flags of /proc/cpuinfo."""
    assert levels(LEVEL_FLAGS["amx"] - missing)[0] == best
    assert levels(LEVEL_FLAGS["amx"] - {"fma"}) == []


PROGRAM = """
import torch
from app.engine.quantized.kernels import find_kernels
from app.engine.quantized.linear import Int4Linear
from app.engine.quantized.quantize import quantize_int4
layer = Int4Linear(256, 64)
layer.packed = quantize_int4(torch.eye(64, 256))
assert torch.allclose(layer(torch.eye(256)), torch.eye(256, 64), atol=0.05)
# By torch's threads as well as by those of the library.
torch.ones(1 << 20).add(1)
with open("/proc/self/maps") as maps:
    held = {line.split()[-1] for line in maps if "gomp" in line or "iomp" in line}
print(find_kernels().native or "none", len(held))
"""


def run(path: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.split()


def test_a_machine_without_a_compiler_computes_the_same(tmp_path: Path) -> None:
    """C12: chosen by what is there."""
    native, _ = run(str(tmp_path))[-2:]
    assert native == "none"


@pytest.mark.parametrize("layout", NATIVE[:1])
def test_there_is_one_openmp_in_the_process(layout: str) -> None:
    """C12: two would have twice the threads, which wait for each other."""
    found = kernels_of(layout)
    native, held = run(os.environ["PATH"])[-2:]
    assert (native, held) == (found.native, "1")
