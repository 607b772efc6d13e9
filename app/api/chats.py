"""From a checked request to a chat's session: what all endpoints that answer with a chat share.

They differ in their bodies and in their wire forms only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from app.api.deps import Services, owner_of_request
from app.core.errors import AppError, Cancelled
from app.schemas.openai import ChatRequest
from app.services.chat.answer import Answer, Piece
from app.stream.event import Draft
from app.stream.log import Header

Result = TypeVar("Result")


class AnswerEncoder(Protocol):
    """The wire form of one answer."""

    def encode(self, piece: Piece) -> Sequence[Draft]:
        """Return the events of a piece; those of a `Finish` end with the terminal one."""
        ...

    def ending(self, error: AppError) -> Sequence[Draft]:
        """Return what ends the answer instead."""
        ...


@dataclass(frozen=True, slots=True)
class OpenChat:
    """A chat's session, and with what it failed where this request started it.

    An event of the log has no status and no `Retry-After`; the error itself has both.
    """

    header: Header
    failures: list[AppError] = field(default_factory=list)

    def failure(self) -> AppError | None:
        """Return the error that ended the session, None where it is not known here."""
        return self.failures[0] if self.failures else None


async def open_chat(
    request: Request,
    services: Services,
    body: ChatRequest,
    *,
    kind: str,
    encoder: Callable[[Answer], AnswerEncoder],
    fingerprint: str = "",
    linger_s: float | None = None,
) -> OpenChat:
    """Start the session of a request, or join the one that its session id runs already.

    `kind`: the wire form among the kinds of sessions. `fingerprint`: what two requests with the
    same session id must have in common to be one session. `linger_s`: how long the answer goes on
    without a follower; None for ever.

    Raises:
        AppError: before any work.
    """
    owner = owner_of_request(request)
    if body.session_id:
        header = await services.sessions.running(owner, fingerprint, body.session_id)
        if header is not None:
            return OpenChat(header)
    failures: list[AppError] = []
    async with services.sessions.reserve() as reservation:
        answer = Answer(await services.chat.accept(body))
        wire = encoder(answer)

        async def drafts() -> AsyncGenerator[Draft, None]:
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    for draft in wire.encode(piece):
                        yield draft

        def ending(error: AppError) -> Sequence[Draft]:
            # Without its traceback, which holds on to the prompt.
            failures.append(error.copy())
            return wire.ending(error)

        header = await services.sessions.start(
            kind,
            drafts,
            owner=owner,
            session_id=body.session_id,
            fingerprint=fingerprint,
            linger_s=linger_s,
            reservation=reservation,
            ending=ending,
        )
    return OpenChat(header, failures)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Wait for something as long as the client does.

    Raises:
        Cancelled: the client has gone; what it asked for is left to its session.
        AppError: what the work raises.
    """

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        raise Cancelled("the client has gone")

    failures: list[AppError] = []
    try:
        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch())
            working = group.create_task(work)
            working.add_done_callback(lambda _: watcher.cancel())
    except* AppError as errors:
        failures = [error for error in errors.exceptions if isinstance(error, AppError)]
    if failures:
        raise failures[0]
    return working.result()
