"""A stream of another server, byte by byte into the objects that it is made of.

Knows Server-Sent Events and their limits; not what a chunk means.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, cast

import httpx
from httpx_sse import EventSource, SSEError

from app.engine.remote.errors import failed, failed_in_stream, unavailable

# One event: a whole article in one chunk fits, a server gone mad does not.
MAX_EVENT_CHARS = 4_000_000
# After [DONE] the body ends at once; reading to there keeps the connection for the next request.
DRAIN_S = 0.1


async def read_chunks(response: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the objects of a stream up to [DONE] or its end.

    Raises:
        GenerationFailed: it holds an error, or what is no chunk.
        EngineUnavailable: it is no stream of events.
        httpx.RequestError: the connection failed.
    """
    source = _Bounded(response)
    events = EventSource(cast(httpx.Response, source)).aiter_sse()
    # httpx-sse leaves what it reads from to the garbage collector.
    async with aclosing(source), aclosing(events):
        try:
            async for event in events:
                source.chars = 0
                if event.data.strip() == "[DONE]":
                    with suppress(TimeoutError):
                        async with asyncio.timeout(DRAIN_S):
                            await anext(events, None)
                    return
                if event.data:
                    yield _chunk(event.data)
        except SSEError as exc:
            raise unavailable(
                "The model server does not stream its answers; check that ENGINE_URL is the "
                "address of an OpenAI-compatible server."
            ) from exc


class Characters:
    """Whole characters: the halves of a surrogate pair may come in two chunks."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text with its pairs joined; half a pair at its end waits."""
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1:] <= "\udbff" else ""
        return joined(text[: len(text) - len(self._half)])

    def flush(self) -> str:
        """Return what waited in vain."""
        half, self._half = self._half, ""
        return joined(half)


def joined(text: str) -> str:
    """Return the text with its surrogate pairs joined, and a mark for each half that is left."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


class _Bounded:
    """A response as `EventSource` reads it, which no endless event can fill the memory with.

    `chars`: how many came since it was last set to 0.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.headers = response.headers
        self.chars = 0
        self._texts = self._read(response)

    def aiter_text(self) -> AsyncGenerator[str, None]:
        return self._texts

    async def aclose(self) -> None:
        await self._texts.aclose()

    async def _read(self, response: httpx.Response) -> AsyncGenerator[str, None]:
        async for text in response.aiter_text():
            self.chars += len(text)
            if self.chars > MAX_EVENT_CHARS:
                raise failed("The model server sent more at once than any answer can be.")
            yield text


def _chunk(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as exc:
        raise failed("The model server sent something that is no JSON; try again.") from exc
    if not isinstance(chunk, dict):
        raise failed("The model server sent something that is no chunk of an answer; try again.")
    if chunk.get("error") or chunk.get("object") == "error":
        raise failed_in_stream(chunk.get("error") or chunk)
    return chunk
