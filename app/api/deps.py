"""What the endpoints are handed: the long-lived parts, and whose request it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from app.engine.base import Engine
from app.engine.registry import Registry
from app.services.articles.writer import ArticleWriter
from app.services.chat.request import Chat
from app.services.market.market import Market
from app.services.ocr.reader import CardReader
from app.services.summaries.summarizer import Summarizer
from app.stream.sessions import Sessions
from app.stream.sse import Trailer


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The long-lived parts of one application.

    `started_at`: Unix seconds. `trailers`: for each kind of session, what its wire form sends
    after the terminal event. `hold_s`: how long a response waits for its first event.
    `memory_sessions`: those of the kinds in `private_kinds`, which no log may keep.
    """

    sessions: Sessions
    memory_sessions: Sessions
    private_kinds: frozenset[str]
    cards: CardReader
    summarizer: Summarizer
    chat: Chat
    writer: ArticleWriter
    market: Market
    engine: Engine
    engines: Registry
    model_info: Callable[[], dict[str, Any]]
    roles_info: Callable[[], dict[str, Any]]
    version: str
    started_at: int
    trailers: Mapping[str, Trailer]
    linger_s: float | None
    heartbeat_s: float
    hold_s: float

    def sessions_of(self, kind: str) -> Sessions:
        """Return the sessions that a kind belongs to."""
        return self.memory_sessions if kind in self.private_kinds else self.sessions


async def services_of(request: Request) -> Services:
    """Return the application's parts."""
    services: Services = request.app.state.services()
    return services


ServicesDep = Annotated[Services, Depends(services_of)]


def owner_of_request(request: Request) -> str:
    """Return whose sessions the request may see; empty when the server asks for no keys."""
    owner: str = request.scope.get("state", {}).get("owner", "")
    return owner
