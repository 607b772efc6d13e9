"""`python -m app`: settings in, uvicorn out."""

from __future__ import annotations

import gc
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from sse_starlette.sse import AppStatus

# `Server` ends the sessions, so that each stream gets its terminal event; the library's own drain
# would cut them off. Other ways to serve the application keep it.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


class Server(uvicorn.Server):
    """Ends all sessions before uvicorn waits for its connections.

    Each open stream gets its terminal event, and the connections close by themselves; otherwise
    uvicorn waits for them for ever (measured).
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.state.services().sessions.end_all()
        await super().shutdown(sockets)


def main() -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SystemExit: a setting is wrong; the message names it.
    """
    try:
        from app.main import app, settings
    except ValidationError as error:
        for problem in error.errors():
            name = str(problem["loc"][0]).upper() if problem["loc"] else "settings"
            sys.stderr.write(f"{name}: {problem['msg']}\n")
        raise SystemExit(2) from None

    serve(
        app,
        host=settings.host,
        port=settings.port,
        proxy_headers=settings.forwarded_allow_ips is not None,
        forwarded_allow_ips=settings.forwarded_allow_ips or "",
    )


def serve(app: FastAPI, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT; `options` are uvicorn's."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=30,
        server_header=False,
        **options,
    )
    # What was imported stays for ever: the collector need not walk through it again and again,
    # which holds every stream for the length of a collection (seen by bench.streams).
    gc.collect()
    gc.freeze()
    Server(config, app).run()


if __name__ == "__main__":
    main()
