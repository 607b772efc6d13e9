"""Whose tokens the decoder's next step computes, and how many of each. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Sequence

from app.engine.decoding.limits import ALONE_TOKENS, MOST_GUESSED, ChunkSizer
from app.engine.decoding.sequence import Generation

# Generations and how many of their tokens, what they guessed included; who reads comes last.
Plan = list[tuple[Generation, int]]


def plan_step(
    active: Sequence[Generation], pace: ChunkSizer, *, cheap_rows: int
) -> tuple[Plan, int | None]:
    """Return what a step computes, and the room that a reader's chunk had; None without a reader.

    Everybody who writes guesses on, as far as rows are cheap and nobody reads: beside a chunk all
    rows cost what one of the chunk's does.
    """
    writers = [one for one in active if not one.reading]
    reader = next((one for one in active if one.reading), None)
    spare = cheap_rows - sum(one.unread for one in writers) if reader is None else 0
    each = min(MOST_GUESSED, spare // max(1, len(writers)))
    for one in writers:
        most = min(each, one.max_tokens - one.made - 1)
        one.guessed = one.lookup.guess(one.ids, most) if most > 0 else []
    plan = [(one, one.unread + len(one.guessed)) for one in writers]
    if reader is None:
        return plan, None
    room = pace.rows() if writers else ALONE_TOKENS
    return [*plan, (reader, min(reader.unread, room))], room
