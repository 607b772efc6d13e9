"""`bench.fidelity` as one runs it, on a toy: what it says of itself, and that it can say no."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.fidelity.formats import damage, variants
from bench.fidelity.generate import NEAR_STEPS, Reference, compare
from bench.fidelity.scores import FIRST, Comparison, Window, cut
from bench.fidelity.table import checks, lines
from bench.fidelity.training import read_corpus

# Two processes that import torch; the first one also trains.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
TOY = ("--quick", "--steps", "30", "--threads", "1")
WAYS = ["forward", *(f"decoder, {way}" for way in ("alone", "prompt kept", "forced", "4 at once"))]
WINDOWS, WINDOW_TOKENS, ROW_TOKENS = 4, 608, 32
LAYER = "lm_head"


@dataclass(frozen=True)
class Ran:
    """What one run of the command printed, the file that it wrote, and its exit status."""

    status: int
    printed: str
    record: dict[str, Any]

    def row(self, variant: str, how: str) -> dict[str, Any]:
        return next(row for row in self.record["rows"][variant] if row["how"] == how)

    def failed(self) -> list[str]:
        return [line for line in self.printed.splitlines() if line.startswith("FAIL")]


def bench(folder: Path, *options: str) -> Ran:
    """Run the command, its checkpoint in `folder`."""
    out = folder / "fidelity.json"
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "bench.fidelity", *TOY, *options),
            *("--folder", str(folder), "--out", str(out)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert out.is_file(), shown.stdout + shown.stderr
    return Ran(shown.returncode, shown.stdout, json.loads(out.read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fidelity")


@pytest.fixture(scope="module")
def ran(folder: Path) -> Ran:
    return bench(folder)


def test_every_format_is_read_in_every_way(ran: Ran) -> None:
    """Issue 5: perplexity and agreement of the weights alone, and of the whole path."""
    assert list(ran.record["rows"]) == ["float32", "bfloat16", "int8", "int4"]
    forced = ROW_TOKENS // 8
    tokens = [WINDOWS * n for n in (WINDOW_TOKENS - FIRST, ROW_TOKENS, ROW_TOKENS, forced)]
    for name, rows in ran.record["rows"].items():
        assert [row["how"] for row in rows] == WAYS
        assert [row["tokens"] for row in rows] == [*tokens, WINDOWS * ROW_TOKENS]
        assert ran.printed.count(f"\n{name:<10} ") == len(WAYS)
    assert ran.printed.startswith("QUICK, a toy that has learnt next to nothing")
    about = ran.record["training"]
    assert about["tokens"] == 30 * 4 * 512
    # Less than a uniform guess at 1,024 entries, or nothing was learnt.
    assert ran.row("float32", "forward")["perplexity"] < 700


def test_a_toy_stays_within_the_limits_and_the_path_is_the_plain_forward(ran: Ran) -> None:
    """Issue 5: int4 within 5 %, int8 within 1 % of float32; the path changes nothing."""
    assert (ran.status, ran.failed()) == (0, [])
    for how in WAYS[1:]:
        assert ran.row("float32", how)["ratio"] == pytest.approx(1, abs=1e-3)
    for name in ("bfloat16", "int8", "int4"):
        for row in ran.record["rows"][name]:
            assert 0 < abs(row["ratio"] - 1) < 0.05
            # Of a few tokens, two near ties are a tenth.
            assert row["agreement"] > (0.9 if row["tokens"] > 100 else 0.7)
    # Another kernel, other numbers: else a format was measured twice.
    assert len({ran.row(name, "forward")["perplexity"] for name in ran.record["rows"]}) == 4
    assert ran.record["greedy"]["float32"]["equal"] == 3
    assert all(row["forced"] > 0 for row in ran.record["json"].values())


def test_damaged_weights_are_noticed(ran: Ran, folder: Path) -> None:
    """Issue 5: one layer's scales twice as large, and the guard says no."""
    options = ("--formats", "float32,int8", "--path-windows", "2", "--prompts", "1")
    damaged = bench(folder, *options, "--damage", LAYER)
    assert damaged.status == 1
    assert [line.split(":")[0] for line in damaged.failed()] == ["FAIL  int8"] * 2
    # The plain forward is over the same text in both runs.
    names = ("float32", "int8")
    exact, packed = (
        [one.row(name, "forward")["ratio"] for one in (ran, damaged)] for name in names
    )
    assert exact == [1, 1]
    assert packed[1] > packed[0] + 0.5
    assert all(row["divergence"] > 0.05 for row in damaged.record["rows"]["int8"])
    assert f"DAMAGED, {LAYER}" in damaged.printed.splitlines()[0]


