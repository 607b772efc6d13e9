"""A described operation as one line of a shell, which sends its first example."""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import quote

from app.schemas.jobs import EXAMPLE_TOPIC

# Where the server listens unless the settings say something else.
BASE = "http://127.0.0.1:7860"
# Ids that only the server makes: the line starts what they name, and takes them from the answer.
MADE = {
    "job_id": f"$(curl -s {BASE}/start-job -d 'topic={EXAMPLE_TOPIC}' "
    '| sed \'s/.*"job_id":"\\([^"]*\\)".*/\\1/\')',
}


# A file of the reader's own, for operations that take one.
UPLOAD = "-F image=@ktp.jpg"


def curl(method: str, path: str, body: Any = None) -> str:
    """Return the line. `path`: safe in a shell as it is; `body`: what is sent as JSON."""
    line = "curl -N"
    if method != ("get" if body is None else "post"):
        line += f" -X {method.upper()}"
    line += f" {BASE}{path}"
    if body is not None:
        value = shlex.quote(json.dumps(body, ensure_ascii=False))
        line += f" -H 'Content-Type: application/json' -d {value}"
    return line


def curl_of(path: str, method: str, operation: dict[str, Any]) -> str:
    """Return the line of an operation, as OpenAPI describes it."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            name = parameter["name"]
            value = MADE.get(name) or quote(str(first_example(parameter)))
            path = path.replace(f"{{{name}}}", value)
    content = operation.get("requestBody", {}).get("content", {})
    if list(content) == ["multipart/form-data"]:
        return f"{curl('get', path)} {UPLOAD}"
    body = content.get("application/json")
    return curl(method, path, None if body is None else first_example(body))


def first_example(holder: dict[str, Any]) -> Any:
    """Return the example of a parameter or of a body that shows first."""
    if "example" in holder:
        return holder["example"]
    named: dict[str, dict[str, Any]] = holder.get("examples", {})
    return next((example["value"] for example in named.values()), "")
