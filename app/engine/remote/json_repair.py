"""JSON out of a server that may not hold its model to a schema as strictly as our own engine does.

Makes it compact, takes fences and talk around the value away, and finishes a value that the budget
cut off. Knows the text only, neither the connection nor the items that carry it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from app.core.errors import AppError
from app.engine.structured.completion import JsonCompleter
from app.engine.structured.schema_grammar import compile_grammar, required_names
from app.engine.text.compact_json import CompactJson
from app.engine.text.tool_call_text import Nesting

log = structlog.get_logger(__name__)

_FENCE = re.compile(r"\s*```\w*\s*")
# An opening that a value of JSON would go on like this; `{name}` in a sentence is none.
_OBJECT = re.compile(r'\{(?=\s*["}])')
_ARRAY = re.compile(r'\[(?=\s*["{\[\]\d-])')
_ESCAPE = re.compile(r"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|\\u\w{4}|\\.")
# The start of an escape, or the first half of a pair of them, at the end of a text.
_OPEN_ESCAPE = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?\\(?:u[0-9a-fA-F]{0,3})?$|\\u[dD][89abAB][0-9a-fA-F]{2}$"
)


class JsonText:
    """The text of one JSON value as a model spells it out."""

    def __init__(self, schemas: Sequence[Mapping[str, Any]]) -> None:
        """Begin; the first of `schemas` that fits a text which was cut off is used to finish it."""
        self._schemas = schemas
        self._opening = _opening(schemas[0])
        self._compact = CompactJson()
        self._before = ""
        self._started = self._ended = False
        self._nesting = Nesting()
        self._held = ""
        self._shown: list[str] = []

    def feed(self, piece: str) -> str:
        """Return what a piece of text adds to the value; it may add nothing."""
        if not self._started:
            self._before += piece
            start = self._start()
            if start is None:
                return ""
            self._started = True
            piece = self._before[start:]
        found = self._within(self._compact.feed(piece))
        return self._show(self._whole_escapes(found))

    def finish(self, *, cut: bool) -> str:
        """Return the rest of the value; takes milliseconds, so run it in a thread.

        `cut`: the model ran out of budget. A text that is no beginning of a value of the schema
        is left as it is.
        """
        if self._ended:
            return ""
        if not self._started and (self._before.strip() or not cut):
            return self._before.strip()
        so_far = _spelled_plainly("".join(self._shown)).encode("utf-8", "replace")
        for schema in self._schemas:
            try:
                completer = JsonCompleter(compile_grammar(schema), required=required_names(schema))
                if completer.take(so_far):
                    return completer.completion().decode()
            except AppError as error:
                log.warning("json_not_closed", code=error.code)
        return self._held

    def _start(self) -> int | None:
        """Return where the value begins in what came, None when that is not known yet."""
        text = self._before
        fence = _FENCE.match(text)
        bare = fence.end() if fence else len(text) - len(text.lstrip())
        if self._opening is None:
            # Anything might be the value; a fence differs from it by its third character.
            return bare if text[bare:] and not "```".startswith(text[bare:]) else None
        if text[bare : bare + 1] == self._opening:
            return bare
        found = (_OBJECT if self._opening == "{" else _ARRAY).search(text)
        return found.start() if found else None

    def _within(self, compact: str) -> str:
        """Return what of a piece belongs to the value, whose end is its last bracket."""
        if self._ended:
            return ""
        read, _, self._ended = self._nesting.scan(compact)
        return compact[:read]

    def _whole_escapes(self, text: str) -> str:
        """Hold back half an escape, so that a text may be finished after whatever was shown."""
        text = self._held + text
        end = _OPEN_ESCAPE.search(text[-12:])
        # A backslash that is itself escaped begins nothing.
        if end is None or self._ended or not self._may_open(text, len(text[:-12]) + end.start()):
            self._held = ""
            return text
        cut = len(text[:-12]) + end.start()
        self._held = text[cut:]
        return text[:cut]

    @staticmethod
    def _may_open(text: str, place: int) -> bool:
        before = text[:place]
        return (len(before) - len(before.rstrip("\\"))) % 2 == 0

    def _show(self, text: str) -> str:
        if text:
            self._shown.append(text)
        return text


def _opening(schema: Mapping[str, Any]) -> str | None:
    """Return the character that every value of the schema begins with, None if there is none."""
    if schema.get("type") == "object" or "properties" in schema:
        return "{"
    return "[" if schema.get("type") == "array" else None


def _spelled_plainly(text: str) -> str:
    """Return the text with only those escapes that our grammars know.

    It leaves a grammar in the same state, and is not shown to anybody.
    """

    def plain(match: re.Match[str]) -> str:
        if match[0] in ('\\"', "\\\\", "\\n", "\\t"):
            return match[0]
        char = str(json.loads(f'"{match[0]}"'))
        if char in '"\\':
            return f"\\{char}"
        return char if char.isprintable() else "."

    try:
        return _ESCAPE.sub(plain, text)
    except ValueError:
        # No JSON string holds such an escape: no grammar will take the text either.
        return text
