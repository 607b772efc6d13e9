"""The text of a JSON object as a model spells it out: made compact while it streams.

Knows JSON's lexical form, not the object's fields.
"""

from __future__ import annotations

_ESCAPES = {code: f"\\u{code:04x}" for code in (*range(0x20), 0x7F, 0x85, 0x2028, 0x2029)}
_ESCAPES.update({0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r"})


class CompactJson:
    """Drops white space outside strings and escapes line breaks inside them.

    A model behind another server may put line breaks between tokens (measured), and a piece of a
    stream must never contain one. Text that is compact already passes unchanged.
    """

    def __init__(self) -> None:
        self._in_string = False
        self._escaped = False

    def feed(self, piece: str) -> str:
        """Return what a piece of text becomes; it may become nothing."""
        out: list[str] = []
        for char in piece:
            if not self._in_string:
                self._in_string = char == '"'
                if not char.isspace() and char != "\ufeff":
                    out.append(char)
                continue
            if self._escaped:
                self._escaped = False
            elif char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = False
            out.append(_ESCAPES.get(ord(char), char))
        return "".join(out)