def test_a_layer_or_a_format_that_is_not_there_is_refused() -> None:
    """Issue 5: a run that would measure nothing does not pass."""
    with pytest.raises(SystemExit):
        damage(torch.nn.Sequential(torch.nn.Linear(2, 2)), "1")
    with pytest.raises(SystemExit):
        variants(["int8", "int3"])
    assert variants(["int4", "int8"]) == ["int8", "int4"]


def test_perplexity_agreement_and_divergence_are_those_of_the_formulas() -> None:
    """Issue 5: checked by hand on three places of two tokens."""
    true = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
    made = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(3), 0.0]])
    comparison = Comparison()
    comparison.add(made[:2], true[:2], [0, 0])
    comparison.add(made[2:], true[2:], [1])
    row = comparison.row()
    assert row["tokens"] == 3
    # Shares of the text's own tokens: 1/2, 1/2, 1/4 against 1/2, 3/4, 3/4.
    assert row["perplexity"] == pytest.approx(16 ** (1 / 3))
    assert row["ratio"] == pytest.approx((16 / (2 * 4 / 3 * 4 / 3)) ** (1 / 3))
    assert row["agreement"] == pytest.approx(2 / 3)
    second = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    third = 0.75 * math.log(0.75 / 0.25) + 0.25 * math.log(0.25 / 0.75)
    assert row["divergence"] == pytest.approx((second + third) / 3)
    more = torch.tensor([0, math.log(0.75 / 0.5), math.log(0.75 / 0.25)])
    assert row["ratio_error"] == pytest.approx(row["ratio"] * float(more.std()) / math.sqrt(3))


def test_what_is_no_number_stays_so() -> None:
    """Issue 5: a format whose scores are no numbers may not look like a good one."""
    comparison = Comparison()
    comparison.add(torch.full((2, 2), math.nan), torch.zeros(2, 2), [0, 1])
    row = comparison.row()
    assert all(math.isnan(row[key]) for key in ("perplexity", "ratio", "divergence"))


def test_steps_are_compared_at_their_own_places() -> None:
    """Issue 5: the scores before a token are held against float32's before the same token."""
    ids = list(range(FIRST + 3))
    reference = torch.eye(FIRST + 3)[FIRST:] * 5
    window = Window(ids, reference)
    comparison = Comparison()
    comparison.add_steps(window, {FIRST + 2: reference[2], FIRST + 1: reference[1]})
    assert comparison.row() | {"perplexity": 0} == {
        **{"tokens": 2, "perplexity": 0, "ratio": 1, "ratio_error": 0},
        **{"agreement": 1, "divergence": 0},
    }


def test_windows_are_spread_over_the_text() -> None:
    """Issue 5: from the first held-out token to the last, as many as there is room for."""
    assert cut(range(100), count=3, tokens=10) == [
        list(range(start, start + 10)) for start in (0, 45, 90)
    ]
    assert len(cut(range(25), count=9, tokens=10)) == 2
    with pytest.raises(SystemExit):
        cut(range(9), count=1, tokens=10)


def test_the_first_divergence_and_its_gap_are_found() -> None:
    """Issue 5: greedy text equal up to a stated first divergence."""
    reference = Reference([5, 6, 7], best=[9.0, 9.0, 1.5], gaps=[2.0, 0.0625, 0.5])
    found = compare([[5, 6, 7], [5, 8, 7], [5, 6]], [reference] * 3)
    assert (found["equal"], found["tokens"]) == (1, 9)
    first, second = found["divergences"]
    # From 8 to 16, bfloat16 has 128 steps.
    assert first == {"prompt": 1, "token": 1, "gap": 0.0625, "steps": 1.0, "near": True}
    assert (second["prompt"], second["token"]) == (2, 1)
    far = compare([[5, 6, 8]], [reference])["divergences"][0]
    assert far["steps"] == 64 > NEAR_STEPS
    assert not far["near"]


