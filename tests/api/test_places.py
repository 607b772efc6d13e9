"""Over HTTP: no client holds the server (C34, contract 8)."""

from __future__ import annotations

import httpx
import pytest

from app.stream import admission
from tests.engines import ARTICLE, Gate, ScriptedEngine, slow_script
from tests.servers import STREAM, Running, serving, until

LOUD = {"X-API-Key": "loud"}
QUIET = {"X-API-Key": "quiet"}


def body(number: int) -> dict[str, str]:
    return {"text": f"{number} {ARTICLE}"}


def leave(server: Running, count: int) -> list[int]:
    """Open streams of one client and leave each one as soon as its status is there."""
    statuses = []
    with server.client() as client:
        for number in range(count):
            with client.stream("POST", STREAM, json=body(number), headers=LOUD) as response:
                statuses.append(response.status_code)
    return statuses


def active(server: Running) -> int:
    return server.app.state.services().sessions.active  # type: ignore[no-any-return]


def test_a_client_that_opens_streams_and_leaves_locks_nobody_out() -> None:
    """Eighty streams opened and dropped by one client once held all places for 30 minutes."""
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine, api_keys=("loud", "quiet"), max_queue=7) as server:
        assert leave(server, 6) == [200, 200, 429, 429, 429, 429]
        with server.client() as client:
            refused = client.post(STREAM, json=body(99), headers=LOUD)
            assert refused.json()["code"] == "overloaded"
            assert "of yours" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
            with client.stream("POST", STREAM, json=body(7), headers=QUIET) as response:
                assert response.status_code == 200
                gate.open()
                response.read()
        until(lambda: active(server) == 0)


def test_who_left_gives_way_with_a_cancelled_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """C34: the place goes to the new one, and the log of the old one says why."""
    monkeypatch.setattr(admission, "ABANDONED_AFTER_S", 0.0)
    gate = Gate()
    engine = ScriptedEngine(slow_script(gate))
    with serving(engine, api_keys=("loud", "quiet"), max_queue=0) as server:
        with server.client() as client:
            with client.stream("POST", STREAM, json=body(0), headers=LOUD) as first:
                session_id = first.headers["x-session-id"]
            until(lambda: len(engine.requests) == 1)
            until(lambda: _sent(client, body(1)) == 200)
            events = client.get(f"/api/sessions/{session_id}/events", headers=LOUD)
            assert '"code":"cancelled"' in events.text.replace(" ", "")
            assert "abandoned" in events.text
            gate.open()
        until(lambda: active(server) == 0)


def _sent(client: httpx.Client, json: dict[str, str]) -> int:
    """Return the status of a stream that is left again."""
    with client.stream("POST", STREAM, json=json, headers=QUIET) as response:
        return response.status_code
