"""Tokens in, chunks of text out: each as soon as its text is certain.

It imports transformers when it is imported. It knows nothing of models. The tokenizers library's
own `DecodeStream` has no way to flush an unfinished character, takes no slow tokenizer, and raises
on bytes that are no UTF-8, which a tokenizer with byte fallback (Phi-3's) can produce.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import torch
from transformers import TextIteratorStreamer

from app.engine.base import TokenLogprob
from app.engine.decoding.sampling import Recorder
from app.engine.text.pieces import TextChunk


class Detokenizer(TextIteratorStreamer):
    """A `TextIteratorStreamer` that hands over every token's text at once and loses nothing.

    The stock one waits for a space. This one decodes a window of the last tokens twice, without
    and with the new one, and emits the difference unless it ends inside a character. A chunk
    carries the logprobs of the tokens that it took.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop_event: threading.Event,
        *,
        silent: Collection[int],
        recorder: Recorder | None = None,
    ) -> None:
        """Stream the text of all tokens but the `silent` ones."""
        super().__init__(tokenizer, skip_prompt=True, clean_up_tokenization_spaces=False)
        self.tokens = 0
        self.last_token: int | None = None
        self._stop_event = stop_event
        self._silent = frozenset(silent)
        self._recorder = recorder
        self._pending: list[TokenLogprob] = []
        self._ids: list[int] = []
        self._read = 0

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, then one token at a time. value: (1, tokens) or (1,) int64."""
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        for token in value.flatten().tolist():
            logprob = self._recorder.next() if self._recorder else None
            if self._stop_event.is_set():
                continue
            self.tokens += 1
            self.last_token = token
            if token in self._silent:
                continue
            if logprob:
                self._pending.append(logprob)
            self._ids.append(token)
            self._emit(final=False)

    def end(self) -> None:
        """Flush an unfinished character and end the iteration; without effect the second time."""
        try:
            if self._ids:
                self._emit(final=True)
        finally:
            # Whatever the tokenizer does, the consumer must not wait for ever.
            self._ids = []
            self._read = 0
            self.on_finalized_text("", stream_end=True)

    def _emit(self, *, final: bool) -> None:
        before = self._decode(self._ids[: self._read])
        text = self._decode(self._ids)
        if len(text) > len(before) and (final or not text.endswith("\ufffd")):
            self.on_finalized_text(TextChunk(text[len(before) :], self._pending))
            self._pending = []
            del self._ids[: self._read]
            self._read = len(self._ids)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, **self.decode_kwargs)) if ids else ""
