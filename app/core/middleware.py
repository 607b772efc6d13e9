"""What every request passes: a request id, a key and a rate, a limit on the body.

Plain ASGI, so that streams pass through untouched.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.errors import AppError, BodyTooLarge, InternalError, InvalidInput, TimedOut
from app.core.metrics import FIRST_BYTE, LAST_BYTE, REQUESTS
from app.core.responses import app_error_response

log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_UPLOAD_S = 60.0
# A JSON body of more values than this is refused before it is parsed: each value costs time on the
# event loop several times over (parsing, checking, an error that quotes it). Commas and opening
# brackets are counted, also those inside strings: no prompt that a model can read has so many.
MAX_JSON_VALUES = 20_000
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"))
_FORM_TYPES = ("multipart/", "application/x-www-form-urlencoded")


class RequestContext:
    """Give each request an id, put it in every log line and in the response, log the outcome."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started_s = time.monotonic()
        status = 0
        first_byte_s: float | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal status, first_byte_s
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            elif first_byte_s is None and message.get("body"):
                first_byte_s = time.monotonic() - started_s
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            duration_s = time.monotonic() - started_s
            _count(scope, status, first_byte_s, duration_s)
            # The query is left out: it may hold the address that somebody reads.
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                first_byte_ms=None if first_byte_s is None else round(first_byte_s * 1000, 1),
                duration_ms=round(duration_s * 1000, 1),
            )


def _count(scope: Scope, status: int, first_byte_s: float | None, duration_s: float) -> None:
    # Only what the router knows: what strangers ask for would be labels without end.
    route = getattr(scope.get("route"), "path", None) or "unmatched"
    method = scope["method"] if scope["method"] in _METHODS else "other"
    # A client that left before the status: nginx has a number for it.
    REQUESTS.labels(method, route, str(status or 499)).inc()
    LAST_BYTE.labels(route).observe(duration_s)
    if first_byte_s is not None:
        FIRST_BYTE.labels(route).observe(first_byte_s)


class ServerErrorMiddleware:
    """Answer 500 for what nobody foresaw, and log it once, with the request's id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("request_failed")
            if begun:
                # The status is out; only a broken connection can say that the rest is missing.
                raise
            error = InternalError("the server failed; its log has the request id")
            await app_error_response(scope, error)(scope, receive, send)


class AuthMiddleware:
    """Refuse a request by what `admit` raises, before its body is read."""

    def __init__(self, app: ASGIApp, admit: Callable[[Scope], Awaitable[None]]) -> None:
        self._app = app
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._admit(scope)
            except AppError as error:
                await app_error_response(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Read the whole body, up to a size and within a time, before the application sees it.

    What is no form may be JSON, whose values are bounded too. `larger`: paths whose bodies may be
    larger.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, larger: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except AppError as error:
            await app_error_response(scope, error)(scope, receive, send)
            return
        if body is None:
            return
        pending = True

        async def replay() -> Message:
            nonlocal pending
            if pending:
                pending = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        max_bytes = max(self._max_bytes, self._larger.get(scope["path"], 0))
        too_large = BodyTooLarge(f"the body is larger than {max_bytes} bytes; send less")
        headers = Headers(scope=scope)
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("", "identity"):
            raise InvalidInput(
                f"this server reads no compressed bodies ({coding[:40]}); send it as it is",
                code="unsupported_encoding",
                status=415,
            )
        declared = headers.get("content-length", "")
        if declared.isdigit() and int(declared) > max_bytes:
            raise too_large
        is_form = headers.get("content-type", "").lower().startswith(_FORM_TYPES)
        body = bytearray()
        values = 0
        try:
            async with asyncio.timeout(_UPLOAD_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    body += part
                    if len(body) > max_bytes:
                        raise too_large
                    values += 0 if is_form else _json_values(part)
                    if values > MAX_JSON_VALUES:
                        raise InvalidInput(
                            f"the body has more than {MAX_JSON_VALUES} values; send shorter lists",
                            code="too_many_values",
                        )
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise TimedOut(
                f"the body did not arrive within {_UPLOAD_S:g} s", code="upload_timeout", status=408
            ) from None


def _json_values(part: bytes) -> int:
    """Return an upper bound of the values that begin in a part of a JSON text."""
    return part.count(b",") + part.count(b"[") + part.count(b"{")
