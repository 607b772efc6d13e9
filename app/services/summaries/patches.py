"""Field by field: the patches that the Android client draws, from the text of a growing object.

Knows the six fields and nothing of HTTP. Partial JSON is parsed by pydantic-core.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from app.schemas.summary_v4 import StructuredSummary
from app.stream.coalesce import Throttle

FIELDS = tuple(StructuredSummary.model_fields)
TYPED_FIELD = "main_summary"
TYPING_INTERVAL_S = 0.1

Patch = tuple[dict[str, Any], dict[str, Any]]


class SummaryPatches:
    """Takes pieces of the object's text and returns the patches that they complete.

    `state`: the six keys; scalars start as None, `key_points` as an empty list.
    """

    def __init__(self) -> None:
        self.text = ""
        self.state: dict[str, Any] = dict.fromkeys(FIELDS) | {"key_points": []}
        self._complete: set[str] = set()
        self._typed = Throttle(TYPING_INTERVAL_S)

    def feed(self, piece: str, now_s: float) -> list[Patch]:
        """Take a piece; return the deltas to send, each with the state after it."""
        self.text += piece
        typing = self._typed.due(now_s)
        if not typing and not set(piece) & set('"]},'):
            return []
        # Without trailing strings only whole values are there; a number may still be growing
        # until the object is closed.
        whole = self._parse(trailing_strings=False)
        deltas = self._completed(whole, closed=self.text.endswith("}"))
        if typing and TYPED_FIELD not in self._complete:
            written = self._parse(trailing_strings=True).get(TYPED_FIELD)
            if isinstance(written, str) and written and written != self.state[TYPED_FIELD]:
                self._typed.sent(now_s)
                deltas.append(self._set(TYPED_FIELD, written))
        return deltas

    def complete(self, summary: Mapping[str, Any]) -> list[Patch]:
        """Return what is still missing when the object is whole."""
        return self._completed(dict(summary), closed=True)

    def _parse(self, *, trailing_strings: bool) -> dict[str, Any]:
        if not self.text:
            return {}
        try:
            parsed = from_json(
                self.text, allow_partial="trailing-strings" if trailing_strings else True
            )
        except ValueError:
            return {}  # whether the whole object is valid is judged once, at its end
        return parsed if isinstance(parsed, dict) else {}

    def _completed(self, whole: dict[str, Any], *, closed: bool) -> list[Patch]:
        deltas: list[Patch] = []
        for name in FIELDS:
            if name not in whole or name in self._complete:
                continue
            value = whole[name]
            if name == "key_points":
                deltas += self._append_points(value)
                continue
            if isinstance(value, str) or closed:
                self._complete.add(name)
                deltas.append(self._set(name, value))
        return deltas

    def _append_points(self, points: Any) -> list[Patch]:
        patches: list[Patch] = []
        have = self.state["key_points"]
        for point in points[len(have) :] if isinstance(points, list) else []:
            self.state["key_points"] = [*self.state["key_points"], point]
            patches.append(self._patch("append", "key_points", point))
        return patches

    def _set(self, name: str, value: Any) -> Patch:
        self.state[name] = value
        return self._patch("set", name, value)

    def _patch(self, op: str, name: str, value: Any) -> Patch:
        return {"op": op, "field": name, "value": value}, dict(self.state)
