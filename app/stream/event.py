"""What a log holds: drafts on their way in, events once they have an index.

Knows nothing of HTTP: how an event becomes bytes is the business of `sse.py`.
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
    """A draft that has its place in a log; `index` counts from 0."""

    index: int
    kind: str
    data: Data
    terminal: bool = False
