"""The tables of `bench.cpu`: medians over the rounds, ratios, and the distance to the ceilings.

Plain arithmetic on what the processes reported; measures nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.cpu.ceilings import WEIGHT_BYTES, decode_bytes, prefill_operations
from bench.cpu.checkpoint import Shape

MEDIANS = (
    "prompt_tokens",
    "new_tokens",
    "first_token_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "total_s",
    "peak_bytes",
    "loaded_bytes",
)
USERS_MEDIANS = (
    "decode_tokens_per_s",
    "by_one_user",
    "stall_s",
    "newcomer_first_token_s",
    "beside_tokens_per_s",
    "peak_bytes",
)
NONE = "-"
# Above this the numbers are those of a busy machine, and the table says so.
OTHERS_SHARE = 0.05

Row = dict[str, Any]


def summarize(shape: Shape, runs: Sequence[Row], ceilings: Sequence[Row]) -> dict[str, Any]:
    """Return the ceilings and a row for each variant, in order of first appearance.

    A variant that failed in one round keeps the medians of the others, and its message.
    """
    machine = best_of(ceilings)
    rows = {name: _row(name, runs) for name in dict.fromkeys(run["variant"] for run in runs)}
    for row in rows.values():
        if row["rounds"]:
            row |= _shares(shape, row, machine)
            for peer in ("plan", "llama"):
                row |= _ratios(row, rows.get(peer), peer)
    return {"ceilings": machine, "rows": list(rows.values())}


def best_of(ceilings: Sequence[Row]) -> Row:
    """Return the highest of each ceiling over the rounds; what is no number is the first one's."""
    found: Row = {}
    for key, value in ceilings[0].items() if ceilings else ():
        rates = isinstance(value, float)
        found[key] = max(one[key] for one in ceilings) if rates else value
    return found


def _row(name: str, runs: Iterable[Row]) -> Row:
    own = [run for run in runs if run["variant"] == name]
    good = [run for run in own if run["available"]]
    row: Row = {"variant": name, "rounds": len(good)}
    row |= {key: statistics.median(run[key] for run in good) for key in MEDIANS if good}
    if good:
        row["first_load_s"], row["last_load_s"] = good[0]["load_s"], good[-1]["load_s"]
        row |= {key: good[0].get(key) for key in ("weights", "grammar", "weights_reason")}
        row["others_share"] = max(run.get("others_share", 0.0) for run in good)
        row |= _users([run["users"] for run in good if "users" in run])
    messages = [run["message"] for run in own if not run["available"]]
    if messages:
        row["message"] = messages[0]
    return row


def _users(own: Sequence[Row]) -> Row:
    """Return the medians of the rounds with several users; None where no round has a number."""
    if not own:
        return {}
    found: Row = {"users": own[0]["users"]}
    for key in USERS_MEDIANS:
        values = [one[key] for one in own if one.get(key) is not None]
        found[key] = statistics.median(values) if values else None
    messages = [one["message"] for one in own if one.get("message")]
    found["message"] = messages[0] if messages else None
    return {"users": found}


def _shares(shape: Shape, row: Row, machine: Row) -> Row:
    """Return bytes/s and operations/s, and how much of the ceilings that is."""
    prompt = int(row["prompt_tokens"])
    operations_per_s = prefill_operations(shape, prompt) / row["first_token_s"]
    found: Row = {
        "prefill_operations_per_s": operations_per_s,
        "prefill_share": operations_per_s / matrix_rate(machine) if machine else None,
        "decode_share": None,
    }
    if row["weights"] in WEIGHT_BYTES:
        step_bytes = decode_bytes(shape, row["weights"], prompt + row["new_tokens"] / 2)
        found["decode_bytes_per_s"] = step_bytes * row["decode_tokens_per_s"]
        if machine:
            found["decode_share"] = found["decode_bytes_per_s"] / bandwidth(machine)
    return found


def bandwidth(machine: Mapping[str, Any]) -> float:
    """Return the bytes/s that count as 100 %: a decode step reads, but a copy may be faster."""
    return float(max(machine["copy_bytes_per_s"], machine["read_bytes_per_s"]))


def matrix_rate(machine: Mapping[str, Any]) -> float:
    """Return the operations/s that count as 100 %: the faster of int8 and bfloat16."""
    return float(max(machine["int8_operations_per_s"], machine["bfloat16_operations_per_s"]))


def _ratios(row: Row, peer: Row | None, name: str) -> Row:
    """Return how many times faster than the peer the row is; above 1 is better."""
    if peer is None or not peer["rounds"]:
        return {}
    return {
        f"first_token_by_{name}": peer["first_token_s"] / row["first_token_s"],
        f"decode_by_{name}": row["decode_tokens_per_s"] / peer["decode_tokens_per_s"],
    }


