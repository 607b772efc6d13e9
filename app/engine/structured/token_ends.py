"""What the tokens of a vocabulary do to a JSON string: computed once for each tokenizer.

Plain sets of token ids; it knows neither grammars nor models. torch is imported when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.engine.text.sentences import HAN_KANA, SOUTH_EAST_ASIAN

if TYPE_CHECKING:
    import torch

ESCAPED_QUOTE = b'\\"'
_UNSPACED = re.compile(f"[{HAN_KANA}{SOUTH_EAST_ASIAN}]")
_SPACES = b" \t\r\n"
_STOP = re.compile(rb'[.!?][)\]]?"?|\xe3\x80\x82')


class TokenEnds:
    """Which tokens end a string and after what, begin with a space, or go on with a word.

    `closing`: tokens with a quote that is not escaped, by the text before that quote.
    """

    def __init__(self, size: int, bytes_of: Callable[[int], bytes]) -> None:
        """Look at every token once (0.1 s for 49,000)."""
        import torch

        self.spells = {bytes_of(token): token for token in range(size)}
        self.data = data = [bytes_of(token) for token in range(size)]
        heads: dict[bytes, list[int]] = {}
        for token, text in enumerate(data):
            if 0x22 in text and (head := _before_quote(text)) is not None:
                heads.setdefault(head, []).append(token)
        self.closing = {head: torch.tensor(ids) for head, ids in heads.items()}
        self.ends = _flags(data, lambda text: _before_quote(text) is not None)
        self.starts_blank = _flags(data, _starts_blank)
        self.blank = _flags(data, lambda text: bool(text) and not text.strip(_SPACES))
        self.continues = _flags(data, _continues)
        self.quotes = _flags(data, _begins_escape)
        self.opens_blank = _flags(data, _opens_blank)
        self.stops = _flags(data, lambda text: _STOP.fullmatch(text) is not None)

    def prefixes(self, text: bytes) -> list[int]:
        """Return the tokens that spell the beginning of `text`."""
        ends = range(1, min(len(text), 40) + 1)
        return [self.spells[text[:end]] for end in ends if text[:end] in self.spells]


def spaced_script(char: str) -> bool:
    """Say whether a character is a letter or figure of a script that puts spaces between words."""
    return char.isalnum() and not _UNSPACED.match(char)


def only(mask: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
    """Return `mask` for those tokens alone."""
    import torch

    kept = torch.zeros_like(mask)
    if ids is not None:
        ids = ids[ids < mask.shape[0]]
        kept[ids] = mask[ids]
    return kept


def or_else(kept: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return `kept`, or `mask` where nothing is left of it."""
    return kept if bool(kept.any()) else mask


def _flags(data: list[bytes], claim: Callable[[bytes], bool]) -> torch.Tensor:
    import torch

    return torch.tensor([claim(text) for text in data], dtype=torch.bool)


def _before_quote(text: bytes) -> bytes | None:
    """Return what stands before the first quote that is not escaped; None without one."""
    place = 0
    while place < len(text):
        if text[place] == 0x5C:
            place += 1
        elif text[place] == 0x22:
            return text[:place]
        place += 1
    return None


def _starts_blank(text: bytes) -> bool:
    if text[:2] in (b"\\n", b"\\t"):
        return True
    return text.decode("utf-8", "replace")[:1].isspace()


def _opens_blank(text: bytes) -> bool:
    """Outside strings: the token begins a string with a space, or is one that ends with it."""
    _, quote, inner = text.partition(b'"')
    return bool(quote) and inner[:1] in (b" ", b"\t")


def _begins_escape(text: bytes) -> bool:
    return ESCAPED_QUOTE in text or text.endswith(b"\\")


def _continues(text: bytes) -> bool:
    first = text.decode("utf-8", "replace")[:1]
    return bool(first) and spaced_script(first)
