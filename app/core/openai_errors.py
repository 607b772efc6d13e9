"""The form of an error that OpenAI's clients read, for `/v1`."""

from __future__ import annotations

from typing import Any

# OpenAI's names of what went wrong, one for each status that `/v1` answers with.
# https://platform.openai.com/docs/guides/error-codes
OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    410: "gone_error",
    413: "payload_too_large_error",
    429: "rate_limit_error",
    499: "cancelled_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


def openai_error(
    message: str, *, status: int, code: str, param: str | None = None
) -> dict[str, Any]:
    """Return the body of an error of `/v1` (C16)."""
    kind = OPENAI_TYPES.get(status, OPENAI_TYPES[400 if status < 500 else 500])
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
