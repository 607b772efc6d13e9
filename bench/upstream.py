"""A model server without a model: what an OpenAI-compatible server does, as a script says.

Speaks `/v1/models` and `/v1/chat/completions`, streamed and not. Asked for our summary schema it
writes a summary, with white space between the tokens as vLLM does; asked for an outline or for the
final form of an article, those; asked for anything else, words.
Tests script it and read what it recorded; benchmarks run it in a process of its own.

    python -m bench.upstream --port 8001 [--words-per-second 50] [--words 200]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.services.articles.prompts import OUTLINE_TASK, STYLE_TASK

SUMMARY = {
    "title": "Harbour bridge opens after four years",
    "main_summary": "The bridge opened on Monday. It took four years and cost 12 million.",
    "key_points": ["It opened on Monday", "It cost 12 million", "Two lanes are for bicycles"],
    "category": "Cities",
    "sentiment": "positive",
    "read_time_min": 1,
}
OUTLINE = {"sections": ["A harbour before dawn", "What a harbour does", "The people who stay"]}
ARTICLE = """# Come down to the harbour

Have you ever stood on a quay before the sun is up? It smells of salt and rope, and of somebody \
else's breakfast. Nothing seems to happen, and yet the whole town hangs on what happens here.

## A harbour before dawn

Listen first. A chain runs out, a gull complains, a diesel engine coughs twice and then settles. \
The first boats are back already, low in the water, and the ice in their boxes has to last until \
the lorries leave. Who sleeps late here eats yesterday's fish. By five the lamps of the auction \
hall go on, and for one hour it is the loudest room in town.

## What a harbour does

Think of it as a lung. It breathes in what the town needs, grain and timber and the bananas on \
your table, and it breathes out what the town makes. A single crane lifts more before lunch than \
a street of houses weighs. Why does it look so slow, then? Because everything that hangs on a \
cable has to be put down gently, and because the tide, not the clock, says when a ship may go.

## The people who stay

Ships leave; pilots, cooks and crane drivers do not. They know the sandbank that no chart shows, \
and which captain pays in jokes. Ask one of them what has changed and you will hear about \
containers, prices and the weather, in that order. Ask what has not changed and they will look \
at the water for a while. So should you: go early, bring a coat, and stay until the first ship \
turns its bow to the sea.
"""
VOCABULARY = ("the", "harbour", "bridge", "opened", "on", "Monday", "after", "four", "years")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request is answered with a status and a body instead of a stream."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Drop:
    """The connection is cut."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes that are sent as they are."""

    data: bytes


# A text is a piece of content, a mapping a whole delta (or a whole chunk, if it has "choices" or
# "error"), a number seconds to wait, an event something to wait for.
Step = str | Mapping[str, Any] | float | threading.Event | Raw | Drop


@dataclass(slots=True)
class Script:
    """What the server does, and what it saw; may be changed while it runs.

    `steps` None: a summary, an outline, an article or words. `refusals` are used up, one a request;
    `always` is not. `refused_forms`: types of `response_format` that are answered with 400.
    """

    steps: Sequence[Step] | None = None
    finish_reason: str | None = "stop"
    usage: bool = True
    done: bool = True
    refusals: list[Refusal] = field(default_factory=list)
    always: Refusal | None = None
    refused_forms: frozenset[str] = frozenset()
    models: tuple[str, ...] = ("fake-model",)
    models_refusal: Refusal | None = None
    models_delay_s: float = 0.0
    api_key: str | None = None
    content_type: str = "text/event-stream"
    words: int = 200
    words_per_second: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    probes: int = 0
    running: int = 0
    most_running: int = 0
    left_early: threading.Event = field(default_factory=threading.Event)


Upstream = tuple[str, Script]


_TOKEN = re.compile(r"\s+|[^\s\w]|\w+")


class Dropped(Exception):
    """Ends a response in the middle, by the script."""


def upstream_app(script: Script) -> Starlette:
    """Return the server's application."""

    async def models(request: Request) -> Response:
        script.probes += 1
        await asyncio.sleep(script.models_delay_s)
        if script.models_refusal is not None:
            return _refused(script.models_refusal)
        if refusal := _unauthorized(script, request):
            return refusal
        data = [{"id": name, "object": "model", "owned_by": "nobody"} for name in script.models]
        return JSONResponse({"object": "list", "data": data})

    async def completions(request: Request) -> Response:
        body = await request.json()
        script.bodies.append(body)
        script.headers.append(dict(request.headers))
        if refusal := _unauthorized(script, request):
            return refusal
        if script.refusals:
            return _refused(script.refusals.pop(0))
        if script.always is not None:
            return _refused(script.always)
        form = (body.get("response_format") or {}).get("type")
        if form in script.refused_forms:
            message = f"response_format {form} is not supported"
            return _refused(Refusal(400, {"error": {"message": message, "code": None}}))
        if body.get("stream"):
            return StreamingResponse(_stream(script, body), media_type=script.content_type)
        return JSONResponse(await _whole(script, body))

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/chat/completions", completions, methods=["POST"]),
        ]
    )


