"""How fast a Phi-3-mini runs on this machine's CPU: the plan, Precis in each format, llama.cpp.

Makes a checkpoint of the full shape with random weights (speed and memory do not depend on them),
then runs every variant in a process of its own on the same cores, one after the other, and that
`--rounds` times over. Prints medians, the ratios to the plan and to llama.cpp, and how far prefill
and decode are from what the machine can do; `bench/README.md` says how to read it.

    python -m bench.cpu [--quick] [--rounds 2] [--variants plan,precis,llama] [--formats int8,int4]
        [--users 4]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.cpu.checkpoint import Shape, make_checkpoint
from bench.cpu.llama import CONTEXT_TOKENS
from bench.cpu.process import run
from bench.cpu.table import lines, summarize
from bench.cpu.task import NotAvailable, Task
from bench.cpu.variants import measure

FOLDER = Path("bench/out")
PEERS = Path(".venv-peers/bin/python")
GROUPS = ("plan", "precis", "llama", "llama-flash")
QUICK_LAYERS = 4
FULL_LAYERS = Shape().layers
# Beside weights and cache: the process itself and llama.cpp's buffers for a batch.
LLAMA_OTHER_BYTES = 500_000_000


def options(arguments: list[str]) -> argparse.Namespace:
    """Return the options; the hidden ones are for tests and for the processes started here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="4 layers instead of 32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--prompt-tokens", type=int, default=2560)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--variants", default="plan,precis,llama", help=", ".join(GROUPS))
    parser.add_argument("--formats", help="of Precis; all that the server knows if left out")
    parser.add_argument("--users", type=int, default=1, help="of Precis, at once, after the one")
    parser.add_argument("--users-new-tokens", type=int, help="of each; as --new-tokens if left out")
    parser.add_argument("--tokenizer", help="folder of a real one, instead of one made up")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for weights, up to 25 GB")
    parser.add_argument("--out", type=Path, default=FOLDER / "cpu.json")
    parser.add_argument("--peers-python", type=Path, default=PEERS, help="see make bench-peers")
    parser.add_argument("--timeout-s", type=float, default=3600, help="for one process")
    parser.add_argument("--variant", help="measure this one here and print one line of JSON")
    for name in ("layers", "hidden", "intermediate", "heads", "vocabulary"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--copy-bytes", type=int, default=1 << 30, help=argparse.SUPPRESS)
    parser.add_argument("--ceiling-s", type=float, default=1.0, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.variants.split(",")) - set(GROUPS)
    if unknown:
        parser.error(f"unknown variants: {', '.join(sorted(unknown))}")
    if chosen.users < 1:
        parser.error("there is at least one user")
    chosen.users_new_tokens = chosen.users_new_tokens or chosen.new_tokens
    if chosen.prompt_tokens + max(chosen.new_tokens, chosen.users_new_tokens) > CONTEXT_TOKENS:
        parser.error(f"the context holds {CONTEXT_TOKENS} tokens")
    return chosen


def shape_of(chosen: argparse.Namespace) -> Shape:
    """Return the shape that is measured."""
    own = Shape()
    return Shape(
        layers=chosen.layers or (QUICK_LAYERS if chosen.quick else own.layers),
        hidden=chosen.hidden or own.hidden,
        intermediate=chosen.intermediate or own.intermediate,
        heads=chosen.heads or own.heads,
        vocabulary=chosen.vocabulary or own.vocabulary,
    )


def title_of(chosen: argparse.Namespace, shape: Shape) -> str:
    """Return what was measured, in words; what is not the full shape says so."""
    size = f"{shape.layers} layers, hidden {shape.hidden}, vocabulary {shape.vocabulary}"
    if shape == Shape():
        name = "Phi-3-mini shape"
    elif shape == Shape(layers=shape.layers):
        name = f"QUICK, NOT the whole model: {shape.layers} of its {FULL_LAYERS} layers, unscaled"
    else:
        name = "a toy shape, for tests"
    several = f", then {chosen.users} users of {chosen.users_new_tokens} new each"
    return (
        f"{name} ({size}), prompt {chosen.prompt_tokens} tokens, {chosen.new_tokens} new"
        f"{several if chosen.users > 1 else ''}, "
        f"{chosen.threads} threads, median of {chosen.rounds} rounds"
    )


def variants_of(chosen: argparse.Namespace) -> list[str]:
    """Return the names of what is measured, in order; a format's name means Precis in it."""
    from app.engine.checkpoints.formats import FORMATS

    formats = chosen.formats.split(",") if chosen.formats else [one.name for one in FORMATS]
    found: list[str] = []
    for group in chosen.variants.split(","):
        found += formats if group == "precis" else [group]
    return found


def measure_here(chosen: argparse.Namespace, variant: str) -> dict[str, Any]:
    """Do one process's part: a variant, the ceilings, or the checkpoint."""
    shape = shape_of(chosen)
    if variant == "checkpoint":
        return {"model": str(make_checkpoint(shape, chosen.folder, chosen.tokenizer))}
    if variant == "ceilings":
        from bench.cpu import ceilings

        return ceilings.measure(
            shape,
            threads=chosen.threads,
            copy_bytes=chosen.copy_bytes,
            each_s=chosen.ceiling_s,
        )
    model = chosen.folder / (f"{shape.name}.gguf" if variant.startswith("llama") else shape.name)
    packed = (chosen.folder / "quantized").resolve()
    task = Task(
        model,
        packed,
        chosen.prompt_tokens,
        chosen.new_tokens,
        chosen.threads,
        chosen.users,
        chosen.users_new_tokens,
    )
    return measure(variant, task)


def answer(chosen: argparse.Namespace) -> None:
    """Print one line of JSON: the numbers, or why there are none."""
    if not chosen.variant.startswith("llama"):
        import structlog

        # The server's log lines would go to stdout, which belongs to the answer.
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        found = {"available": True} | measure_here(chosen, chosen.variant)
    except NotAvailable as exc:
        found = {"available": False, "message": str(exc)}
    print(json.dumps({"variant": chosen.variant} | found))


def process(
    chosen: argparse.Namespace, arguments: list[str], variant: str, python: str = sys.executable
) -> dict[str, Any]:
    """Run one part of the work in a process of its own, and return its answer."""
    command = [python, "-m", "bench.cpu", *arguments, "--variant", variant]
    return {"variant": variant} | run(command, timeout_s=chosen.timeout_s)


def refusal(chosen: argparse.Namespace, shape: Shape, variant: str) -> str | None:
    """Return why a variant that does not check its memory itself should not be started, or None."""
    from app.engine.checkpoints.formats import FORMATS, need_bytes
    from app.engine.checkpoints.headers import read_checkpoint
    from app.engine.checkpoints.memory import available_bytes
    from bench.cpu.gguf_file import file_bytes

    if variant == "plan":
        need = need_bytes(
            read_checkpoint(chosen.folder / shape.name),
            FORMATS[0],
            context_tokens=chosen.prompt_tokens + chosen.new_tokens,
            prompt_tokens=chosen.prompt_tokens,
        )
    elif variant.startswith("llama"):
        if not chosen.peers_python.is_file():
            return f"{chosen.peers_python} is not there: make bench-peers"
        cache = 2 * shape.layers * shape.hidden * CONTEXT_TOKENS * 2
        # llama.cpp repacks the weights for the processor beside the mapped file.
        need = 2 * file_bytes(shape) + cache + LLAMA_OTHER_BYTES
    else:
        return None
    room = available_bytes()
    if room is not None and room < need:
        return f"needs {need / 1e9:.1f} GB of memory, {room / 1e9:.1f} GB are available"
    return None


def prepare_gguf(chosen: argparse.Namespace, shape: Shape) -> None:
    """Write llama.cpp's file unless it is there.

    Raises:
        SystemExit: it could not be written.
    """
    file = chosen.folder / f"{shape.name}.gguf"
    if file.is_file() or not chosen.peers_python.is_file():
        return
    sizes = (shape.layers, shape.hidden, shape.intermediate, shape.heads, shape.vocabulary)
    command = [str(chosen.peers_python), "-m", "bench.cpu.gguf_file", str(file), *map(str, sizes)]
    if subprocess.run(command).returncode:
        raise SystemExit("the GGUF file could not be written")


def one(
    chosen: argparse.Namespace, arguments: list[str], shape: Shape, name: str
) -> dict[str, Any]:
    """Measure a variant, or say why not; tell so on stderr, since each may take minutes."""
    if why := refusal(chosen, shape, name):
        result: dict[str, Any] = {"variant": name, "available": False, "message": why}
    else:
        python = str(chosen.peers_python) if name.startswith("llama") else sys.executable
        result = process(chosen, arguments, name, python)
    told = result.get("message") or (
        f"first token {result['first_token_s']:.2f} s, "
        f"then {result['decode_tokens_per_s']:.2f} tokens/s"
    )
    print(f"{name}: {told}", file=sys.stderr)
    return result


def measure_all(chosen: argparse.Namespace, arguments: list[str], shape: Shape) -> dict[str, Any]:
    """Run the rounds and return the record, which is on disk after every process."""
    runs: list[dict[str, Any]] = []
    ceilings: list[dict[str, Any]] = []
    record: dict[str, Any] = {
        "title": title_of(chosen, shape),
        "machine": {"cpu": cpu_name(), "python": platform.python_version()},
        "runs": runs,
        "ceilings": ceilings,
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    for number in range(chosen.rounds):
        ceiling = process(chosen, arguments, "ceilings")
        if ceiling["available"]:
            ceilings.append(ceiling)
        else:
            print(f"ceilings: {ceiling['message']}", file=sys.stderr)
        for name in variants_of(chosen):
            runs.append({"round": number} | one(chosen, arguments, shape, name))
            record["summary"] = summarize(shape, runs, ceilings)
            chosen.out.write_text(json.dumps(record, indent=1))
    return record


def main(arguments: list[str]) -> None:
    chosen = options(arguments)
    if chosen.variant:
        answer(chosen)
        return
    shape = shape_of(chosen)
    made = process(chosen, arguments, "checkpoint")
    if not made["available"]:
        raise SystemExit(f"no checkpoint: {made['message']}")
    if any(name.startswith("llama") for name in variants_of(chosen)):
        prepare_gguf(chosen, shape)
    record = measure_all(chosen, arguments, shape)
    print("\n".join(lines(record["title"], record["summary"])))
    print(f"every round: {chosen.out}")


def cpu_name() -> str:
    """Return the processor's name as the kernel has it."""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main(sys.argv[1:])
