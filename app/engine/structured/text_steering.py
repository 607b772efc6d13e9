"""Steers the free strings of a JSON text towards ends that people write.

The grammar says what may come next; of that, this prefers what does not end a string inside a
word, after a space or inside a quotation, ends a bounded one where a sentence ends, and does not
repeat. It only chooses among what is allowed: where nothing else is left, the grammar wins. Enums,
patterns, exact values and names are not touched: a string is free when most tokens may begin it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from app.engine.structured.string_state import (
    StringState,
    at_sentence_end,
    followers,
    may_end,
    next_of_repeat,
    open_quote,
    repeats,
    words_of,
)
from app.engine.structured.token_ends import (
    ESCAPED_QUOTE,
    TokenEnds,
    only,
    or_else,
    spaced_script,
)

if TYPE_CHECKING:
    import torch

FREE_SHARE = 0.5
MOST_CHARS = 4_000
# From this share of a bound on an end of a sentence ends the string.
LATE_SHARE = 0.8
STOP_BONUS = 6.0
SHORTEST_BOUND = 40
# So many characters before the bound, or tokens before the budget, the next end of a word is taken.
CUT_CHARS = 20
CUT_TOKENS = 4
LATE_TOKENS = 20
TOKENS_A_STRING = 8
QUOTATION_CHARS = 16
# Words of a beginning, and tokens anywhere, that may be said twice.
LEAST_WORDS = 4
LEAST_WORDS_ELSEWHERE = 8
LOOP_TOKENS = 6
# Ends that are looked at, and how far below the best token (natural logarithms).
LIKELY_ENDS = 4
UNLIKELY = 14.0
ECHO_TOKENS = 14


class TextSteering:
    """What is known of the strings of one generation.

    `prose`: members whose strings are sentences; strings in their lists are points, each of which
    says something that no other one and no sentence says.
    """

    def __init__(self, ends: TokenEnds, prose: Collection[str] = ()) -> None:
        self._ends = ends
        self._prose = frozenset(prose)
        self._state = StringState()
        self._tokens: list[int] = []
        self._earlier_tokens: list[list[int]] = []
        self._free: bool | None = None
        self._bound: int | None = None

    def take(self, token: int, data: bytes) -> None:
        """Append a token's bytes to the text."""
        was_open = self._state.in_value
        values = len(self._state.done)
        self._state.take(data)
        if len(self._state.done) > values and self._tokens:
            self._earlier_tokens.append(self._tokens)
        if not self._state.in_value or not was_open or len(self._state.done) > values:
            self._tokens, self._free, self._bound = [], None, None
        if self._state.in_value:
            self._tokens.append(token)

    def steer(
        self,
        mask: torch.Tensor,
        scores: torch.Tensor,
        *,
        room: Callable[[bytes], int],
        spare: int,
        coming: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a part of `mask` that is not empty, and the scores to choose by.

        Both are (vocabulary,). `room` counts how many of some bytes may follow. `spare`: tokens
        that the budget has beyond the shortest completion; `coming`: strings still to be written.
        """
        ends, state = self._ends, self._state
        count = mask.shape[0]
        if not state.open:
            return or_else(mask & ~ends.opens_blank[:count], mask), scores
        if state.escaped and state.in_value and open_quote(state.text + '"') == "":
            quoting = ends.closing.get(b"")
            return (or_else(only(mask, quoting), mask) if quoting is not None else mask), scores
        if not state.in_value or not state.whole or not self._is_free(mask, room):
            return mask, scores
        return self._steer_text(mask, scores, spare=spare, coming=coming)

    def _is_free(self, mask: torch.Tensor, room: Callable[[bytes], int]) -> bool:
        if self._free is None:
            plain = ~self._ends.ends[: mask.shape[0]]
            self._free = float((mask & plain).sum()) >= FREE_SHARE * float(plain.sum())
            left = room(b"a" * MOST_CHARS) if self._free else 0
            if 0 < left < MOST_CHARS:
                self._bound = left + len(self._state.text)
        return self._free

    def _steer_text(
        self, mask: torch.Tensor, scores: torch.Tensor, *, spare: int, coming: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ends, text, count = self._ends, self._state.text, mask.shape[0]
        kept = mask & ~ends.starts_blank[:count] if not text else mask.clone()
        left = MOST_CHARS if self._bound is None else self._bound - len(text)
        spare -= TOKENS_A_STRING * coming
        cutting = left <= self._cut_chars() or spare <= CUT_TOKENS
        late = cutting or spare <= LATE_TOKENS
        if self._bound is not None and self._bound >= SHORTEST_BOUND:
            late = late or len(text) >= LATE_SHARE * self._bound
        self._drop_repeats(kept)
        closing = mask & ends.ends[:count]
        bad = self._bad_ends(closing, kept, scores)
        kept &= ~bad
        scores = self._meant(kept, bad, scores, quoting=not cutting and left > QUOTATION_CHARS)
        if cutting:
            if not open_quote(text):
                kept &= ~ends.quotes[:count]
            kept = self._cut(kept, mask, scores, left)
            kept = or_else(kept & ~ends.blank[:count], kept)
        elif late:
            kept, scores = self._late(kept, scores)
        return or_else(kept, mask), scores

    def _cut_chars(self) -> int:
        return min(CUT_CHARS, (self._bound or 0) // 4)

    def _sentences(self) -> bool:
        """The open string is one of sentences."""
        return self._state.name in self._prose and not self._state.item

    def _bad_ends(
        self, closing: torch.Tensor, kept: torch.Tensor, scores: torch.Tensor
    ) -> torch.Tensor:
        """Return which of the tokens that would end the string may not: (vocabulary,) bool.

        Only the likeliest are looked at; the others may not, since they would not be chosen.
        """
        import torch

        text, bad = self._state.text, closing.clone()
        best = scores.masked_fill(~kept, -torch.inf).max()
        likely = scores.masked_fill(~closing, -torch.inf).topk(min(LIKELY_ENDS, len(closing)))
        repeated: bool | None = None
        words = kept & self._ends.continues[: kept.shape[0]]
        for score, token in zip(likely.values.tolist(), likely.indices.tolist(), strict=True):
            if score < float(best) - UNLIKELY:
                break
            head = self._ends.data[token].partition(b'"')[0]
            # In the middle of a word: the model would rather go on with it.
            inside = not head and spaced_script(text[-1:] or " ")
            if inside and score < float(scores.masked_fill(~words, -torch.inf).max()):
                continue
            if not self._ends_well(text + head.decode("utf-8", "replace")):
                continue
            repeated = self._is_repeat(text) if repeated is None else repeated
            bad[token] = repeated
        return bad

    def _ends_well(self, text: str) -> bool:
        if not text:
            return True
        sentences = self._sentences()
        if not may_end(text, prose=self._state.name in self._prose):
            return False
        return not (sentences and spaced_script(text[-1]) and not at_sentence_end(text))

    def _is_repeat(self, text: str) -> bool:
        state = self._state
        if not state.item or state.name not in self._prose:
            return (
                state.item
                and len(words_of(text)) >= LEAST_WORDS_ELSEWHERE
                and (state.name, text) in state.done
            )
        return any(repeats(text, earlier) for earlier in self._state.said_before(self._prose))

    def _meant(
        self, kept: torch.Tensor, bad: torch.Tensor, scores: torch.Tensor, *, quoting: bool
    ) -> torch.Tensor:
        """Give what was meant by an end that is refused its score: an inner quote, a full stop."""
        import torch

        if not bool(bad.any()):
            return scores
        text, data = self._state.text, self._ends.data
        refused = scores.masked_fill(~bad, -torch.inf)
        token = int(refused.argmax())
        if float(refused[token]) < float(scores.masked_fill(~kept, -torch.inf).max()) - UNLIKELY:
            return scores
        head = data[token].partition(b'"')[0]
        after = text + head.decode("utf-8", "replace")
        meant = b""
        if open_quote(after) or (quoting and (after[-1:] == " " or not after)):
            meant = head + (ESCAPED_QUOTE if open_quote(after) != "”" else "”".encode())
        elif self._sentences() and spaced_script(after[-1:] or " "):
            meant = head + b"."
        for spelling in (meant, meant[:-1], head):
            target = self._ends.spells.get(spelling) if meant and spelling else None
            if target is not None and target < kept.shape[0] and bool(kept[target]):
                scores = scores.clone()
                scores[target] = torch.maximum(scores[target], scores[token])
                break
        return scores

    def _late(self, kept: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Near the bound: end where a sentence ends, and end sentences sooner."""
        text, count = self._state.text, kept.shape[0]
        if at_sentence_end(text):
            return or_else(only(kept, self._ends.closing.get(b"")), kept), scores
        long = self._bound is not None and len(words_of(text)) >= LEAST_WORDS_ELSEWHERE
        if self._bound and long and spaced_script(text[-1]) and not text[-1].isdigit():
            share = (len(text) / self._bound - LATE_SHARE) / (1 - LATE_SHARE)
            bonus = STOP_BONUS * min(1.0, max(0.0, share))
            scores = scores + bonus * self._ends.stops[:count]
        return kept, scores

    def _cut(
        self, kept: torch.Tensor, mask: torch.Tensor, scores: torch.Tensor, left: int
    ) -> torch.Tensor:
        """At the end of the room: end after this word, with an ellipsis where it was a sentence."""
        import torch

        text, count = self._state.text, kept.shape[0]
        if not text or text[-1].isspace():
            return kept
        plain = kept & ~self._ends.ends[:count]
        inside = spaced_script(text[-1])
        if inside and left > 2 and bool(plain.any()):
            best = int(scores.masked_fill(~plain, -torch.inf).argmax())
            if bool(self._ends.continues[best]):
                return kept
        quote = open_quote(text)
        for wanted in (ESCAPED_QUOTE if quote == '"' else quote.encode(), b"\\" * (quote == '"')):
            if wanted and (found := self._one(mask, wanted)) is not None:
                return found
        if self._sentences() and not at_sentence_end(text) and left > 1:
            for wanted in ("…".encode(), b"."):
                if (found := self._one(mask, wanted)) is not None:
                    return found
        if text.endswith((",", ";", ":")):
            return kept
        return or_else(only(mask, self._ends.closing.get(b"")), kept)

    def _one(self, mask: torch.Tensor, spelling: bytes) -> torch.Tensor | None:
        token = self._ends.spells.get(spelling)
        if token is None or token >= mask.shape[0] or not bool(mask[token]):
            return None
        import torch

        return only(mask, torch.tensor([token]))

    def _drop_repeats(self, kept: torch.Tensor) -> None:
        """Refuse tokens that go on with a loop, with an echo, or with what was said before."""
        state = self._state
        if state.name not in self._prose:
            return
        banned = followers(self._tokens, self._tokens, LOOP_TOKENS)
        if state.item:
            for earlier in self._earlier_tokens:
                banned += followers(earlier, self._tokens, ECHO_TOKENS)
            for said in self._state.said_before(self._prose):
                if following := next_of_repeat(state.text, said, LEAST_WORDS):
                    banned += self._ends.prefixes(following.encode())
        for token in banned:
            if token < kept.shape[0] and not bool(self._ends.ends[token]):
                kept[token] = False
