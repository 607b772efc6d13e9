"""What a log holds: a draft is appended, and is an event once it has an index.

Nothing here knows HTTP: `sse.py` turns events into bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Data = str | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """Something to append to a log.

    `kind`: the event's name, empty for an unnamed one. `data`: text kept verbatim, or a JSON
    object. `terminal`: nothing follows it.
    """

    kind: str
    data: Data
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """A draft that has been appended; `index` is its place in the run, from 0."""

    index: int
    kind: str
    data: Data
    terminal: bool = False
