"""The events of a card's session, and the answer that they fold to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from app.core.errors import AppError
from app.stream.event import Draft, Event

# The name of these sessions among the kinds; they are kept in memory, whatever log is set.
CARD = "ktp"


def card_failure(error: AppError, last: Event | None = None) -> Draft:
    """The terminal event of a card that could not be read."""
    return Draft("error", {"error": error.message, "code": error.code, "done": True}, terminal=True)


def card_answer(event: Event, *, details: bool) -> JSONResponse:
    """Return the answer of the terminal event.

    Raises:
        AppError: the session ended with that.
    """
    data: Mapping[str, Any] = event.data if isinstance(event.data, dict) else {}
    if event.kind == "error":
        raise AppError.from_dict({"message": data["error"], "code": data["code"]})
    headers = {"X-Precis-Engine": data["engine"], "X-Precis-Warnings": ",".join(data["warnings"])}
    headers["Cache-Control"] = "no-store"
    return JSONResponse(dict(data) if details else data["card"], headers=headers)