def passing() -> dict[str, Any]:
    """A record in which everything holds, at its limits."""

    def row(how: str, ratio: float, divergence: float = 0.0, **more: int) -> dict[str, Any]:
        return {"how": how, "ratio": ratio, "divergence": divergence, **more}

    divergence = {"prompt": 0, "token": 9, "gap": 0.25, "steps": 4.0, "near": True}
    every = {"prompts": 2, "tokens": 128}
    forced = {"texts": 2, "equal": 2, "free": 50, "same": 50, "forced": 9}
    return {
        "rows": {
            "float32": [row("forward", 1.0), row("decoder", 0.9991, 1e-6, known=2, windows=2)],
            "int8": [row("forward", 1.0099, 1e-3), row("decoder", 0.9, size=4, widest=4)],
            "int4": [row("forward", 1.0), row("decoder", 1.0499, 3e-3)],
        },
        "json": {"float32": forced, "int8": forced | {"same": 49, "equal": 1}},
        "greedy": {
            "float32": every | {"equal": 2, "divergences": []},
            "bfloat16": every | {"equal": 1, "divergences": [divergence]},
        },
    }


def test_a_record_at_its_limits_passes() -> None:
    """Issue 5: int4 5 %, int8 1 %, and a near tie in bfloat16."""
    found = checks(passing())
    assert [one.line for one in found if not one.passed] == []
    assert "the first divergence at token 9" in found[-1].found


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        (("rows", "int8", 1, "ratio"), 1.0101, "int8: perplexity"),
        (("rows", "int4", 0, "ratio"), 1.0501, "int4: perplexity"),
        (("rows", "int4", 1, "ratio"), math.nan, "int4: perplexity"),
        (("rows", "float32", 1, "ratio"), 0.9989, "float32: the decoder"),
        (("rows", "float32", 1, "ratio"), math.nan, "float32: the decoder"),
        (("rows", "float32", 1, "divergence"), 2e-6, "float32: divergence"),
        (("rows", "int8", 1, "divergence"), 2e-3, "int8: divergence"),
        (("rows", "int4", 1, "divergence"), math.nan, "int4: divergence"),
        (("rows", "float32", 1, "known"), 1, "prompts are kept"),
        (("rows", "int8", 1, "widest"), 3, "several write at once"),
        (("json", "float32", "same"), 49, "float32: fast-forward"),
        (("json", "int8", "forced"), 0, "int8: fast-forward"),
        (("greedy", "bfloat16", "divergences", 0, "near"), False, "bfloat16: greedy"),
    ],
)
def test_what_does_not_hold_fails_alone(
    path: tuple[str | int, ...], value: float, check: str
) -> None:
    """Issue 5: each limit is a line of its own."""
    record = passing()
    place: Any = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert [one.name.startswith(check) for one in checks(record) if not one.passed] == [True]


def test_any_divergence_in_float32_fails() -> None:
    """Issue 5: a near tie is an excuse in bfloat16 only."""
    record = passing()
    record["greedy"]["float32"] = record["greedy"]["bfloat16"]
    failed = [one.name for one in checks(record) if not one.passed]
    assert failed == ["float32: greedy text is that of generate"]


def test_the_table_has_every_row_and_every_divergence(ran: Ran) -> None:
    """Issue 5: what is printed is what the file has."""
    record = ran.record | {"greedy": passing()["greedy"]}
    printed = list(lines(record))
    assert sum(line.startswith(("float32 ", "bfloat16 ", "int")) for line in printed) == 20
    assert (
        "bfloat16, prompt 0: leaves generate's text at token 9, gap 0.2500 = 4.0 steps" in printed
    )


def test_the_text_is_the_same_each_time_and_nothing_held_out_is_trained_on() -> None:
    """Issue 5: text found on the machine, the same documents held out on every one."""
    corpus = read_corpus(600_000)
    assert corpus == read_corpus(600_000)
    assert corpus.key() == read_corpus(600_000).key() != read_corpus(200_000).key()
    assert corpus.held_out
    assert not set(corpus.held_out) & set(corpus.train)
    assert 600_000 <= sum(map(len, (*corpus.train, *corpus.held_out))) < 900_000
    # Prose of `help`, not the source that holds it.
    assert any(text.startswith("The ") for text in corpus.train)
