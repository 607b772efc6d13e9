"""The API's description: what every operation has in common, and what no route can say itself.

Each operation describes itself in its docstring, and its requests in its examples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from app.api.docs.curl import curl, curl_of
from app.api.docs.frames import Examples
from app.api.docs.requests import TEXT
from app.schemas.answers import ErrorAnswer, OpenAIErrorAnswer
from app.stream.sse import HEARTBEAT

COMMENT = HEARTBEAT.decode().strip()
OPEN_PATHS = frozenset({"/health", "/ready"})
METHODS = frozenset({"get", "post", "put", "patch", "delete"})

Responses = dict[int | str, dict[str, Any]]

DESCRIPTION = f"""Turns a URL or a text into a structured summary while you watch.

**Streams** are Server-Sent Events:

* Every event has an id, `<session>:<index>`. The header `X-Session-ID` names the session.
* A stream ends with exactly one terminal event, and the body closes right after it. A failure after
  the first byte is that event; a failure before it is a status.
* Silence is broken by a comment, `{COMMENT}`, at least every 15 seconds.
* A stream that was cut off goes on where it was: send the last id as `Last-Event-ID` to the same
  path, or ask `GET /api/sessions/{{session_id}}/events`. Nothing is generated twice.
* `POST /v1/cancel/{{session_id}}` stops one.

At `/docs`, **Try it out** and **Execute** show the events as they come, in a panel with a Stop
button. In a terminal, `curl -N` does:

    {curl("post", "/api/v4/scrape-and-summarize/stream", TEXT)}

**Keys.** A server with `API_KEYS` wants one, as `Authorization: Bearer <key>` or `X-API-Key: <key>`
(at `/docs`, the button *Authorize*); any other server takes every request. Health and
documentation are open.
"""

TAGS = [
    {
        "name": "V4 Structured Summarizer",
        "description": "Summaries with a title, key points, a category and a tone, streamed as "
        "JSON text or field by field.",
    },
    {"name": "V3 Prose Summarizer", "description": "Summaries as plain prose."},
    {
        "name": "OpenAI-compatible chat",
        "description": "What any client of OpenAI's chat completions can use as it is.",
    },
    {
        "name": "Sessions",
        "description": "Every stream is a session: read it again, follow it, cancel it.",
    },
    {"name": "Article jobs", "description": "Articles written in steps, with their progress."},
    {"name": "Accounts", "description": "Register, sign in and out, for the marketplace."},
    {"name": "Suppliers", "description": "Who sells, and where."},
    {"name": "Products", "description": "What is sold: search, offers, a supplier's own goods."},
    {"name": "Conversations", "description": "What was said to the marketplace's assistant."},
    {"name": "Administration", "description": "What an admin sees and decides."},
    {
        "name": "ocr",
        "description": "Indonesian ID cards (KTP) as JSON, read on the processor; nothing is kept.",
    },
    {"name": "Health", "description": "Is the process alive, and can it serve?"},
]
SERVERS = [{"url": ".", "description": "The server that this description comes from"}]
ACCESS_TOKEN = "AccessToken"  # noqa: S105  (the name of a scheme)
SECURITY_SCHEMES = {
    ACCESS_TOKEN: {
        "type": "http",
        "scheme": "bearer",
        "description": "The `access_token` of a sign-in, for the marketplace; where the server has "
        "`API_KEYS` too, the key goes into `X-API-Key`",
    },
    "BearerKey": {
        "type": "http",
        "scheme": "bearer",
        "description": "One of the server's `API_KEYS`; not needed where there are none",
    },
    "HeaderKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in a header of its own",
    },
}

_ERRORS = {
    400: "`scrape_failed`, `blocked_url`, `http_error` and others: the page cannot be fetched; "
    "`no_article`: it holds none",
    401: "`unauthorized`: an API key is needed",
    404: "`unknown_session`: there is no such session to resume",
    409: "`session_busy`: the session id is running something else",
    410: "`events_gone`: the events to resume from are no longer kept",
    413: "`body_too_large`",
    415: "`unsupported_encoding`: the body is compressed",
    422: "`validation_error`, `invalid_input`, `invalid_text`, `invalid_url`: `detail` names the "
    "field",
    429: "`overloaded`: the server is full; `rate_limited`: the caller came too often; see "
    "Retry-After",
    503: "`model_unavailable`, `model_downloading`: no engine can serve now; see Retry-After",
}
OPENAI_ERRORS = {
    **{status: text for status, text in _ERRORS.items() if status != 422},
    400: "`validation_error`, `invalid_input`, `unsupported_parameter`, `context_length_exceeded` "
    "and others: `param` names the field",
}


def operation_id(route: APIRoute) -> str:
    """Name an operation as its function, where it does not name itself."""
    return route.name


def error_responses(*statuses: int, **texts: str) -> Responses:
    """Return the described errors of a path that is not under `/v1`.

    `texts`: other words for a status, as in `status_503="…"`.
    """
    return {
        status: {
            "model": ErrorAnswer,
            "description": texts.get(f"status_{status}") or _ERRORS[status],
        }
        for status in statuses
    }


def openai_error_responses(*statuses: int, **texts: str) -> Responses:
    """Return the described errors of a path under `/v1`, likewise."""
    return {
        status: {
            "model": OpenAIErrorAnswer,
            "description": texts.get(f"status_{status}", OPENAI_ERRORS[status]),
        }
        for status in statuses
    }


def sse_responses(events: Examples | str, *statuses: int, **texts: str) -> Responses:
    """Return the responses of a streaming endpoint.

    `events`: what comes on the wire, one text or named ones. `statuses`: those of its errors, all
    that a summary may have when none are given; `texts` as in `error_responses`.
    """
    answer = stream_answer("", {"text/event-stream": sse_content(events)})
    return {**error_responses(*(statuses or _ERRORS), **texts), 200: answer}


def install_description(app: FastAPI, first_model: Callable[[], str]) -> None:
    """Complete what FastAPI knows of the routes. `first_model`: one that `/v1/models` lists."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        # A copy each time: which model comes first may become known later.
        return _complete(copy.deepcopy(plain()), first_model())

    app.openapi = described  # type: ignore[method-assign]


