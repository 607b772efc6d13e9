"""Holds a generation to a JSON schema, and ends it inside its budget: a logits processor.

llguidance says which tokens may come next. On top of that, every token that could open something
new is allowed only if the shortest completion of the text after it still fits in what remains of
the budget; when nothing else fits, that completion is all that is left. It knows nothing of models
or threads; torch and llguidance are imported when the first schema arrives.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.core.errors import GenerationFailed, Unsupported
from app.engine.structured.completion import JsonCompleter
from app.engine.structured.schema_budget import CHARS_PER_TOKEN, fit_schema
from app.engine.structured.schema_grammar import compile_grammar, required_names
from app.engine.structured.text_steering import TextSteering
from app.engine.structured.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

# A token that opens something is checked one by one (30 to 400 microseconds each): the likeliest.
CHECKED_TOKENS = 16
# Half a character (3 bytes), an escape, and the ellipsis of a string that may not be empty.
TEXT_SLACK_TOKENS = 8
_FRAGILE = frozenset(("pattern", "format", "patternProperties", "propertyNames", "multipleOf"))


class GrammarProcessor:
    """The state of one constrained generation: of one sequence, from its first new token on.

    Invariant: `_plan` is a list of tokens that completes the object, and fits in what remains.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        schema: Mapping[str, Any],
        *,
        max_tokens: int,
        chars_per_token: float = CHARS_PER_TOKEN,
        written: bytes = b"",
        prose: Collection[str] = (),
    ) -> None:
        """Compile the schema, with the lengths of its strings fitted to the budget.

        `written`: the start of the object, when it is there already. `prose`: see `TextSteering`.

        Raises:
            Unsupported: `unsupported_schema`, or `budget_too_small` when even the shortest object
                needs more than `max_tokens`.
        """
        from llguidance import LLMatcher

        compile_grammar(schema)
        fitted = fit_schema(schema, max_tokens, chars_per_token=chars_per_token)
        grammar = compile_grammar(fitted)
        self._vocabulary = vocabulary
        self._matcher = LLMatcher(vocabulary.tokens, grammar, log_level=0)
        self._completer = JsonCompleter(grammar, required=required_names(fitted))
        self._steering = TextSteering(vocabulary.ends(), prose)
        self._remaining = max_tokens
        self._seen: int | None = None
        self._ended = False
        fragile, literal = _traits(fitted)
        self._fragile = fragile
        self._slack = TEXT_SLACK_TOKENS + (len(vocabulary.encode(literal)) if literal else 0)
        self._start_with(written)
        self._completion = self._completer.completion()
        self._plan = vocabulary.encode(self._completion)
        if len(self._plan) > max_tokens:
            raise Unsupported(
                f"The shortest object of the JSON schema takes {len(self._plan)} tokens: raise "
                f"max_tokens from {max_tokens}.",
                code="budget_too_small",
            )

    def _start_with(self, written: bytes) -> None:
        for token in self._vocabulary.encode(written):
            data = self._vocabulary.bytes_of(token)
            if not self._matcher.consume_token(token) or not self._completer.take(data):
                raise Unsupported(
                    "What is written already does not fit the JSON schema.", code="no_grammar"
                )
            self._steering.take(token, data)

    @property
    def complete(self) -> bool:
        """The text is a whole value of the schema, and nothing may follow it."""
        return self._ended or (self._completer.complete and bool(self._matcher.is_stopped()))

    def advance(self, ids: Sequence[int]) -> None:
        """Take the tokens that are new in `ids`, the whole sequence; the first call sees a prompt.

        Raises:
            GenerationFailed: a token came that the grammar does not allow.
        """
        seen = len(ids) if self._seen is None else self._seen
        for token in ids[seen:]:
            self._take(int(token))
        self._seen = len(ids)

    def forced(self) -> list[int]:
        """Return the next tokens, as far as the grammar leaves no choice.

        Near the end of the budget it is the plan that says what comes next, token by token.
        """
        if self.complete or self._remaining - len(self._plan) <= self._slack:
            return []
        return [int(token) for token in self._matcher.compute_ff_tokens()]

    def _take(self, token: int) -> None:
        if self.complete:
            return
        if token in self._vocabulary.eos_ids and self._completer.complete:
            self._ended = True
            return
        data = self._vocabulary.bytes_of(token)
        if not self._matcher.consume_token(token) or not self._completer.take(data):
            raise GenerationFailed("The model left the grammar of the JSON schema.")
        self._steering.take(token, data)
        self._remaining -= 1
        followed = self._plan[1:] if self._plan and self._plan[0] == token else None
        completion = self._completer.follow(self._completion, data)
        if completion is not None:
            self._completion = completion
            self._plan = self._vocabulary.encode(completion)
        # A completion that is a few tokens too long does no harm while there is room.
        if completion is None or self._remaining - len(self._plan) <= self._slack:
            self._completion = self._completer.completion()
            self._plan = self._vocabulary.encode(self._completion)
        if followed is not None and len(followed) < len(self._plan):
            self._plan = followed

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Mask the logits. input_ids: (1, tokens) int64, scores: (1, model vocabulary) float."""
        import torch

        if self._seen is None or self._seen != input_ids.shape[1]:
            self.advance(input_ids[0].tolist())
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        if self._plan and len(self._plan) >= self._remaining and not self.complete:
            allowed[self._plan[0]] = True
        else:
            mask = self._mask()[: scores.shape[-1]]
            if not self.complete:
                known = scores[0, : mask.shape[0]]
                mask, own = self._steered(mask, known)
                if own is not known:
                    scores = scores.clone()
                    scores[0, : mask.shape[0]] = own
            allowed[: mask.shape[0]] = mask
        return scores.masked_fill(~allowed.to(scores.device), -torch.inf)

    def _mask(self) -> torch.Tensor:
        """Return what the grammar allows: (vocabulary,) bool. A plain unpacking: 20 us for 32,000.

        llguidance's own torch helper compiles a kernel and takes 46 ms a step on CPU.
        """
        import numpy as np
        import torch

        words = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        bits = np.unpackbits(words, bitorder="little", count=self._vocabulary.size)
        if self._matcher.is_error():
            raise GenerationFailed("The grammar of the JSON schema became too complex.")
        return torch.from_numpy(bits.view(np.bool_))

    def _steered(
        self, mask: torch.Tensor, scores: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what of `mask` can be closed in time and ends well; and the scores to choose by.

        Both are (vocabulary,). Where nothing of that can be closed in time, the budget wins.
        """
        coming = self._completion.count('"…"'.encode()) + self._completion.count(b'""')
        preferred, own = self._steering.steer(
            mask,
            scores,
            room=self._completer.count_accepted,
            spare=self._remaining - len(self._plan) - self._slack,
            coming=coming,
        )
        within = self._within_budget(preferred, own)
        chosen = within & preferred
        if bool(chosen.any()):
            return chosen, own
        return (within if preferred is mask else self._within_budget(mask, scores)), scores

    def _within_budget(self, mask: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leave of `mask` what can still be closed in time; both are (vocabulary,)."""
        import torch

        risky = mask
        allowed = torch.zeros_like(mask)
        spare = self._remaining - len(self._plan)
        if spare > self._slack and not self._fragile and self._in_value_string():
            plain = self._vocabulary.plain()[: mask.shape[0]]
            allowed, risky = mask & plain, mask & ~plain
        sure = self._plan[:1] or [token for token in self._vocabulary.eos_ids if mask[token]]
        allowed[sure] = True
        count = min(CHECKED_TOKENS, int(risky.sum()))
        likely = scores.masked_fill(~risky, -torch.inf).topk(count).indices
        for token in likely.tolist():
            if token not in sure:
                allowed[token] = self._can_complete_after(token)
        return allowed

    def _in_value_string(self) -> bool:
        """The text ends inside a string that is not the name of a member."""
        end = self._completion.find(b'"')
        return self._completer.in_string and self._completion[end + 1 : end + 2] != b":"

    def _can_complete_after(self, token: int) -> bool:
        after = self._completer.copy()
        data = self._vocabulary.bytes_of(token)
        if not after.take(data):
            return False
        if after.complete:
            return True
        room = self._remaining - 1
        try:
            completion = after.follow(self._completion, data) or after.completion()
            return len(self._vocabulary.encode(completion)) <= room
        except Unsupported:
            return False


def _traits(schema: object) -> tuple[bool, bytes]:
    """Tell whether plain text may lengthen the completion, and return the longest fixed literal."""
    fragile, literal = False, b""
    if isinstance(schema, Mapping):
        fragile = bool(_FRAGILE & schema.keys()) or _least(schema) > 1
        values: Iterable[Any] = schema["enum"] if isinstance(schema.get("enum"), list) else ()
        if "const" in schema:
            values = (*values, schema["const"])
        texts = (json.dumps(value, ensure_ascii=False).encode() for value in values)
        literal = max(texts, key=len, default=b"")
        schema = list(schema.values())
    if isinstance(schema, list | tuple):
        for below in schema:
            below_fragile, below_literal = _traits(below)
            fragile = fragile or below_fragile
            literal = max(literal, below_literal, key=len)
    return fragile, literal


def _least(schema: Mapping[str, Any]) -> int:
    least = schema.get("minLength")
    return least if isinstance(least, int) else 0
