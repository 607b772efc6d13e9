"""A turn of the event loop: no time passes that anybody would have to choose."""

from __future__ import annotations

import types
from collections.abc import Generator


@types.coroutine
def next_turn() -> Generator[None, None, None]:
    """Let every task that is ready run once."""
    yield
