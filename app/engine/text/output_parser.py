"""Splits a model's text into the answer, what it thought before, and the calls that it makes.

Works on text alone, whoever wrote it: a model of this process or one behind another server. Any
cutting of the text into chunks gives the same answer, thoughts and calls.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable

from app.engine.base import GenerateRequest, Item, Reasoning, Text, TokenLogprob, ToolCallPart
from app.engine.text.pieces import TokenTrack, overlap
from app.engine.text.tool_call_text import SPACE, Nesting, read_call_head

THINK, THINK_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"
_ALPHABET = string.ascii_letters + string.digits


class OutputParser:
    """Takes text in chunks of any size and returns items; `flush` once, at the end."""

    def __init__(self, request: GenerateRequest) -> None:
        """Prepare for the output of that request: its tools are the ones that can be called."""
        held_to_schema = request.json_schema is not None and request.tool_choice != "required"
        self._names = frozenset(() if held_to_schema else (tool.name for tool in request.tools))
        self._held = ""
        self._state: Callable[[bool], list[Item] | None] = self._lead
        self._track = TokenTrack()
        self._calls = 0
        self._tagged = False
        self._object = Nesting()

    @property
    def called(self) -> bool:
        """The output held a call."""
        return self._calls > 0

    def feed(self, text: str, logprobs: tuple[TokenLogprob, ...] = ()) -> list[Item]:
        """Return what is certain after one more chunk. `logprobs`: the tokens of that chunk."""
        self._held += text
        self._track.feed(len(text), logprobs)
        return self._work(final=False)

    def flush(self) -> list[Item]:
        """Return what was held back; the output is over."""
        return self._work(final=True)

    def _work(self, *, final: bool) -> list[Item]:
        # A state returns None when it needs more text; otherwise it took some, or handed over.
        items: list[Item] = []
        while self._held and (made := self._state(final)) is not None:
            items += made
        return items

    def _take(self, chars: int) -> tuple[str, tuple[TokenLogprob, ...]]:
        taken, self._held = self._held[:chars], self._held[chars:]
        return taken, self._track.take(chars)

    def _text(self, chars: int) -> list[Item]:
        text, tokens = self._take(chars)
        return [Text(text, tokens)] if text else []

    def _lead(self, final: bool) -> list[Item] | None:
        """Before anything: a block of thoughts, or the answer at once."""
        start = self._held.lstrip(SPACE)
        if start.startswith(THINK):
            self._take(len(self._held) - len(start) + len(THINK))
            self._state = self._thoughts
            return []
        if THINK.startswith(start) and not final:
            return None
        self._state = self._opening
        return []

    def _thoughts(self, final: bool) -> list[Item] | None:
        end = self._held.find(THINK_END)
        ready = (
            end if end >= 0 else len(self._held) - (0 if final else overlap(self._held, THINK_END))
        )
        items: list[Item] = [Reasoning(self._take(ready)[0])] if ready else []
        if end >= 0:
            self._take(len(THINK_END))
            self._state = self._after_thoughts
        return items if items or end >= 0 else None

    def _after_thoughts(self, final: bool) -> list[Item] | None:
        del final
        self._take(len(self._held) - len(self._held.lstrip(SPACE)))
        if self._held:
            self._state = self._opening
        return []

    def _opening(self, final: bool) -> list[Item] | None:
        """The answer's first characters: it may be nothing but a call, without a tag."""
        start = self._held.lstrip(SPACE)
        if not self._names or (start and start[0] != "{"):
            self._state = self._body
            return []
        if not start:
            return self._text(len(self._held)) if final else None
        return self._call(len(self._held) - len(start), final, tagged=False)

    def _body(self, final: bool) -> list[Item] | None:
        """Plain text, in which a tag may begin a call."""
        if not self._names:
            return self._text(len(self._held))
        place = self._held.find(CALL)
        if place == 0:
            self._state = self._tag
            return []
        if place < 0:
            place = len(self._held) - (0 if final else overlap(self._held, CALL))
        return self._text(place) if place else None

    def _tag(self, final: bool) -> list[Item] | None:
        start = self._held[len(CALL) :].lstrip(SPACE)
        if not start and not final:
            return None
        return self._call(len(self._held) - len(start), final, tagged=True)

    def _call(self, start: int, final: bool, *, tagged: bool) -> list[Item] | None:
        """Read the head of a call whose object begins at `start`; what is no call is text."""
        head = read_call_head(self._held, start, self._names)
        if head is None and not final:
            return None
        if head is None or not head.name or (head.closed and not tagged):
            self._state = self._body
            return self._text(len(CALL) if tagged else start + 1)
        self._tagged = tagged
        index, self._calls = self._calls, self._calls + 1
        self._take(head.end)
        known = head.arguments
        if head.closed:
            known, self._state = "{}", self._tail
        elif known is None:
            self._object, self._state = Nesting(), self._arguments
        else:
            self._object, self._state = Nesting(depth=1), self._call_rest
        return [ToolCallPart(index, known or "", id=new_call_id(), name=head.name)]

    def _arguments(self, final: bool) -> list[Item] | None:
        """Inside the arguments: pass them on without white space between the tokens of JSON."""
        del final
        chars, text, ended = self._object.scan(self._held)
        self._take(chars)
        if ended:
            self._object, self._state = Nesting(depth=1), self._call_rest
        return [ToolCallPart(self._calls - 1, text)] if text else []

    def _call_rest(self, final: bool) -> list[Item] | None:
        """After the arguments: what else the call's own object holds is of no use to anybody."""
        del final
        chars, _, ended = self._object.scan(self._held)
        self._take(chars)
        if ended:
            self._state = self._tail
        return []

    def _tail(self, final: bool) -> list[Item] | None:
        """After a call's object: its closing tag; white space before more text stays with it."""
        rest = self._held.lstrip(SPACE)
        space = len(self._held) - len(rest)
        if self._tagged and rest.startswith(CALL_END):
            self._take(space + len(CALL_END))
            self._tagged = False
            return []
        markers = (CALL, CALL_END) if self._tagged else (CALL,)
        if not final and any(marker.startswith(rest) for marker in markers):
            return None
        if not rest or rest.startswith(CALL):
            self._take(space)
        self._state = self._body
        return []


def new_call_id() -> str:
    """Return the id of a call, as OpenAI's API makes them."""
    return "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(24))
