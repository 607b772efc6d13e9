"""Whose tokens the decoder's next step computes, and how many of each. Nothing is computed here."""

from __future__ import annotations

from collections import abc

from app.engine.decoding.limits import ALONE_TOKENS, MAX_PROPOSED, ChunkSizer
from app.engine.decoding.sequence import Sequence

# Sequences and how many of their tokens, proposed ones included; the one in prefill comes last.
Plan = list[tuple[Sequence, int]]


def plan_step(
    running: abc.Sequence[Sequence], chunk_sizer: ChunkSizer, *, cheap_rows: int
) -> tuple[Plan, int | None]:
    """Return what a step computes, and the most rows of its prefill chunk; None without a prefill.

    Tokens are proposed for every decoding sequence as far as rows are cheap, and only in a step
    without a prefill: beside a chunk each row costs what one of the chunk's does.
    """
    decoding = [one for one in running if not one.in_prefill]
    prefill = next((one for one in running if one.in_prefill), None)
    spare = cheap_rows - sum(one.uncomputed for one in decoding) if prefill is None else 0
    each = min(MAX_PROPOSED, spare // max(1, len(decoding)))
    for one in decoding:
        most = min(each, one.max_tokens - one.new_tokens - 1)
        one.proposed = one.lookup.propose(one.ids, most) if most > 0 else []
    plan = [(one, one.uncomputed + len(one.proposed)) for one in decoding]
    if prefill is None:
        return plan, None
    chunk_rows = chunk_sizer.rows() if decoding else ALONE_TOKENS
    return [*plan, (prefill, min(prefill.uncomputed, chunk_rows))], chunk_rows
