"""What another server's errors become: our errors, in our words.

Knows the error bodies of OpenAI-compatible servers, and nothing of requests or replicas.
"""

from __future__ import annotations

import json
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from app.core.errors import AppError, EngineUnavailable, GenerationFailed, Overloaded, Unsupported

MAX_ERROR_BYTES = 64_000
MAX_MESSAGE_CHARS = 300
MAX_RETRY_AFTER_S = 3600
RETRY_AFTER_S = 5

_CONTEXT = re.compile(r"context.{0,12}(length|window|size)|context_length|prompt_too_long", re.I)
# What another server's message may hold and ours never does.
_PRIVATE = re.compile(r"\w+://\S+|(?:[A-Za-z]:)?(?:[\\/][\w.@~-]+){2,}|\bsk-\S+|Bearer\s+\S+", re.I)

# Where a traceback begins, or a validator that repeats what it was given, the prompt included.
_REPEATED = re.compile(r"Traceback|['\"]input['\"]\s*:|input_value=")


async def read_refusal(response: httpx.Response) -> AppError:
    """Return the error that a response with any status but 200 stands for.

    Raises:
        httpx.RequestError: the connection failed while its body was read.
    """
    status = response.status_code
    if status in (401, 403):
        return unauthorized()
    body = _decoded(await read_bounded(response, MAX_ERROR_BYTES))
    retry_after_s = _retry_after_s(response.headers.get("retry-after"))
    if status == 429:
        return Overloaded(
            "The model server is busy; try again in a moment.",
            retry_after_s=retry_after_s or RETRY_AFTER_S,
        )
    code, message = _told(body)
    if status in (400, 413, 422, 500) and _CONTEXT.search(f"{code} {message}"):
        return Unsupported(
            "The prompt and max_tokens do not fit in the model's context: shorten the prompt or "
            "lower max_tokens.",
            code="context_length_exceeded",
            param="messages",
        )
    if status in (400, 413, 422):
        return Unsupported(
            f"The model server refused the request: {_public(message)}", code="upstream_rejected"
        )
    if status == 404:
        return model_missing()
    if 300 <= status < 400:
        return unavailable("The model server redirects: set ENGINE_URL to where it points.")
    return unavailable(
        f"The model server failed with status {status}; see its own log.",
        retry_after_s=retry_after_s,
    )


def unavailable(
    message: str = "The model server cannot be reached: start it, or correct ENGINE_URL.",
    *,
    retry_after_s: int | None = None,
) -> EngineUnavailable:
    """Return the error of a server that cannot serve now."""
    return EngineUnavailable(
        message, code="upstream_unavailable", retry_after_s=retry_after_s or RETRY_AFTER_S
    )


def unreachable(failure: Exception) -> EngineUnavailable:
    """Return the error of a connection that could not be made, or did not last."""
    if isinstance(failure, httpx.ConnectTimeout | httpx.ConnectError):
        return unavailable()
    if isinstance(failure, httpx.TimeoutException | TimeoutError):
        return unavailable("The model server did not answer in time; see its own log.")
    return unavailable("The connection to the model server broke; see its own log.")


def unauthorized() -> EngineUnavailable:
    """Return the error of a key that the server does not take."""
    return EngineUnavailable(
        "The model server does not accept this server's key: set ENGINE_API_KEY.",
        code="upstream_unauthorized",
    )


def model_missing() -> EngineUnavailable:
    """Return the error of a model that the server does not have."""
    return EngineUnavailable(
        "The model server does not have this model: set ENGINE_MODEL to one that it lists, and "
        "check that ENGINE_URL ends in /v1.",
        code="upstream_model_missing",
    )


def failed(message: str) -> GenerationFailed:
    """Return the error of an answer that began and cannot be used."""
    return GenerationFailed(message, code="upstream_failed")


def failed_in_stream(error: object) -> GenerationFailed:
    """Return what an error object in the middle of an answer stands for."""
    _, message = _told({"error": error})
    return failed(f"The model server failed while it was writing: {_public(message)}")


async def read_bounded(response: httpx.Response, max_bytes: int) -> bytes:
    """Return the start of a body."""
    body = b""
    async for data in response.aiter_bytes():
        body += data
        if len(body) >= max_bytes:
            break
    return body[:max_bytes]


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _told(body: Any) -> tuple[str, str]:
    """Return code and message of an error body, in any of the forms that servers use.

    OpenAI: {"error": {"message", "code", "type"}}; older vLLM: those at the top; Ollama:
    {"error": str}; FastAPI: {"detail": str, or a list of {"loc", "msg"}}.
    """
    if not isinstance(body, dict):
        return "", ""
    error = body.get("error") or body.get("detail") or body
    if isinstance(error, list):
        # Not the whole entries: `input` repeats what was sent, the prompt included.
        problems = [item for item in error if isinstance(item, dict)]
        places = (".".join(str(part) for part in item.get("loc", ())) for item in problems)
        return "", "; ".join(
            f"{place}: {item.get('msg', '')}" for place, item in zip(places, problems, strict=True)
        )
    if isinstance(error, dict):
        code = f"{error.get('code') or ''} {error.get('type') or ''}"
        return code, str(error.get("message") or "")
    return "", str(error)


def _public(message: str) -> str:
    """Return a message of another server without what may be private, on one line."""
    message = _REPEATED.split(message, maxsplit=1)[0]
    words = " ".join(_PRIVATE.sub("…", message[: 10 * MAX_MESSAGE_CHARS]).split())
    return words[:MAX_MESSAGE_CHARS] or "it does not say why."


def _retry_after_s(value: str | None) -> int | None:
    """Read a Retry-After header: seconds, or a date."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(1, min(MAX_RETRY_AFTER_S, round(seconds))) if seconds == seconds else None
