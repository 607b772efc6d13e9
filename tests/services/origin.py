"""A scripted HTTP origin on loopback that writes raw bytes, so that it can also lie and break."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Script = Callable[["Exchange"], Awaitable[None]] | bytes

PARAGRAPHS = (
    "The harbour council voted on Tuesday to replace the old ferry with two electric boats. "
    "The decision ends a debate that has divided the island for almost a decade. ",
    "Each boat will carry eighty passengers and charge at the pier between crossings. "
    "Engineers expect the running costs to fall by a third within three years. ",
    "Residents who depend on the night service said that they would watch the timetable closely. "
    "The first crossing is planned for the spring. ",
)


def article_html(*paragraphs: str, head: str = "", lang: str = "en") -> str:
    text = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs or PARAGRAPHS)
    return (
        f'<!doctype html><html lang="{lang}"><head><title>Ferry</title>{head}</head><body>'
        f"<nav><a href=/>Home</a> <a href=/news>News</a></nav><article><h1>Ferry</h1>{text}"
        "</article><footer>All rights reserved</footer></body></html>"
    )


def response(
    body: bytes | str = b"",
    *headers: str,
    status: str = "200 OK",
    content_type: str | None = "text/html; charset=utf-8",
    length: int | None = None,
) -> bytes:
    """Return a whole response; `length` overrides the truthful Content-Length."""
    data = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data) if length is None else length}"]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    return "\r\n".join([*lines, *headers, "", ""]).encode() + data


def redirect(location: str, status: str = "302 Found") -> bytes:
    return response(b"", f"Location: {location}", status=status)


class Exchange:
    """One request, and the connection on which a script answers it."""

    def __init__(self, head: str, writer: asyncio.StreamWriter) -> None:
        self.head = head
        self.path = head.split(" ")[1]
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


class Origin:
    """Answers every path with its script, 404 otherwise. `heads`: the requests it got."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.heads: list[str] = []
        self.connections = 0
        self.asked = asyncio.Event()
        self.port = 0
        self.scheme = "http"

    @property
    def authority(self) -> str:
        return f"localhost:{self.port}"

    def url(self, path: str = "/") -> str:
        return f"{self.scheme}://{self.authority}{path}"

    def hits(self, path: str) -> int:
        return sum(head.split(" ")[1] == path for head in self.heads)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            exchange = Exchange(head, writer)
            self.heads.append(head)
            self.asked.set()
            script = self.scripts.get(exchange.path, response(status="404 Not Found"))
            if isinstance(script, bytes):
                await exchange.send(script)
            else:
                await script(exchange)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    origin = Origin()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # asyncio reports a cancelled connection as an error, and here it is the usual end.
        with suppress(asyncio.CancelledError):
            await origin.serve(reader, writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    origin.port = server.sockets[0].getsockname()[1]
    origin.scheme = "https" if tls else "http"
    try:
        yield origin
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def on_loopback(host: str, port: int) -> list[str]:
    """Resolve every name to the machine the tests run on."""
    return ["127.0.0.1"]
