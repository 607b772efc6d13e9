"""A tokenizer as the grammar sees it: every token as bytes.

It knows no schema; torch and llguidance are imported when the first one is made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.core.errors import Unsupported
from app.engine.structured.token_ends import TokenEnds

if TYPE_CHECKING:
    import torch


class Vocabulary:
    """A tokenizer as llguidance sees it; made once for each loaded model (0.3 s for 32,000)."""

    def __init__(self, tokenizer: Any, eos_ids: Sequence[int]) -> None:
        """Wrap a fast Hugging Face tokenizer.

        Raises:
            Unsupported: `no_grammar`, when the tokenizer is not a fast one.
        """
        from llguidance import LLTokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not eos_ids:
            raise Unsupported(
                "This model's tokenizer cannot be held to a JSON schema: choose another model.",
                code="no_grammar",
            )
        spec = json.loads(backend.to_str())
        spec["padding"] = spec["truncation"] = None
        self.tokens = LLTokenizer(json.dumps(spec), eos_token=list(eos_ids))
        self.eos_ids = frozenset(eos_ids)
        self.size = int(self.tokens.vocab_size)
        self._plain: torch.Tensor | None = None
        self._ends: TokenEnds | None = None

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token stands for; a model may know more tokens than these."""
        return b"" if token >= self.size else bytes(self.tokens.decode_bytes([token]))

    def encode(self, data: bytes) -> list[int]:
        """Return tokens that spell `data` exactly, also when it starts inside a character."""
        start = 0
        while start < len(data) and 0x80 <= data[start] < 0xC0:
            start += 1
        head = [token for byte in data[:start] for token in self._encode(bytes([byte]))]
        return head + self._encode(data[start:])

    def _encode(self, data: bytes) -> list[int]:
        found = list(self.tokens.tokenize_bytes(data)) if data else []
        if bytes(self.tokens.decode_bytes(found)) != data:
            raise Unsupported(
                "This model's tokenizer cannot spell JSON: choose another model.", code="no_grammar"
            )
        return found

    def plain(self) -> torch.Tensor:
        """Return which tokens can neither end a string nor escape: (vocabulary,) bool."""
        import torch

        if self._plain is None:
            flags = [not set(self.bytes_of(token)) & {0x22, 0x5C} for token in range(self.size)]
            self._plain = torch.tensor(flags)
        return self._plain

    def ends(self) -> TokenEnds:
        """Return what the tokens do to a string."""
        if self._ends is None:
            self._ends = TokenEnds(self.size, self.bytes_of)
        return self._ends
