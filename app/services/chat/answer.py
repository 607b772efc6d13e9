"""The answer to a chat as neutral pieces, which each endpoint puts into its own wire form.

    Begin                             the engine has begun; comes first
    Text | Reasoning | ToolCallPart   a piece of the output, or several joined
    Finish                            comes last, once

This is where a chat's engine runs. It knows no session, no event and no request of HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from app.engine.base import Finish, Reasoning, Text, ToolCallPart
from app.services.chat.request import Accepted
from app.stream.coalesce import Coalescer

Output = Text | Reasoning | ToolCallPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The engine has begun. `dropped`: how many of the oldest messages the prompt lost to fit."""

    dropped: int = 0
    prompt_tokens: int | None = None
    context_tokens: int | None = None


Piece = Begin | Output | Finish


class Answer:
    """One answer of an engine; `pieces` may be iterated once."""

    def __init__(self, accepted: Accepted) -> None:
        self.engine = accepted.engine
        self._fitted = accepted.fitted
        self._received = 0

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yield the answer; closing the generator stops the engine.

        Raises:
            AppError: as the engine does.
        """
        fitted = self._fitted
        output: Coalescer[Output] = Coalescer(_join)
        begun = False
        async with aclosing(self.engine.generate(fitted.request)) as items:
            async for item in items:
                if not begun:
                    begun = True
                    yield Begin(
                        dropped=fitted.dropped,
                        prompt_tokens=fitted.prompt_tokens,
                        context_tokens=fitted.context_tokens,
                    )
                match item:
                    case Text() | Reasoning() | ToolCallPart():
                        self._received += 1
                        for piece in output.feed(item):
                            yield piece
                    case Finish():
                        for piece in output.flush():
                            yield piece
                        yield item
                        return

    def cancelled(self) -> Finish:
        """Return the end of an answer that was stopped; a piece counts as a token."""
        return Finish("cancelled", self._fitted.prompt_tokens or 0, self._received)


def _join(before: Output, piece: Output) -> Output | None:
    """Return two pieces as one, or None where they are of different kinds."""
    match before, piece:
        case Text(), Text():
            return Text(before.text + piece.text, before.logprobs + piece.logprobs)
        case Reasoning(), Reasoning():
            return Reasoning(before.text + piece.text)
        case ToolCallPart(), ToolCallPart(id=None) if before.index == piece.index:
            return ToolCallPart(
                before.index, before.arguments + piece.arguments, before.id, before.name
            )
    return None
