"""Lets a model write freely until it begins a call, and holds the call to its tool's schema.

A logits processor around the grammar's own. It knows nothing of models, threads or templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.core.errors import Unsupported
from app.engine.structured.grammar import GrammarProcessor
from app.engine.structured.vocabulary import Vocabulary
from app.engine.text.output_parser import CALL, THINK, THINK_END
from app.engine.text.tool_call_text import SPACE, Nesting

if TYPE_CHECKING:
    import torch

_BARE = re.compile(rb'[ \t\r\n]*(\{[ \t\r\n]*"name".*)', re.DOTALL)
_CALL, _THINK, _THINK_END = CALL.encode(), THINK.encode(), THINK_END.encode()
_SPACES = SPACE.encode()
# More of an answer than this cannot be the white space and the brace before a call.
_OPENING_BYTES = 64


class ToolCallGrammar:
    """The state of one generation that may call tools (`tool_choice` "auto").

    A call begins with `<tool_call>`, or with `{"name"` as the first thing of the answer. From there
    on the grammar allows only a call, complete within what is left of the budget; when that is too
    little for any call, the text stays free. After a tagged call the model may go on, unless
    `parallel` is false.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        schema: Mapping[str, Any],
        *,
        max_tokens: int,
        end_tag: Sequence[int],
        parallel: bool = True,
        thinking: bool = False,
    ) -> None:
        """Watch for calls of that schema. `end_tag`: the tokens of `</tool_call>`.

        `thinking`: the prompt ended inside a block of thoughts.
        """
        self._vocabulary = vocabulary
        self._schema = schema
        self._remaining = max_tokens
        self._end_tag = list(end_tag)
        self._parallel = parallel
        self._seen: int | None = None
        self._text = b""
        self._phase = "thoughts" if thinking else "start"
        self._grammar: GrammarProcessor | None = None
        self._tagged = False
        self._forced: list[int] = []
        self._ended = False

    @property
    def complete(self) -> bool:
        """A call is complete and nothing may follow it."""
        return self._ended

    def advance(self, ids: Sequence[int]) -> None:
        """Take the tokens that are new in `ids`, the whole sequence; the first call sees a prompt.

        Raises:
            GenerationFailed: a token came that the grammar does not allow.
        """
        seen = len(ids) if self._seen is None else self._seen
        self._seen = len(ids)
        for end in range(seen + 1, len(ids) + 1):
            self._remaining -= 1
            self._take(ids[:end])

    def forced(self) -> list[int]:
        """Return the next tokens, as far as there is no choice."""
        return list(self._forced) if self._grammar is None else self._grammar.forced()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the logits of a call. input_ids: (1, tokens) int64, scores: (1, vocabulary)."""
        if self._seen is None or self._seen != input_ids.shape[1]:
            self.advance(input_ids[0].tolist())
        if self._grammar is not None:
            return self._grammar(input_ids, scores)
        if not self._forced:
            return scores
        import torch

        only = torch.full_like(scores, -torch.inf)
        only[0, self._forced[0]] = 0.0
        return only

    def _take(self, ids: Sequence[int]) -> None:
        if self._grammar is not None:
            self._grammar.advance(ids)
            if self._grammar.complete:
                self._finish_call()
        elif self._forced:
            self._forced.pop(0)
            if not self._forced:
                self._after_call()
        elif not self._ended:
            self._text += self._vocabulary.bytes_of(int(ids[-1]))
            self._watch(ids)

    def _watch(self, ids: Sequence[int]) -> None:
        """Look at free text: where the thoughts end, and whether a call begins."""
        if self._phase == "start":
            start = self._text.lstrip(_SPACES)
            if _THINK.startswith(start):
                return
            self._phase = "thoughts" if start.startswith(_THINK) else "answer"
        if self._phase == "thoughts":
            _, found, rest = self._text.partition(_THINK_END)
            if not found:
                self._text = self._text[-len(_THINK_END) :]
                return
            self._text, self._phase = rest, "answer"
        if self._phase == "answer" and (bare := _BARE.fullmatch(self._text)):
            self._begin(ids, bare[1], tagged=False)
            return
        if len(self._text.lstrip(_SPACES)) > _OPENING_BYTES:
            self._phase = "body"
        _, found, rest = self._text.partition(_CALL)
        if found:
            self._begin(ids, rest, tagged=True)
        elif self._phase == "body":
            self._text = self._text[-len(_CALL) :]

    def _begin(self, ids: Sequence[int], written: bytes, *, tagged: bool) -> None:
        """Hold what follows to the schema, `written` being the start of the call."""
        self._text, self._phase = b"", "body"
        start = Nesting().scan(written.decode("latin-1"))[1].encode("latin-1")
        # A call without its closing tag is a call too, where there is no room for the tag.
        for spared in (len(self._end_tag), 0) if tagged else (0,):
            try:
                grammar = GrammarProcessor(
                    self._vocabulary,
                    self._schema,
                    max_tokens=self._remaining - spared,
                    written=start,
                )
            except Unsupported:
                continue
            grammar.advance(ids)
            self._grammar, self._tagged = grammar, tagged
            return

    def _finish_call(self) -> None:
        self._grammar = None
        if self._tagged and len(self._end_tag) <= self._remaining:
            self._forced = list(self._end_tag)
        else:
            self._after_call()

    def _after_call(self) -> None:
        self._ended = not (self._tagged and self._parallel)
