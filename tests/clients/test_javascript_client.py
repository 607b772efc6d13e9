"""The official JavaScript client, run by node against the same server as the Python one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import KEY
from tests.programs import missing, program
from tests.servers import Running, until

HERE = Path(__file__).parent


@pytest.fixture
def seen(server: Running, failing: Running) -> dict[str, Any]:
    """What the client saw of both servers."""
    node = program("node")
    if not (HERE / "node_modules" / "openai").is_dir():
        missing("the npm client is not installed: npm install --prefix tests/clients")
    done = subprocess.run(
        [node, str(HERE / "openai_client.mjs"), server.base, KEY, failing.base],
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_client_is_content(seen: dict[str, Any], server: Running) -> None:
    """Contract 2: list, plain, stream, usage, stop, json_schema, tools, errors, closing."""
    assert seen["models"]
    plain = seen["plain"]
    assert plain["usage"]["prompt_tokens"] > 0
    assert seen["streamed"]["text"] == plain["choices"][0]["message"]["content"]
    assert seen["streamed"]["usage"] == plain["usage"]
    assert seen["streamed"]["choices"] == []
    stop = seen["stop"]
    assert stop["cut"] == stop["whole"][: stop["whole"].index(stop["stop"])]
    assert stop["reason"] == "stop"
    assert set(seen["json"]) == {"name", "people"}
    assert seen["tool"]["finish_reason"] == "tool_calls"
    call = seen["tool"]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "weather"
    assert set(json.loads(call["arguments"])) == {"city", "days"}
    errors = seen["errors"]
    assert (errors["bad"]["class"], errors["bad"]["param"]) == ("BadRequestError", "n")
    assert (errors["missing"]["class"], errors["missing"]["code"]) == (
        "NotFoundError",
        "model_not_found",
    )
    assert errors["key"]["class"] == "AuthenticationError"
    assert "the model broke" in seen["middle"]["message"]
    assert seen["closed"] == 5
    until(lambda: server.get("/health").json()["sessions"] == 0)
