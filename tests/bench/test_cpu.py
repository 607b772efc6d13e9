"""`bench.cpu` as one runs it, on a shape so small that only what it says about itself is tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.cpu.__main__ import options
from bench.cpu.ceilings import decode_bytes, prefill_operations
from bench.cpu.checkpoint import Shape, article
from bench.cpu.gguf_file import Q4_0, Q6_K, blocks
from bench.cpu.table import lines, summarize

# Several processes import torch, one after the other.
pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
TOY = ("--layers", "2", "--hidden", "64", "--intermediate", "128", "--heads", "2")
TOY_SHAPE = Shape(2, 64, 128, 2, 600)
PROMPT_TOKENS = 150
NEW_TOKENS = 48
USERS = 3
# Enough for all to write at the same time, however late one of them begins.
USERS_NEW_TOKENS = 400


def bench(*options: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command on the toy shape, all its files in `folder`."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "bench.cpu", *TOY, *options),
            *("--folder", str(folder), "--out", str(folder / "cpu.json")),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What one run of the command printed, and the file that it wrote."""
    folder = tmp_path_factory.mktemp("bench")
    shown = bench(
        *("--vocabulary", "600", "--rounds", "1", "--formats", "bfloat16,float3"),
        *("--prompt-tokens", str(PROMPT_TOKENS), "--new-tokens", str(NEW_TOKENS)),
        *("--users", str(USERS), "--users-new-tokens", str(USERS_NEW_TOKENS)),
        *("--copy-bytes", str(1 << 22), "--ceiling-s", "0.05", "--threads", "1"),
        *("--peers-python", str(folder / "none")),
        folder=folder,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout, json.loads((folder / "cpu.json").read_text())


def test_every_variant_reads_the_prompt_and_uses_the_budget(
    ran: tuple[str, dict[str, Any]],
) -> None:
    """Issue 5: the plan and Precis do the same work, and the counts are those of the model."""
    rows = {row["variant"]: row for row in ran[1]["summary"]["rows"]}
    for name in ("plan", "bfloat16"):
        row = rows[name]
        assert PROMPT_TOKENS - 2 <= row["prompt_tokens"] <= PROMPT_TOKENS
        # Strings end where people end them, so that some of the budget is left; rates are by token.
        assert NEW_TOKENS // 2 <= row["new_tokens"] <= NEW_TOKENS
        assert row["prompt_tokens"] == rows["plan"]["prompt_tokens"]
        assert row["grammar"] is True
        assert row["peak_bytes"] > 100_000_000
    assert rows["plan"]["weights"] == "float32"
    assert rows["bfloat16"]["weights"] == "bfloat16"
    # Beside the weights there are only the tables of the rotary embedding.
    assert 0 <= rows["bfloat16"]["loaded_bytes"] - TOY_SHAPE.elements * 2 < 1000


def test_the_rates_and_ratios_follow_from_the_moments(ran: tuple[str, dict[str, Any]]) -> None:
    """Issue 5: what is printed can be computed from what each process reported."""
    record = ran[1]
    rows = {row["variant"]: row for row in record["summary"]["rows"]}
    for run in record["runs"]:
        if run["available"]:
            decode_s = run["total_s"] - run["first_token_s"]
            assert run["prefill_tokens_per_s"] * run["first_token_s"] == pytest.approx(
                run["prompt_tokens"]
            )
            assert run["decode_tokens_per_s"] * decode_s == pytest.approx(run["new_tokens"] - 1)
    plan, own = rows["plan"], rows["bfloat16"]
    assert own["first_token_by_plan"] == pytest.approx(plan["first_token_s"] / own["first_token_s"])
    assert own["decode_by_plan"] == pytest.approx(
        own["decode_tokens_per_s"] / plan["decode_tokens_per_s"]
    )
    machine = record["summary"]["ceilings"]
    bandwidth = max(machine["copy_bytes_per_s"], machine["read_bytes_per_s"])
    assert own["decode_share"] == pytest.approx(own["decode_bytes_per_s"] / bandwidth)


def test_what_cannot_run_is_named_and_stops_nothing(ran: tuple[str, dict[str, Any]]) -> None:
    """Issue 5: a format that the server refuses, and a peer that is not installed."""
    printed, record = ran
    rows = {row["variant"]: row for row in record["summary"]["rows"]}
    assert "weights_unsupported" in rows["float3"]["message"]
    assert "make bench-peers" in rows["llama"]["message"]
    assert printed.count("not available: ") == 2
    assert "a toy shape, for tests" in printed.splitlines()[0]
    assert "first_token_by_llama" not in rows["bfloat16"]


def test_a_process_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    """Issue 5: errors of a variant are shown."""
    shown = bench("--vocabulary", "200", folder=tmp_path)
    assert shown.returncode == 1
    assert "The tokenizer has 261 entries, the vocabulary 200 rows." in shown.stderr


def test_a_round_that_failed_leaves_the_others_and_a_busy_machine_is_told() -> None:
    """Issue 5: medians are over the rounds that ended, and the failure is told."""
    run = {
        **{"variant": "plan", "available": True, "load_s": 2.0, "weights": "float32"},
        **{"prompt_tokens": 100, "new_tokens": 10, "first_token_s": 2.0, "total_s": 3.0},
        **{"prefill_tokens_per_s": 50.0, "decode_tokens_per_s": 9.0},
        **{"peak_bytes": 10**9, "loaded_bytes": 10**9},
    }
    slower = run | {"first_token_s": 4.0, "load_s": 1.0}
    failed = {"variant": "plan", "available": False, "message": "ended with status -9"}
    summary = summarize(TOY_SHAPE, [run, failed, slower], [])
    row = summary["rows"][0]
    assert (row["rounds"], row["first_token_s"]) == (2, 3.0)
    assert (row["first_load_s"], row["last_load_s"]) == (2.0, 1.0)
    told = lines("title", summary)
    assert "plan        not available: ended with status -9" in told
    assert not any("BUSY" in line for line in told)
    busy = summarize(TOY_SHAPE, [run | {"others_share": 0.4}, slower], [])
    assert any("BUSY" in line and "plan 40%" in line for line in lines("title", busy))


def test_the_demands_of_the_full_shape_are_those_of_phi_3_mini() -> None:
    """Issue 5: 3.8e9 weights; a decode step in float32 reads 15 GB, and its cache."""
    shape = Shape()
    assert shape.elements == 3_821_079_552
    weights = (shape.elements - shape.head_elements) * 4
    cache = 2 * 32 * 3072 * 1000 * 4
    assert decode_bytes(shape, "float32", 1000) == pytest.approx(weights + cache, rel=1e-4)
    assert decode_bytes(shape, "float32", 4000) == decode_bytes(shape, "float32", 2047)
    assert prefill_operations(shape, 1) == pytest.approx(2 * 3.72e9, rel=0.01)


def test_the_prompt_has_the_length_that_was_asked_for() -> None:
    """Issue 5: a prompt of 2,560 tokens, whatever the tokenizer."""
    for tokens in (20, 2560):
        assert len(article(tokens, lambda text: len(text.split())).split()) == tokens


@pytest.mark.parametrize(("block", "width"), [(Q4_0, 512 // 32 * 18), (Q6_K, 512 // 256 * 210)])
def test_blocks_have_the_size_of_llama_cpp_and_small_weights(
    block: tuple[int, int, int], width: int
) -> None:
    """Issue 5: the peer's file is made of random blocks; a scale that overflows makes it slow."""
    made = blocks(3, 512, block, np.random.default_rng(0))
    assert made.shape == (3, width)
    scales = made.reshape(-1, block[1])[:, block[2] : block[2] + 2].copy().view(np.float16)
    assert ((scales > 0) & (scales < 0.01)).all()
    with pytest.raises(ValueError, match="no whole number"):
        blocks(3, 500, block, np.random.default_rng(0))


def test_several_users_write_at_once_behind_the_prompt_of_the_one(
    ran: tuple[str, dict[str, Any]],
) -> None:
    """Issue 5, four users at once: the rate and its ratio follow from counts of one interval."""
    run = next(run for run in ran[1]["runs"] if run["variant"] == "bfloat16")
    users = run["users"]
    assert (users["available"], users["users"], users["message"]) == (True, USERS, None)
    assert len(users["new_tokens"]) == len(users["first_token_s"]) == USERS
    assert all(0 < tokens <= USERS_NEW_TOKENS for tokens in users["new_tokens"])
    assert USERS < users["tokens"] <= sum(users["new_tokens"])
    assert users["decode_tokens_per_s"] * users["interval_s"] == pytest.approx(users["tokens"])
    assert users["by_one_user"] == pytest.approx(
        users["decode_tokens_per_s"] / run["decode_tokens_per_s"]
    )


def test_a_newcomer_reads_a_whole_prompt_beside_a_stream(ran: tuple[str, dict[str, Any]]) -> None:
    """Issue 5, no stall above 2 s: the longest of the gaps that the newcomer's wait touches."""
    users = next(run for run in ran[1]["runs"] if run["variant"] == "bfloat16")["users"]
    assert users["stall_s"] == max(users["gaps_s"])
    assert sum(users["gaps_s"]) >= users["newcomer_first_token_s"] > 0
    assert users["beside_tokens_per_s"] > 0


def test_memory_is_told_for_each_part(ran: tuple[str, dict[str, Any]]) -> None:
    """Issue 5: what several users take is not in the peak of the one."""
    runs = {run["variant"]: run for run in ran[1]["runs"]}
    run = runs["bfloat16"]
    assert run["load_peak_bytes"] <= run["peak_bytes"]
    assert run["users"]["peak_bytes"] > TOY_SHAPE.elements * 2
    assert "load_peak_bytes" not in runs["plan"]


def test_the_table_of_users_names_who_serves_one_at_a_time(
    ran: tuple[str, dict[str, Any]],
) -> None:
    """Issue 5: no number is made up for what has no batch."""
    printed = ran[0].splitlines()
    assert f"then {USERS} users of {USERS_NEW_TOKENS} new each" in printed[0]
    table = printed[printed.index(f"{USERS} users at once") :]
    assert "plan        one at a time" in table
    row = next(line.split() for line in table if line.startswith("bfloat16"))
    assert len(row) == 8


def test_the_one_is_measured_where_memory_is_too_short_for_all(tmp_path: Path) -> None:
    """Issue 5: the server's own check refuses so many, and the figures of the one stay."""
    shown = bench(
        *("--vocabulary", "600", "--rounds", "1", "--variants", "precis", "--formats", "bfloat16"),
        *("--prompt-tokens", "100", "--new-tokens", str(NEW_TOKENS), "--users", "1000000"),
        *("--copy-bytes", str(1 << 22), "--ceiling-s", "0.05", "--threads", "1"),
        folder=tmp_path,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    record = json.loads((tmp_path / "cpu.json").read_text())
    users = record["runs"][0]["users"]
    assert users["message"].startswith("there is memory for ")
    assert record["summary"]["rows"][0]["decode_tokens_per_s"] > 0
    assert f"bfloat16    {users['message']}" in shown.stdout.splitlines()


def test_users_are_at_least_one_and_write_as_much_as_the_one() -> None:
    """Issue 5: --users and its default budget."""
    chosen = options(["--new-tokens", "99"])
    assert (chosen.users, chosen.users_new_tokens) == (1, 99)
    for refused in (["--users", "0"], ["--users-new-tokens", "4000"]):
        with pytest.raises(SystemExit):
            options(refused)
