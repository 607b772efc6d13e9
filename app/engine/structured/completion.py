"""The shortest way to finish a half-written JSON value that follows a grammar.

Works on bytes, beside the model's own matcher, so that a half-finished character, escape, number
or keyword can be completed whatever tokens made it. It knows neither tokens nor models; llguidance
is imported when the first completer is made.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from app.core.errors import Unsupported

MAX_COMPLETION_BYTES = 20_000

# Outside strings: whatever ends most, soonest; a comma ends a number where nothing else may.
# Anything else follows in the order of its byte.
_STRUCTURE = b'}],0123456789n"ft[{-:'
# Inside a string that must not end yet.
_FILLERS = b".0aA-:@ "
_ELLIPSIS = "…".encode()
_NUMBER = b"0123456789-.eE+"
_BITS = tuple(tuple(bit for bit in range(8) if value >> bit & 1) for value in range(256))
_QUOTE, _BACKSLASH = 0x22, 0x5C
_SEARCH_BRANCHES = 24
_SEARCH_STATES = 300
_SEARCH_EVERY = 8
# More allowed bytes than this is free text, which any filler fits.
_FREE_TEXT = 120


class _Bytes:
    """A tokenizer of 256 one-byte tokens, in the form that llguidance takes."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([value]) for value in range(256)), b"<eos>")
    special_token_ids = (256,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


@cache
def _byte_tokenizer() -> Any:
    from llguidance import LLTokenizer
    from llguidance._tokenizer import TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()))


