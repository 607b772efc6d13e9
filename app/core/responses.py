"""Turn an error into a response: the shape of the API for most paths, OpenAI's for `/v1`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Scope

from app.core.errors import AppError, Conflict
from app.core.openai_errors import openai_error

# One wrong list can break a rule in every element; the first errors say what is to be mended.
MAX_ERRORS = 5
_HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}


def error_response(
    scope: Scope,
    *,
    status: int,
    code: str,
    detail: Any,
    message: str | None = None,
    param: str | None = None,
    headers: dict[str, str] | None = None,
    current: Mapping[str, Any] | None = None,
) -> JSONResponse:
    """Build the body of C16. `detail` is text or FastAPI's list; `message` its one-line form.

    `param`: the field at fault, as `/v1` names it. `current`: what is there now (a conflict).
    """
    request_id = scope.get("state", {}).get("request_id", "")
    if scope["path"].startswith("/v1/"):
        status = 400 if status == 422 else status
        content = openai_error(message or str(detail), status=status, code=code, param=param)
    else:
        content = {"detail": detail, "code": code, "request_id": request_id}
        if current is not None:
            content["current"] = dict(current)
    sent = {"X-Request-ID": request_id, **(headers or {})}
    if status == 401:
        sent["WWW-Authenticate"] = "Bearer"
    return JSONResponse(json.loads(_encodable(content)), status_code=status, headers=sent)


def app_error_response(scope: Scope, error: AppError) -> JSONResponse:
    """Answer with an error of the tree."""
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    return error_response(
        scope,
        status=error.status,
        code=error.code,
        detail=error.message,
        param=error.param,
        headers=headers,
        current=error.current if isinstance(error, Conflict) else None,
    )


def _param(loc: Sequence[str | int]) -> str | None:
    """Return where a field is as OpenAI writes it: `messages[0].role`."""
    steps = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc if part != "body"]
    return "".join(steps).lstrip(".") or None


def _encodable(content: Any) -> bytes:
    # A client can send lone surrogates; they must not break the answer that quotes them.
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")


def install_error_handlers(app: FastAPI) -> None:
    """Register the one handler that catches before the first byte."""

    async def on_app_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AppError)  # noqa: S101  (the registration below says so)
        return app_error_response(request.scope, error)

    async def on_invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        # What was sent is not sent back: it may be long, and it may be private.
        found = [
            {k: v for k, v in e.items() if k in ("type", "loc", "msg")}
            for e in error.errors()[:MAX_ERRORS]
        ]
        first = found[0] if found else {"loc": (), "msg": "invalid"}
        where = ".".join(str(part) for part in first["loc"])
        return error_response(
            request.scope,
            status=422,
            code="validation_error",
            detail=jsonable_encoder(found),
            message=f"{where}: {first['msg']}",
            # Broken JSON has a position, and no field.
            param=None if first.get("type") == "json_invalid" else _param(first["loc"]),
        )

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        code = _HTTP_CODES.get(error.status_code, "http_error")
        return error_response(
            request.scope,
            status=error.status_code,
            code=code,
            detail=error.detail,
            headers=dict(error.headers or {}),
        )

    app.add_exception_handler(AppError, on_app_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
