"""A server whose streams fall silent three times, each time for three heartbeats.

They are counted where the application hands them over, one after the other: so a silence is as
short as heartbeats allow, and never too short, however slow the machine is.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.base import Status
from tests.article_engine import start
from tests.engines import ARTICLE, SUMMARY_TEXT, Gate, pieces_of
from tests.servers import NDJSON, PROSE, STREAM, Running, serving
from tests.web.answering import SECTION_TEXT, STYLED, AnsweringEngine

CHAT = "/v1/chat/completions"
# A silence takes two of them at least, which is longer than V3 and jobs hold pieces back
# (PIECE_INTERVAL_S), so that something is always told between two silences.
HEARTBEAT_S = 0.02
# In each silence, at the least.
HEARTBEATS = 3
PIECES = pieces_of(SUMMARY_TEXT)

SUMMARY_BODY = {"text": ARTICLE, "use_cache": False}
CHAT_BODY: dict[str, Any] = {
    "model": "anything",
    "messages": [{"role": "user", "content": "Say hello"}],
    "stream": True,
    "stream_options": {"include_usage": True},
}
# Streams that are answers to a POST; the other two are followed by GET.
POSTED: dict[str, tuple[str, dict[str, Any]]] = {
    "v4 text": (STREAM, SUMMARY_BODY),
    "v4 patches": (NDJSON, SUMMARY_BODY),
    "v3": (PROSE, SUMMARY_BODY),
    "v1": (CHAT, CHAT_BODY),
}
STREAMS = (*POSTED, "session", "job")


class Silence(Gate):
    """A gate of the engine. `heartbeats`: how many came in a row while the engine waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = False
        self.heartbeats = 0

    async def passed(self) -> None:
        self.waited_for = True
        await super().passed()


@dataclass
class Silent:
    """A stream that falls silent, how a client asks for it, and what it was sent."""

    server: Running
    path: str
    body: dict[str, Any] | None
    silences: list[Silence]
    statuses: list[int] = field(default_factory=list)
    sent: bytes = b""

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"

    def hear(self, message: Message) -> None:
        """Keep what was sent to the client; end a silence that has lasted."""
        if message["type"] == "http.response.start":
            self.statuses.append(message["status"])
        body = message.get("body", b"")
        self.sent += body
        silence = next((one for one in self.silences if one.waited_for), None)
        if silence is not None and body:
            silence.heartbeats = silence.heartbeats + 1 if body.startswith(b":") else 0
            if silence.heartbeats == HEARTBEATS:
                self.silences.remove(silence)
                silence.open()


class Edge:
    """Stands before an application, and lets the stream of `heard` hear what is sent for it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.heard: Silent | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = self.heard

        async def told(message: Message) -> None:
            # Before it is sent: who has read all of a stream finds all of it kept.
            if heard is not None:
                heard.hear(message)
            await send(message)

        ours = heard is not None and scope.get("path") == heard.path
        await self._app(scope, receive, told if ours else send)


@dataclass
class Silencer:
    """A server that runs, its engine and its edge."""

    server: Running
    engine: AnsweringEngine
    edge: Edge

    @contextmanager
    def falling_silent(self, stream: str) -> Iterator[Silent]:
        """Make one of `STREAMS` silent before the first token, in the middle, before the end."""
        silences = [Silence() for _ in range(3)]
        self._script(*silences)
        with ExitStack() as stack:
            stack.callback(lambda: [silence.open() for silence in silences])
            path, body = POSTED.get(stream) or (self._begun(stream, stack), None)
            silent = self.edge.heard = Silent(self.server, path, body, list(silences))
            yield silent

    def _script(self, first: Silence, middle: Silence, last: Silence) -> None:
        half = len(PIECES) // 2
        whole = [Status("writing"), first, *PIECES[:half], middle, *PIECES[half:], last]
        self.engine.summary = self.engine.chat = whole
        self.engine.outline = [first, *AnsweringEngine().outline]
        self.engine.section = [SECTION_TEXT[:9], middle, SECTION_TEXT[9:]]
        self.engine.article = [*pieces_of(STYLED), last]

    def _begun(self, stream: str, stack: ExitStack) -> str:
        """Begin what is followed by GET; return the path of its events."""
        if stream == "job":
            return f"/progress/{start(self.server)}"
        session_id = secrets.token_hex(4)
        client = stack.enter_context(self.server.client())
        body = {**SUMMARY_BODY, "session_id": session_id}
        # Nobody reads it: the heartbeats that count are those of the follower.
        stack.enter_context(client.stream("POST", STREAM, json=body))
        return f"/api/sessions/{session_id}/events"


@contextmanager
def silencer() -> Iterator[Silencer]:
    """Run the server."""
    engine = AnsweringEngine()
    with serving(engine, heartbeat_seconds=HEARTBEAT_S) as server:
        whole = server.app.middleware_stack
        assert whole is not None, "it is built when the server starts"
        server.app.middleware_stack = edge = Edge(whole)
        yield Silencer(server, engine, edge)
