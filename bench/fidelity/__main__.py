"""What weight formats and the server's own path cost in quality, against float32.

Trains a small Phi-3 on the standard library's sources and help (the checkpoint is kept and used
again), then reads held-out text with each weight format: by transformers' plain forward (the
weights alone), and through the server's own loop (cache, attention, kept prompts, several at once,
forced tokens). Compares greedy text with that of `generate`. Prints a table and what must hold;
the exit status is 1 if something does not. `bench/README.md` says how to read it.

    python -m bench.fidelity [--quick] [--formats int8,int4] [--steps 800 | --minutes 6] [--retrain]
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import platform
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.fidelity.table import EXACT, checks, lines
from bench.fidelity.training import Corpus, Training, joined_ids, read_corpus, trained

if TYPE_CHECKING:
    from bench.fidelity.formats import Loading
    from bench.fidelity.scores import Window

FOLDER = Path("bench/out/fidelity")
QUICK = Training(
    **{"layers": 2, "hidden": 128, "intermediate": 256, "heads": 2, "entries": 1024},
    **{"steps": 60, "text_bytes": 1_000_000},
)
# `row_tokens`: of each window so many are read row by row, behind a prompt.
SIZES = {
    **{"windows": 24, "path_windows": 16, "row_tokens": 96, "prompts": 20},
    **{"json_texts": 6, "json_tokens": 200},
}
QUICK_SIZES = {
    **{"windows": 4, "path_windows": 4, "row_tokens": 32, "prompts": 3},
    **{"json_texts": 1, "json_tokens": 100},
}
GREEDY = (EXACT, "bfloat16")
NEW_TOKENS = 64
JSON_PROMPT_TOKENS = 300


def options(arguments: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a toy, trained for seconds")
    parser.add_argument("--formats", help="all that the server knows if left out")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="of training, 2,048 tokens each")
    length.add_argument("--minutes", type=float, help="of training, instead of steps")
    parser.add_argument("--retrain", action="store_true", help="also if there is a checkpoint")
    parser.add_argument("--windows", type=int, help="held-out texts; 24, or 4 if quick")
    parser.add_argument("--path-windows", type=int, help="of them through the loop; 16 or 4")
    parser.add_argument("--prompts", type=int, help="whose greedy text is compared; 20 or 3")
    parser.add_argument("--damage", metavar="LAYER", help="double this layer in int8 and int4")
    parser.add_argument("--torch", action="store_true", help="no kernels of our own")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for the checkpoint")
    parser.add_argument("--out", type=Path, default=FOLDER.with_suffix(".json"))
    chosen = parser.parse_args(arguments)
    sizes = QUICK_SIZES if chosen.quick else SIZES
    for name, size in sizes.items():
        if getattr(chosen, name, None) is None:
            setattr(chosen, name, size)
    return chosen


def training_of(chosen: argparse.Namespace) -> Training:
    """Return what is trained."""
    training = QUICK if chosen.quick else Training()
    if chosen.minutes:
        return replace(training, minutes=chosen.minutes)
    return replace(training, steps=chosen.steps or training.steps)


def windows_of(chosen: argparse.Namespace, corpus: Corpus, loading: Loading) -> list[Window]:
    """Return the held-out texts with their float32 logits."""
    from bench.fidelity.formats import load
    from bench.fidelity.path import PROMPT_TOKENS
    from bench.fidelity.scores import Window, cut, forward

    model, tokenizer = load(loading, EXACT)
    ids = joined_ids(tokenizer, corpus.held_out)
    parts = cut(ids, count=chosen.windows, tokens=PROMPT_TOKENS + chosen.row_tokens)
    return [Window(part, forward(model, part)) for part in parts]


def prompts_of(windows: list[Window], count: int) -> list[list[int]]:
    """Return beginnings of held-out texts, from a few tokens to more than are read at once."""
    few, most = 24, len(windows[0].ids) - 16
    step = (most - few) // max(1, count - 1)
    return [windows[at % len(windows)].ids[: few + at * step] for at in range(count)]


def measure(
    variant: str, chosen: argparse.Namespace, loading: Loading, windows: list[Window]
) -> dict[str, Any]:
    """Return what one format gives: rows, JSON, and greedy texts where those are compared."""
    from app.engine.prompting.fit import end_ids
    from app.engine.structured.vocabulary import Vocabulary
    from bench.fidelity.formats import damage, load
    from bench.fidelity.loop import loop_of
    from bench.fidelity.path import fast_forward, greedy, read
    from bench.fidelity.scores import Comparison, forward

    model, tokenizer = load(loading, variant)
    if chosen.damage and variant.startswith("int"):
        damage(model, chosen.damage)
    plain = Comparison()
    for window in windows:
        plain.add_window(window, forward(model, window.ids))
    ends = end_ids(model, tokenizer)
    # From here on the model's attention is the loop's.
    decoder = loop_of(model)
    rows = [{"how": "forward"} | plain.row(), *read(decoder, windows[: chosen.path_windows])]
    vocabulary = Vocabulary(tokenizer, ends)
    forced = fast_forward(
        decoder,
        vocabulary,
        [window.ids[:JSON_PROMPT_TOKENS] for window in windows[: chosen.json_texts]],
        max_tokens=chosen.json_tokens,
        spell=tokenizer.decode,
    )
    found: dict[str, Any] = {"rows": rows, "json": forced}
    if variant in GREEDY:
        prompts = prompts_of(windows, chosen.prompts)
        found["greedy"] = greedy(decoder, prompts, max_tokens=NEW_TOKENS, eos_ids=ends)
    return found


def compare_greedy(
    texts: dict[str, list[list[int]]], loading: Loading, prompts: list[list[int]]
) -> dict[str, Any]:
    """Return the loop's greedy texts against those of `generate` in the same format.

    `between`: those of `generate` in the one format against those in the other.
    """
    from app.engine.prompting.fit import end_ids
    from bench.fidelity.formats import load
    from bench.fidelity.generate import compare, generated

    references = {}
    for name in texts:
        # A copy of its own, for which no loop was made: it has transformers' cache and attention.
        model, tokenizer = load(loading, name)
        ends = end_ids(model, tokenizer)
        references[name] = [
            generated(model, prompt, max_tokens=NEW_TOKENS, eos_ids=ends) for prompt in prompts
        ]
    exact, other = (references.get(name) for name in GREEDY)
    return {
        "greedy": {name: compare(found, references[name]) for name, found in texts.items()},
        "between": compare([one.tokens for one in other], exact) if exact and other else None,
    }


def title_of(chosen: argparse.Namespace, about: dict[str, Any], exact: float) -> str:
    """Return what was measured, in words."""
    shape, text = about["settings"], about["text"]
    kind = "QUICK, a toy that has learnt next to nothing: " if chosen.quick else ""
    if chosen.damage:
        kind += f"DAMAGED, {chosen.damage} twice as large: "
    million = 1e6
    return (
        f"{kind}a Phi-3 of {about['parameters'] / million:.1f} million parameters\n"
        f"  {shape['layers']} layers, hidden {shape['hidden']}, sliding window {shape['window']}; "
        f"trained on {about['tokens'] / million:.2f} million tokens in {about['seconds']:.0f} s\n"
        f"text: the standard library of Python {platform.python_version()}, "
        f"{text['train_chars'] / million:.1f} million characters to train on, "
        f"{text['held_out_chars'] / million:.2f} held out\n"
        f"perplexity in float32: {exact:.2f}"
    )


def measure_all(chosen: argparse.Namespace, packed: Path) -> dict[str, Any]:
    """Train if need be, measure every format, and return the record."""
    from app.engine.quantized.kernels import find_kernels
    from bench.fidelity.formats import Loading, variants

    names = variants(chosen.formats.split(",") if chosen.formats else None)
    training = training_of(chosen)
    corpus = read_corpus(training.text_bytes)
    folder = trained(training, corpus, chosen.folder, threads=chosen.threads, again=chosen.retrain)
    loading = Loading(folder, packed, chosen.threads, find_kernels(native=not chosen.torch))
    windows = windows_of(chosen, corpus, loading)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        found[name] = measure(name, chosen, loading, windows)
        print(f"{name}: perplexity {found[name]['rows'][0]['perplexity']:.3f}", file=sys.stderr)
        gc.collect()
    texts = {name: one["greedy"] for name, one in found.items() if "greedy" in one}
    about = json.loads((folder / "training.json").read_text("utf-8"))
    record: dict[str, Any] = {
        "training": about,
        "title": title_of(chosen, about, perplexity(windows)),
        "kernels": asdict(loading.kernels),
        "rows": {name: one["rows"] for name, one in found.items()},
        "json": {name: one["json"] for name, one in found.items()},
        **compare_greedy(texts, loading, prompts_of(windows, chosen.prompts)),
    }
    return record | {"checks": [asdict(one) for one in checks(record)]}


def perplexity(windows: list[Window]) -> float:
    """Return the model's own, in float32."""
    from bench.fidelity.scores import Comparison

    own = Comparison()
    for window in windows:
        own.add_window(window, window.reference)
    return float(own.row()["perplexity"])


def main(arguments: list[str]) -> int:
    import structlog

    chosen = options(arguments)
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    with tempfile.TemporaryDirectory() as packed:
        record = measure_all(chosen, Path(packed))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=1))
    print("\n".join(lines(record)))
    print(f"\nall numbers: {chosen.out}")
    return 0 if all(one["passed"] for one in record["checks"]) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
