"""The JSON text so far as strings: the one that is open, and the texts before it.

Works on bytes and plain text; it knows neither tokens nor grammars.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from app.engine.text.sentences import ends_sentence, split_sentences

_QUOTE, _BACKSLASH = 0x22, 0x5C
_DANGLING = re.compile(r"(?:[,;(\[{&]|\s[-–—])$")
_WORD = re.compile(r"\w+(?:['’]\w+)*")
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ABBREVIATED = re.compile(
    r"(?:^|[\s(])(?:\w|\w\.\w|[A-Z][a-z]|[A-Z][a-z][a-z]?v?|Mrs|Prof|vs|etc)\.$"
)


class StringState:
    """Follows a JSON text byte by byte.

    `text`: the open string without its escapes. `name`: of the member that it belongs to.
    `item`: it is an item of a list. `done`: the values before it, as (name, text).
    """

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.name = ""
        self.open = False
        self.escaped = False
        self._raw = bytearray()
        self._nesting: list[int] = []
        self._key_next = False
        self._is_key = False
        self._text: str | None = None

    @property
    def in_value(self) -> bool:
        """A string is open that is not the name of a member."""
        return self.open and not self._is_key

    @property
    def item(self) -> bool:
        return self._nesting[-1:] == [0x5B]

    @property
    def text(self) -> str:
        if self._text is None:
            raw = self._raw.decode("utf-8", "replace")
            self._text = unescaped(raw)
        return self._text

    @property
    def whole(self) -> bool:
        """The open string ends neither inside a character nor inside an escape."""
        return not self.escaped and not self.text.endswith("\ufffd")

    def take(self, data: bytes) -> None:
        """Append to the text."""
        for byte in data:
            self._text = None
            if self.open:
                self._inside(byte)
            elif byte == _QUOTE:
                self.open, self._is_key = True, self._key_next
                self._raw.clear()
            elif byte in b"{[":
                self._nesting.append(byte)
                self._key_next = byte == 0x7B
            elif byte in b"}]":
                self._nesting = self._nesting[:-1]
                self._key_next = False
            else:
                self._key_next = byte == 0x2C and self._nesting[-1:] == [0x7B]

    def said_before(self, prose: Collection[str]) -> list[str]:
        """Return what an item of the open list may not say again: its items, and sentences."""
        said: list[str] = []
        for name, text in self.done:
            if name == self.name:
                said.append(text)
            elif name in prose:
                said += split_sentences(text, "en")
        return said

    def _inside(self, byte: int) -> None:
        if self.escaped:
            self.escaped = False
        elif byte == _BACKSLASH:
            self.escaped = True
        elif byte == _QUOTE:
            self.open = False
            text = unescaped(self._raw.decode("utf-8", "replace"))
            if self._is_key:
                self.name = text
            else:
                self.done.append((self.name, text))
            return
        self._raw.append(byte)


def unescaped(raw: str) -> str:
    """Return the inside of a JSON string without its escapes."""
    if "\\" not in raw:
        return raw
    return _UNESCAPE.sub(lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), raw)


def open_quote(text: str) -> str:
    """Return what must still come to close the inner quotes of a text: `"`, `”` or nothing."""
    inside = False
    for place, char in enumerate(text):
        # After a figure it is an inch.
        if char == '"' and (inside or not text[place - 1 : place].isdigit()):
            inside = not inside
    if inside:
        return '"'
    return "”" if text.count("“") > text.count("”") else ""


def may_end(text: str, *, prose: bool) -> bool:
    """Say whether a text is whole enough to end here, as far as its last characters tell."""
    if text[-1:] in (" ", "\t", "\u00a0") or _DANGLING.search(text):
        return False
    return not (prose and text[-1:].isspace()) and not open_quote(text)


def at_sentence_end(text: str) -> bool:
    """Say whether a sentence ends here: an abbreviation or an initial does not end one."""
    return ends_sentence(text) and not _ABBREVIATED.search(text)


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a text, in small letters, without what stands between them."""
    return tuple(word.lower() for word in _WORD.findall(text))


def repeats(text: str, earlier: str) -> bool:
    """Say whether two texts say the same in nearly the same words."""
    mine, theirs = words_of(text), words_of(earlier)
    if mine == theirs:
        return True
    both, any_ = set(mine) & set(theirs), set(mine) | set(theirs)
    return min(len(mine), len(theirs)) >= 4 and len(both) >= 0.8 * len(any_)


def next_of_repeat(text: str, earlier: str, least_words: int) -> str:
    """Return what would follow if `text` went on repeating the beginning of `earlier`."""
    mine = words_of(text)
    if len(mine) < least_words:
        return ""
    found = list(_WORD.finditer(earlier))
    if len(found) <= len(mine) or words_of(earlier)[: len(mine)] != mine:
        return ""
    return earlier[found[len(mine) - 1].end() : found[len(mine)].end()]


def followers(said: list[int], tokens: list[int], length: int) -> list[int]:
    """Return what followed in `said` each time after the last `length` - 1 tokens."""
    last = tokens[1 - length :]
    if len(last) < length - 1:
        return []
    places = range(len(said) - length + 1)
    return [said[at + length - 1] for at in places if said[at : at + length - 1] == last]
