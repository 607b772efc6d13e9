"""llama.cpp on a file of the same shape, through llama-cpp-python.

Runs in the environment of `make bench-peers`. Its prompt has as many tokens as the others', but
arbitrary ones, and there is no grammar: the file's vocabulary means nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bench.cpu.task import (
    SEED,
    TEMPERATURE,
    WARM_UP_PROMPT_TOKENS,
    NotAvailable,
    Task,
    Timing,
)

CONTEXT_TOKENS = 4096


def llama(task: Task, *, flash_attention: bool) -> dict[str, Any]:
    """Run llama.cpp on a file of the same shape; the tokens of its prompt are arbitrary."""
    try:
        import llama_cpp
    except ImportError as exc:
        raise NotAvailable("llama-cpp-python is not installed: make bench-peers") from exc

    started_s = time.perf_counter()
    model = llama_cpp.Llama(
        str(task.model),
        n_ctx=CONTEXT_TOKENS,
        n_threads=task.threads,
        n_threads_batch=task.threads,
        flash_attn=flash_attention,
        logits_all=False,
        seed=SEED,
        # What it prints is the only reason it gives when a file cannot be read.
        verbose=True,
    )
    load_s = time.perf_counter() - started_s
    ids = _arbitrary_ids(task.prompt_tokens, model.n_vocab())
    _llama_once(model, ids[:WARM_UP_PROMPT_TOKENS], 2)
    timing = _llama_once(model, ids, task.new_tokens)
    return timing.rates() | {
        "load_s": load_s,
        "grammar": False,
        "weights": "q4_0",
        "loaded_bytes": task.model.stat().st_size,
        "flash_attention": flash_attention,
        "versions": {"llama-cpp-python": llama_cpp.__version__},
    }


def _llama_once(model: Any, ids: Sequence[int], new_tokens: int) -> Timing:
    model.reset()
    started_s = time.perf_counter()
    model.eval(ids)
    token = model.sample(temp=TEMPERATURE)
    first_s = time.perf_counter()
    for _ in range(new_tokens - 1):
        model.eval([token])
        token = model.sample(temp=TEMPERATURE)
    return Timing(started_s, first_s, time.perf_counter(), len(ids), new_tokens)


def _arbitrary_ids(count: int, vocabulary: int) -> list[int]:
    first_word = min(300, vocabulary // 2)
    return [first_word + place * 7919 % (vocabulary - first_word) for place in range(count)]
