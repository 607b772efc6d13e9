"""Reads the JSON text of a call as it is written: its name, and where its arguments begin and end.

Works on text alone; it does not know what surrounds a call, nor which tools exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

SPACE = " \t\r\n"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MEMBERS = ("name", "arguments", "parameters", "type", "id")
_ARGUMENTS = ("arguments", "parameters")


@dataclass(frozen=True, slots=True)
class CallHead:
    """A call up to its arguments, which begin at `end`.

    `arguments`: they came before the name. `closed`: the object ended without any.
    """

    name: str = ""
    end: int = 0
    arguments: str | None = None
    closed: bool = False


NO_CALL = CallHead()


class Nesting:
    """Finds where a JSON object ends, in pieces."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._in_string = False
        self._escaped = False

    def scan(self, text: str) -> tuple[int, str, bool]:
        """Return how many characters were read, these without white space, and whether it ended."""
        kept = []
        for place, char in enumerate(text):
            if not self._in_string and char in SPACE:
                continue
            kept.append(char)
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._in_string = False
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return place + 1, "".join(kept), True
        return len(text), "".join(kept), False


def read_call_head(text: str, start: int, names: frozenset[str]) -> CallHead | None:
    """Read an object's members up to the arguments of a call; None while more text is needed."""
    name, arguments = "", None
    place = start
    while place < len(text):
        if place == start:
            if text[place] != "{":
                return NO_CALL
        elif text[place] == "}":
            return CallHead(name, place + 1, closed=True) if name else NO_CALL
        elif text[place] != ",":
            return NO_CALL
        key = _read_string(text, _skip(text, place + 1), _MEMBERS)
        if key is None or key.value not in _MEMBERS:
            return NO_CALL if key else None
        place = _skip(text, key.end)
        if text[place : place + 1] != ":":
            return NO_CALL if place < len(text) else None
        place = _skip(text, place + 1)
        if key.value in _ARGUMENTS:
            if text[place : place + 1] != "{":
                return NO_CALL if place < len(text) else None
            if name:
                return CallHead(name, place)
            chars, arguments, ended = Nesting().scan(text[place:])
            if not ended:
                return None
            place = _skip(text, place + chars)
            continue
        value = _read_string(text, place, names if key.value == "name" else None)
        if value is None:
            return None
        if key.value == "name":
            name = value.value
            if name not in names:
                return NO_CALL
            if arguments is not None:
                return CallHead(name, value.end, arguments)
        elif not value.end:
            return NO_CALL
        place = _skip(text, value.end)
    return None


@dataclass(frozen=True, slots=True)
class _String:
    """A string of JSON text and where it ends; 0 when there is none that is expected there."""

    value: str = ""
    end: int = 0


def _read_string(text: str, place: int, expected: Iterable[str] | None) -> _String | None:
    """Read a string; None while it may still become one of the expected ones."""
    found = _STRING.match(text, place)
    if found:
        try:
            return _String(str(json.loads(found[0], strict=False)), found.end())
        except ValueError:
            return _String()
    begun = text[place + 1 :]
    possible = place >= len(text) or text[place] == '"'
    if expected is not None and "\\" not in begun:
        possible = possible and any(word.startswith(begun) for word in expected)
    return None if possible else _String()


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in SPACE:
        place += 1
    return place