class JsonCompleter:
    """The bytes of a JSON text so far, and how to finish them."""

    __slots__ = (
        "_empty",
        "_escaped",
        "_in_string",
        "_keys",
        "_literals",
        "_matcher",
        "_maybe_key",
    )

    def __init__(self, grammar: str, *, required: tuple[str, ...] = ()) -> None:
        from llguidance import LLMatcher

        self._matcher = LLMatcher(_byte_tokenizer(), grammar, log_level=0)
        self._keys = tuple(json.dumps(name, ensure_ascii=False).encode()[1:] for name in required)
        self._literals: dict[bytes, bytes] = {}
        self._in_string = False
        self._escaped = False
        self._empty = False
        self._maybe_key = False

    def copy(self) -> JsonCompleter:
        """Return an independent copy."""
        copied = object.__new__(JsonCompleter)
        copied._matcher = self._matcher.deep_copy()
        copied._keys = self._keys
        copied._literals = self._literals
        copied._in_string = self._in_string
        copied._escaped = self._escaped
        copied._empty = self._empty
        copied._maybe_key = self._maybe_key
        return copied

    @property
    def complete(self) -> bool:
        """The text is a whole value of the schema."""
        return bool(self._matcher.is_accepting())

    @property
    def in_string(self) -> bool:
        """The text ends inside a string (a member's name is one too)."""
        return self._in_string

    def accepts(self, data: bytes) -> bool:
        """Tell whether `data` may follow, without taking it."""
        return self.count_accepted(data) == len(data)

    def count_accepted(self, data: bytes) -> int:
        """Count how many bytes of `data` may follow, without taking them."""
        return int(self._matcher.validate_tokens(list(data)))

    def take(self, data: bytes) -> bool:
        """Append `data`; False, and nothing else is defined any more, if it does not fit."""
        for byte in data:
            self._scan(byte)
        return bool(self._matcher.consume_tokens(list(data)))

    def _scan(self, byte: int) -> None:
        if not self._in_string:
            self._in_string = self._empty = byte == _QUOTE
            if not self._in_string:
                self._maybe_key = byte in b"{,"
            return
        self._empty = False
        if self._escaped:
            self._escaped = False
        elif byte == _BACKSLASH:
            self._escaped = True
        elif byte == _QUOTE:
            self._in_string = False

    def completion(self) -> bytes:
        """Return bytes that finish the text, as few as a greedy search finds.

        Open strings end at once, an empty one that may not be empty becomes an ellipsis, enums
        and numbers take the shortest literal, lists their least number of items, and objects their
        required members only.

        Raises:
            Unsupported: `schema_too_long`, when that takes more than `MAX_COMPLETION_BYTES`.
        """
        end = self.copy()
        written = bytearray()
        fillers = 0
        while not end.complete and len(written) < MAX_COMPLETION_BYTES:
            step = bytes(end._matcher.compute_ff_bytes())
            if not step:
                step = end._next(fillers)
                fillers += 1
            if not step or not end.take(step):
                break
            written += step
            if not end._in_string and step[-1] not in _NUMBER:
                fillers = 0
        if not end.complete:
            raise Unsupported(
                "No short value of the JSON schema was found: give its strings and lists smaller "
                "minimum lengths, or simpler patterns.",
                code="schema_too_long",
            )
        return bytes(written)

    def follow(self, old: bytes, data: bytes) -> bytes | None:
        """Return a completion made of `old`, the completion before `data` was taken, if soon seen.

        It may be a few bytes longer than the shortest one; this is ten times as fast.
        """
        if old.startswith(data):
            return old[len(data) :]
        if self._completes(old):
            return old
        start = b'"' if self._in_string else b""
        if self._empty:
            start = _ELLIPSIS + b'"'
        elif self._escaped:
            start = b'n"'
        end = old.find(b'"') + 1
        for tail in (old[end:], old):
            if tail and self._completes(start + tail):
                return start + tail
        return None

    def _completes(self, data: bytes) -> bool:
        # That it may follow is not enough: after a backslash `"}` is two characters of a string.
        whole = [*data, _Bytes.eos_token_id]
        return int(self._matcher.validate_tokens(whole)) == len(whole)

    def _allowed(self) -> list[int]:
        mask = self._matcher.compute_bitmask()[:32]
        return [8 * place + bit for place, bits in enumerate(mask) if bits for bit in _BITS[bits]]

    def _next(self, fillers: int) -> bytes:
        """Return the next bytes of the completion; empty when nothing may follow."""
        if self._in_string and not self._escaped:
            for key in self._keys if self._empty and self._maybe_key else ():
                if self.accepts(key + b":"):
                    return key
            if self.accepts(b'"'):
                return b'"'
            if self._empty and self.accepts(_ELLIPSIS + b'"'):
                return _ELLIPSIS
        allowed = self._allowed()
        if not allowed or self._escaped:
            return b"n" if ord("n") in allowed else bytes(allowed[:1])
        ranked = self._ranked(allowed)
        if not self._in_string and ranked[0] not in _NUMBER:
            return bytes(ranked[:1])
        if len(allowed) <= _SEARCH_BRANCHES and fillers % _SEARCH_EVERY == 0:
            found = self._known_literal(allowed) or self._search()
            if found:
                self._literals[bytes(allowed)] = found
                return found
        if len(allowed) >= _FREE_TEXT or fillers == 0:
            return bytes(ranked[:1])
        # Always the same byte may run in circles through a pattern: take turns.
        return bytes([ranked[fillers % len(ranked)]])

    def _ranked(self, allowed: list[int]) -> list[int]:
        order = _FILLERS if self._in_string else _STRUCTURE
        return sorted(allowed, key=lambda byte: (order.find(byte) % 256, byte))

    def _known_literal(self, allowed: list[int]) -> bytes:
        """Return what the search found where the same bytes were allowed, if it fits here too."""
        known = self._literals.get(bytes(allowed), b"")
        end = self.copy()
        return known if known and end.take(known) and end._may_end(end._allowed()) else b""

    def _search(self) -> bytes:
        """Return the shortest bytes after which this string or number may end, if soon found."""
        level: list[tuple[bytes, JsonCompleter]] = [(b"", self)]
        states = 0
        while level:
            deeper: list[tuple[bytes, JsonCompleter]] = []
            for path, here in level:
                allowed = here._allowed()
                if path and not here._escaped and here._may_end(allowed):
                    return path
                for byte in here._ranked(allowed):
                    states += 1
                    if states > _SEARCH_STATES:
                        return b""
                    there = here.copy()
                    there.take(bytes([byte]))
                    deeper.append((path + bytes([byte]), there))
            level = deeper
        return b""

    def _may_end(self, allowed: list[int]) -> bool:
        if self._in_string:
            return _QUOTE in allowed
        return self.complete or any(byte in allowed for byte in b",]}")
