"""`python -m app`: settings in, uvicorn out."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import threading
from importlib.util import find_spec
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError
from sse_starlette.sse import AppStatus

from app.core.worker import close_all

log = structlog.get_logger(__name__)

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


class BoundedServer(Server):
    """Is gone `shutdown_s` after it was told to stop, whatever clients and threads still do.

    Half of that is for the sessions, a quarter for answers and uploads under way.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, shutdown_s: float) -> None:
        config.timeout_graceful_shutdown = max(1, int(shutdown_s / 4))
        super().__init__(config, app)
        self._shutdown_s = shutdown_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # What hangs cannot always be ended; what clients were sent is kept already.
        watchdog = threading.Timer(self._shutdown_s, _exit_now)
        watchdog.daemon = True
        watchdog.start()
        await self._app.state.services().sessions.end_all(self._shutdown_s / 2)
        await super().shutdown(sockets)
        # Here and not in lifespan: the signal is raised again, which leaves no time for `atexit`.
        await asyncio.to_thread(close_all)


def _exit_now() -> None:
    log.warning("shutdown_cut_short")
    os._exit(0)


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
        shutdown_s=settings.shutdown_seconds,
        proxy_headers=settings.forwarded_allow_ips is not None,
        forwarded_allow_ips=settings.forwarded_allow_ips or "",
    )


def serve(app: FastAPI, *, shutdown_s: float = 8.0, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, then be gone within `shutdown_s`; `options` are uvicorn's."""
    if find_spec("httptools"):
        from app.core.connections import BoundedProtocol

        if options.get("proxy_headers"):
            BoundedProtocol.max_per_client = None
        options["http"] = BoundedProtocol
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        **options,
    )
    # What was imported stays for ever: the collector need not walk through it again and again,
    # which holds every stream for the length of a collection (seen by bench.streams).
    gc.collect()
    gc.freeze()
    BoundedServer(config, app, shutdown_s).run()


if __name__ == "__main__":
    main()
