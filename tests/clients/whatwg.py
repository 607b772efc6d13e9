"""The standard's reading of an event stream, written down from its text and from nothing of ours.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LINE_ENDS = re.compile("\r\n|\n|\r")


@dataclass(frozen=True)
class Seen:
    """An event as a client tells it. `id`: the last one that came, with this event or before."""

    event: str
    data: str
    id: str


@dataclass(frozen=True)
class BlankLine:
    """A blank line. `lines`: how many `data` lines came before it; without any it is no event.

    `after_comment`: the line above it is a comment. `known_id`: an id had come by then.
    """

    lines: int
    after_comment: bool
    known_id: bool


def interpret(raw: bytes) -> tuple[list[Seen], list[BlankLine]]:
    """Return the events of a body, and every blank line in it."""
    *lines, _unfinished = _LINE_ENDS.split(raw.decode("utf-8").removeprefix("\ufeff"))
    events: list[Seen] = []
    blank: list[BlankLine] = []
    data: list[str] = []
    kind = last_id = before = ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            blank.append(BlankLine(len(data), before.startswith(":"), bool(last_id)))
            if data:
                events.append(Seen(kind or "message", "\n".join(data), last_id))
            data, kind = [], ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
        before = line
    return events, blank