def lines(title: str, summary: Mapping[str, Any]) -> list[str]:
    """Return the tables as text."""
    rows = [row for row in summary["rows"] if row["rounds"]]
    found = [title, ""]
    found.append(
        f"{'':12}{'load s':>15}{'first':>9}{'prefill':>9}{'decode':>9}{'tokens':>14}{'peak':>8}"
    )
    found.append(
        f"{'':12}{'first':>8}{'last':>7}{'token s':>9}{'tok/s':>9}{'tok/s':>9}"
        f"{'in':>8}{'out':>6}{'GB':>8}"
    )
    found += [
        f"{row['variant']:12}{row['first_load_s']:8.1f}{row['last_load_s']:7.1f}"
        f"{row['first_token_s']:9.2f}{row['prefill_tokens_per_s']:9.1f}"
        f"{row['decode_tokens_per_s']:9.2f}{row['prompt_tokens']:8.0f}{row['new_tokens']:6.0f}"
        f"{row['peak_bytes'] / 1e9:8.2f}"
        for row in rows
    ]
    found.append("")
    found.append(f"{'':12}{'times the plan':>18}{'times llama.cpp':>18}{'of the ceiling':>18}")
    found.append(
        f"{'':12}{'first':>9}{'decode':>9}{'first':>9}{'decode':>9}{'prefill':>9}{'decode':>9}"
    )
    found += [_ratio_line(row) for row in rows]
    found += [
        f"{row['variant']:12}not available: {row['message']}"
        for row in summary["rows"]
        if "message" in row
    ]
    found += _users_lines([row for row in rows if "users" in row])
    busy = [row for row in rows if row["others_share"] > OTHERS_SHARE]
    if busy:
        shares = ", ".join(f"{row['variant']} {row['others_share']:.0%}" for row in busy)
        found += ["", f"THE MACHINE WAS BUSY: others used so much of its cores: {shares}"]
    if summary["ceilings"]:
        found += ["", *_ceiling_lines(summary["ceilings"])]
    return found


def _ratio_line(row: Row) -> str:
    names = ("first_token_by_plan", "decode_by_plan", "first_token_by_llama", "decode_by_llama")
    ratios = "".join(f"{row[name]:9.2f}" if name in row else f"{NONE:>9}" for name in names)
    shares = (row["prefill_share"], row["decode_share"])
    return f"{row['variant']:12}{ratios}" + "".join(
        f"{NONE:>9}" if share is None else f"{share:9.1%}" for share in shares
    )


def _users_lines(rows: Sequence[Row]) -> list[str]:
    """Return the table of several users, if there were several."""
    if not rows:
        return []
    found = ["", f"{rows[0]['users']['users']} users at once"]
    found.append(f"{'':12}{'decode tok/s':>27}{'while a newcomer is read':>30}{'peak':>8}")
    heads = f"{'one':>9}{'all':>9}{'times':>9}{'stall s':>9}{'first s':>10}{'tok/s':>11}{'GB':>8}"
    found.append(f"{'':12}{heads}")
    for row in rows:
        users = row["users"]
        if any(users[key] is not None for key in USERS_MEDIANS):
            peak_bytes = users["peak_bytes"]
            found.append(
                f"{row['variant']:12}{row['decode_tokens_per_s']:9.2f}"
                f"{_number(users['decode_tokens_per_s'], 9)}{_number(users['by_one_user'], 9)}"
                f"{_number(users['stall_s'], 9)}{_number(users['newcomer_first_token_s'], 10)}"
                f"{_number(users['beside_tokens_per_s'], 11)}"
                f"{_number(None if peak_bytes is None else peak_bytes / 1e9, 8)}"
            )
        if users["message"]:
            found.append(f"{row['variant']:12}{users['message']}")
    return found


def _number(value: float | None, width: int) -> str:
    return f"{NONE:>{width}}" if value is None else f"{value:{width}.2f}"


def _ceiling_lines(machine: Mapping[str, Any]) -> list[str]:
    rates = " ".join(
        f"{name} {machine[f'{name}_operations_per_s'] / 1e9:.0f}"
        for name in ("int8", "bfloat16", "float32")
    )
    return [
        f"ceilings ({machine['threads']} threads, {machine['capability']}): memory GB/s copy "
        f"{machine['copy_bytes_per_s'] / 1e9:.1f} read {machine['read_bytes_per_s'] / 1e9:.1f}; "
        f"matrices, 10^9 operations/s: {rates}"
    ]
