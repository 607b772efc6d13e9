"""What one body of a stranger may cost: lists are bounded before their items are looked at."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.core.middleware import MAX_JSON_VALUES
from app.core.responses import MAX_ERRORS
from app.schemas.chat_messages import MAX_PARTS
from tests.engines import ScriptedEngine
from tests.servers import WAIT_S, Running, serving
from tests.turns import next_turn

CHAT = "/v1/chat/completions"
HELLO = {"role": "user", "content": "Hello"}
# CPU time that one body may take of the event loop at a stretch: /health answers within 100 ms.
LOOP_CPU_S = 0.1


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(ScriptedEngine(["Hi"])) as running:
        yield running


@contextmanager
def loop_watched(server: Running) -> Iterator[list[float]]:
    """Collect the CPU seconds that the server's loop spends between two of its turns.

    Without garbage collection: the objects of a whole test run are not the server's.
    """
    spent: list[float] = []

    async def watch() -> None:
        before_s = time.thread_time()
        while True:
            await next_turn()
            now_s = time.thread_time()
            spent.append(now_s - before_s)
            before_s = now_s

    watching = asyncio.run_coroutine_threadsafe(watch(), server.loop)
    gc.disable()
    try:
        yield spent
    finally:
        gc.enable()
        watching.cancel()


def post(server: Running, body: str) -> tuple[int, dict[str, Any]]:
    with server.client() as client:
        answer = client.post(
            CHAT, content=body, headers={"Content-Type": "application/json"}, timeout=WAIT_S
        )
    return answer.status_code, answer.json().get("error", {})


def wrong(items: int, item: str = "1") -> str:
    return f"[{','.join([item] * items)}]"


BODIES = {
    "stop": f'{{"messages":[{{"role":"user","content":"a"}}],"stop":{wrong(15_000)}}}',
    "content": f'{{"messages":[{{"role":"user","content":{wrong(15_000)}}}]}}',
    "content of 20 MB": f'{{"messages":[{{"role":"user","content":{wrong(9_900_000)}}}]}}',
    "messages": f'{{"messages":{wrong(15_000)}}}',
    "content of many messages": (
        f'{{"messages":{wrong(1_500, f"""{{"role":"user","content":{wrong(8)}}}""")}}}'
    ),
    "tools": f'{{"messages":[{{"role":"user","content":"a"}}],"tools":{wrong(15_000)}}}',
    "tool_calls": (f'{{"messages":[{{"role":"assistant","tool_calls":{wrong(9_000, "{}")}}}]}}'),
    "nesting": f'{{"messages":{"[" * 15_000}',
    "a field nobody knows": f'{{"messages":3,"unknown":{wrong(9_000_000)}}}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_list_of_wrong_elements_costs_the_loop_little(server: Running, name: str) -> None:
    """Pitfalls: a list of wrong elements made one error object each, on the event loop."""
    with loop_watched(server) as spent:
        status, error = post(server, BODIES[name])
    assert status == 400, error
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 300
    assert max(spent) < LOOP_CPU_S


def test_values_are_bounded_and_text_is_not(server: Running) -> None:
    """Contract 2: what is refused says how many; a long text of few commas passes."""
    status, error = post(server, BODIES["content of 20 MB"])
    assert (status, error["code"]) == (400, "too_many_values")
    assert str(MAX_JSON_VALUES) in error["message"]
    words = '{"messages":[{"role":"user","content":"' + "word " * 300_000 + '"}]}'
    assert post(server, words)[0] == 200


def test_as_many_parts_as_are_allowed_pass(server: Running) -> None:
    """Contract 2: the bound is the bound, not one less."""
    parts = [{"type": "text", "text": "a"}] * MAX_PARTS
    body = {"messages": [{"role": "user", "content": parts}]}
    assert server.post(CHAT, body).status_code == 200
    body["messages"][0]["content"] = [*parts, parts[0]]
    answer = server.post(CHAT, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[0].content"


def test_at_most_five_errors_are_told(server: Running) -> None:
    """S1.26: the first ones say what is to be mended."""
    body = {"text": 1, "url": 2, "style": 3, "max_tokens": "x", "session_id": 4, "use_cache": "?"}
    answer = server.post("/api/v4/scrape-and-summarize/stream", body)
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) == MAX_ERRORS


def test_a_form_may_hold_any_bytes(server: Running) -> None:
    """The bound is one of JSON: an image's bytes are no values."""
    answer = server.post(
        "/start-job", data={"topic": "Bees"}, files={"other": b"," * (MAX_JSON_VALUES + 1)}
    )
    assert answer.json()["code"] != "too_many_values"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate, gzip", "x-unknown"])
def test_a_compressed_body_is_refused_as_such(server: Running, coding: str) -> None:
    """It was called a body that cannot be parsed: 415 says what to send instead."""
    with server.client() as client:
        answer = client.post(
            CHAT,
            content=gzip.compress(json.dumps({"messages": [HELLO]}).encode()),
            headers={"Content-Type": "application/json", "Content-Encoding": coding},
        )
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "unsupported_encoding"


@pytest.mark.parametrize("coding", ["identity", "IDENTITY", ""])
def test_a_body_that_is_as_it_is_may_say_so(server: Running, coding: str) -> None:
    with server.client() as client:
        answer = client.post(CHAT, json={"messages": [HELLO]}, headers={"Content-Encoding": coding})
    assert answer.status_code == 200
