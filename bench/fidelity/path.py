"""A model as the server runs it: through the decoder's loop, its cache, its own attention.

A text is read row by row when only its own token is let through; what the model then thinks of it
is compared with a plain forward. Import it only where the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from app.engine.decoding.decoder import Decoder
from app.engine.decoding.limits import ALONE_TOKENS
from app.engine.decoding.sampling import Processor
from app.engine.structured.grammar import GrammarProcessor
from app.engine.structured.vocabulary import Vocabulary
from bench.fidelity.loop import Choices, Follow, Known, Running
from bench.fidelity.scores import Comparison, Window

# Longer than what is read at once, so that a prompt comes in parts.
PROMPT_TOKENS = ALONE_TOKENS + 64
SIDE_BY_SIDE = (4, 8)
# Shorter, so that all of them write before the first one has ended.
BESIDE_PROMPT_TOKENS = 256
SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 60},
        "points": {
            "type": "array",
            "items": {"type": "string", "maxLength": 60},
            "minItems": 3,
            "maxItems": 3,
        },
        "category": {"enum": ["Technology", "Science", "Business", "Other"]},
        "read_time_min": {"type": "integer", "minimum": 1, "maximum": 60},
    },
    "required": ["title", "points", "category", "read_time_min"],
    "additionalProperties": False,
}

Row = dict[str, Any]


def follow(
    decoder: Decoder,
    window: Window,
    *,
    in_runs: bool = False,
    prompt_tokens: int = PROMPT_TOKENS,
    beside: Sequence[Running] = (),
) -> tuple[Running, Follow]:
    """Begin to read a window: its start as the prompt, what follows token by token or in runs."""
    text = Follow(window.ids)
    running = Running(
        decoder,
        window.ids[:prompt_tokens],
        max_tokens=len(window.ids) - PROMPT_TOKENS,
        processors=[text],
        constraint=Known(window.ids, prompt_tokens) if in_runs else None,
        may_force=in_runs,
        beside=beside,
    )
    return running, text


def read(decoder: Decoder, windows: Sequence[Window]) -> list[Row]:
    """Return a row for each way in which the decoder computes the same text."""
    return [
        *_read_alone(decoder, windows),
        *(_read_together(decoder, windows, size) for size in SIDE_BY_SIDE if size <= len(windows)),
    ]


def _read_alone(decoder: Decoder, windows: Sequence[Window]) -> list[Row]:
    """Read each window three times: its prompt is new, known from before, known and in runs.

    `known`: of how many windows the prompt was known the second time.
    """
    alone, kept, forced = Comparison(), Comparison(), Comparison()
    known = 0
    for window in windows:
        first, text = follow(decoder, window)
        first.wait()
        alone.add_steps(window, text.scores)
        again, text = follow(decoder, window)
        again.wait()
        # Of a prompt that is known there is nothing to tell.
        known += bool(first.shares) and not again.shares
        kept.add_steps(window, text.scores)
        running, text = follow(decoder, window, in_runs=True)
        running.wait()
        forced.add_steps(window, text.scores)
    return [
        {"how": "decoder, alone"} | alone.row(),
        {"how": "decoder, prompt kept"} | kept.row() | {"known": known, "windows": len(windows)},
        {"how": "decoder, forced"} | forced.row(),
    ]


def _read_together(decoder: Decoder, windows: Sequence[Window], size: int) -> Row:
    """Read so many windows at once. `widest`: how many wrote in one step, at most."""
    together = Comparison()
    widest = 0
    for at in range(0, len(windows) - size + 1, size):
        group: list[Running] = []
        texts: list[Follow] = []
        for window in windows[at : at + size]:
            running, text = follow(
                decoder, window, prompt_tokens=BESIDE_PROMPT_TOKENS, beside=group
            )
            group.append(running)
            texts.append(text)
        for window, running, text in zip(windows[at : at + size], group, texts, strict=True):
            running.wait()
            together.add_steps(window, text.scores)
            widest = max(widest, running.widest)
    row = {"how": f"decoder, {size} at once", "size": size, "widest": widest}
    return row | together.row()


def greedy(
    decoder: Decoder, prompts: Iterable[Sequence[int]], *, max_tokens: int, eos_ids: Iterable[int]
) -> list[list[int]]:
    """Return the likeliest text after each prompt."""
    ends = frozenset(eos_ids)
    return [
        Running(decoder, prompt, max_tokens=max_tokens, eos_ids=ends).wait() for prompt in prompts
    ]


def fast_forward(
    decoder: Decoder,
    vocabulary: Vocabulary,
    prompts: Iterable[list[int]],
    *,
    max_tokens: int,
    spell: Callable[[list[int]], str],
) -> Row:
    """Write JSON with tokens that the grammar forces, and look at each choice without forcing.

    `same`: of the tokens that were chosen (`free`), how many would be chosen when the same text
    is computed a row at a time. `equal`: how many of the `texts` are those that are written
    without forcing from the start; a name may then be spelt in other tokens.
    """
    row = {"texts": 0, "equal": 0, "free": 0, "same": 0, "forced": 0}
    for prompt in prompts:

        def write(*more: Processor, prompt: list[int] = prompt, force: bool = False) -> list[int]:
            grammar = GrammarProcessor(vocabulary, SCHEMA, max_tokens=max_tokens)
            return Running(
                decoder,
                prompt,
                max_tokens=max_tokens,
                processors=[grammar, *more],
                eos_ids=vocabulary.eos_ids,
                constraint=grammar,
                may_force=force,
            ).wait()

        chosen, checked = Choices(), Choices()
        tokens = write(chosen, force=True)
        write(checked, Follow([*prompt, *tokens]))
        row["texts"] += 1
        row["equal"] += spell(tokens) == spell(write())
        row["free"] += len(chosen.found)
        row["forced"] += len(tokens) - len(chosen.found)
        row["same"] += sum(checked.found[at] == token for at, token in chosen.found.items())
    return row