async def _stream(script: Script, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Yield the frames of one answer."""
    script.running += 1
    script.most_running = max(script.most_running, script.running)
    ended = False
    try:
        pieces = 0
        yield _frame(_chunk(script, {"role": "assistant", "content": ""}))
        steps, reason = _plan(script, body)
        async for step in _paced(script, steps):
            pieces += 1
            yield step.data if isinstance(step, Raw) else _frame(_step(script, step))
        if reason is not None:
            yield _frame(_chunk(script, {}, reason))
        if script.usage and (body.get("stream_options") or {}).get("include_usage"):
            usage = _usage(body, pieces)
            yield _frame({**_chunk(script, {}), "choices": [], "usage": usage})
        if script.done:
            yield b"data: [DONE]\n\n"
        ended = True
    except Dropped:
        ended = True
        raise
    finally:
        script.running -= 1
        if not ended:
            script.left_early.set()


async def _paced(
    script: Script, steps: Sequence[Step]
) -> AsyncGenerator[str | Mapping[str, Any] | Raw, None]:
    """Yield what is to be sent when it is to be sent."""
    began_s = time.monotonic()
    sent = 0
    for step in steps:
        if isinstance(step, float):
            await asyncio.sleep(step)
        elif isinstance(step, threading.Event):
            # It is set in a thread that knows nothing of this loop.
            while not step.is_set():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        elif isinstance(step, Drop):
            raise Dropped
        else:
            sent += 1
            if script.words_per_second:
                await asyncio.sleep(began_s + sent / script.words_per_second - time.monotonic())
            yield step


def _plan(script: Script, body: dict[str, Any]) -> tuple[Sequence[Step], str | None]:
    """Return the steps of an answer and why it ends; a budget in the way ends it sooner."""
    if script.steps is not None:
        return script.steps, script.finish_reason
    wanted = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
    asked = str(body["messages"][-1].get("content"))
    if asked.startswith(OUTLINE_TASK) or "sections" in (wanted or {}).get("properties", {}):
        pieces = re.findall(_TOKEN, json.dumps(OUTLINE))
    elif wanted is not None:
        pieces = re.findall(_TOKEN, json.dumps(_summary(wanted), indent=2))
    elif asked.startswith(STYLE_TASK):
        pieces = re.findall(r"\s*\S+", ARTICLE)
    else:
        chosen = (VOCABULARY[number % len(VOCABULARY)] for number in range(script.words))
        pieces = [word if number == 0 else f" {word}" for number, word in enumerate(chosen)]
    budget = int(body.get("max_tokens") or len(pieces))
    return pieces[:budget], script.finish_reason if len(pieces) <= budget else "length"


def _summary(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary in the lengths that the schema allows."""
    properties = schema.get("properties", {})
    made: dict[str, Any] = {}
    for name, value in SUMMARY.items():
        rules = properties.get(name, {})
        if "const" in rules:
            made[name] = rules["const"]
        elif isinstance(value, list):
            bound = rules.get("items", {}).get("maxLength")
            made[name] = [point[:bound] for point in value][: rules.get("maxItems")]
        else:
            made[name] = value[: rules.get("maxLength")] if isinstance(value, str) else value
    return made


async def _whole(script: Script, body: dict[str, Any]) -> dict[str, Any]:
    steps, reason = _plan(script, body)
    text = "".join([step async for step in _paced(script, steps) if isinstance(step, str)])
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    usage = _usage(body, len(steps))
    return {**_head(script, "chat.completion"), "choices": [choice], "usage": usage}


def _head(script: Script, kind: str) -> dict[str, Any]:
    model = script.models[0] if script.models else "fake-model"
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": model}


def _chunk(script: Script, delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": reason}
    return {**_head(script, "chat.completion.chunk"), "choices": [choice]}


def _step(script: Script, step: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(step, str):
        return _chunk(script, {"content": step})
    if "choices" in step or "error" in step:
        return dict(step)
    return _chunk(script, step)


def _frame(chunk: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def _usage(body: Mapping[str, Any], pieces: int) -> dict[str, int]:
    words = sum(len(str(turn.get("content")).split()) for turn in body["messages"])
    return {
        "prompt_tokens": words,
        "completion_tokens": pieces,
        "total_tokens": words + pieces,
    }


def _unauthorized(script: Script, request: Request) -> Response | None:
    if script.api_key in (None, request.headers.get("authorization", "").removeprefix("Bearer ")):
        return None
    return _refused(Refusal(401, {"error": {"message": "invalid key", "code": "invalid_api_key"}}))


def _refused(refusal: Refusal) -> Response:
    headers = dict(refusal.headers)
    if isinstance(refusal.body, str):
        return Response(refusal.body, refusal.status, headers)
    body = {"error": {"message": "scripted"}} if refusal.body is None else refusal.body
    return JSONResponse(body, refusal.status, headers)


class _Server(uvicorn.Server):
    async def main_loop(self) -> None:
        # Its own loop looks only ten times a second, which adds up over many short tests.
        while not self.should_exit:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@contextmanager
def running_upstream(given: Script | None = None, *, port: int = 0) -> Iterator[Upstream]:
    """Run the server on loopback in a thread; yield its base URL (with /v1) and its script."""
    script = given or Script()
    config = uvicorn.Config(
        upstream_app(script), host="127.0.0.1", port=port, log_config=None, access_log=False,
        lifespan="off", timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = _Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="fake-upstream")
    thread.start()
    try:
        deadline_s = time.monotonic() + 20
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline_s:
                raise RuntimeError("the model server did not start")
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1", script
    finally:
        server.should_exit = server.force_exit = True
        thread.join(20)


def main() -> None:
    """Run the server until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--words-per-second", type=float, default=50.0)
    parser.add_argument("--words", type=int, default=200)
    parser.add_argument("--api-key")
    given = parser.parse_args()
    script = Script(
        words=given.words, words_per_second=given.words_per_second, api_key=given.api_key
    )
    uvicorn.run(upstream_app(script), host=given.host, port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