def stream_answer(before: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return the described answer of a stream. `before`: what its description begins with."""
    return {
        "description": f"{before}Server-Sent Events, exactly one of them terminal, with a comment "
        f"(`{COMMENT}`) where there is silence. Read it with `curl -N`.",
        "headers": {
            "X-Session-ID": {
                "description": "The session: resume it, replay it or cancel it by this id",
                "schema": {"type": "string"},
            }
        },
        "content": content,
    }


def sse_content(events: Examples | str) -> dict[str, Any]:
    """Return the described content of a stream: its events, one text or named ones."""
    name = "example" if isinstance(events, str) else "examples"
    return {"schema": {"type": "string"}, name: events}


def _complete(schema: dict[str, Any], first_model: str) -> dict[str, Any]:
    schema.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
    # Any of them, or none: only the settings know whether keys are asked for.
    schema["security"] = [{}, *({name: []} for name in SECURITY_SCHEMES if name != ACCESS_TOKEN)]
    used: set[str] = set()
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            if method not in METHODS:
                continue
            if path in OPEN_PATHS:
                operation["security"] = []
            _correct_invalid(path, operation["responses"])
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "model_id":
                    parameter["example"] = first_model
            used.update(operation.get("tags", ()))
            described = operation.get("description", "")
            if "curl " not in described:
                operation["description"] = f"{described}\n\n    {curl_of(path, method, operation)}"
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    # What the settings switch off leaves no heading behind.
    schema["tags"] = [tag for tag in TAGS if tag["name"] in used]
    return schema


def _correct_invalid(path: str, responses: dict[str, Any]) -> None:
    """Put this server's form of an invalid request where FastAPI has put its own."""
    if path.startswith("/v1/"):
        # There, it is a 400.
        responses.pop("422", None)
    elif responses.get("422", {}).get("description") == "Validation Error":
        schema = {"$ref": "#/components/schemas/ErrorAnswer"}
        content = {"application/json": {"schema": schema}}
        responses["422"] = {"description": _ERRORS[422], "content": content}
