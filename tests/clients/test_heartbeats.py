"""Clients that nobody here wrote, on streams that fall silent three times."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx_sse
import pytest
import sseclient
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from playwright.sync_api import Page, sync_playwright

from bench.page import ARGUMENTS
from tests.clients.silences import CHAT_BODY, HEARTBEATS, STREAMS, Silencer, Silent, silencer
from tests.clients.whatwg import Seen, interpret
from tests.engines import SUMMARY_TEXT
from tests.programs import missing, program
from tests.servers import WAIT_S, frames

HERE = Path(__file__).parent
SILENCES = 3

# An EventSource that nobody closes: it comes back by itself until the server says that it is over.
EVENT_SOURCE = """
([path, names, waitMs]) => new Promise((over, fail) => {
  const seen = [];
  const source = new EventSource(path);
  const take = ({type, data, lastEventId}) => seen.push([type, data, lastEventId]);
  for (const name of names) source.addEventListener(name, take);
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) over(seen);
  });
  setTimeout(() => fail(new Error(`it still comes back, after ${seen.length} events`)), waitMs);
})
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Silencer]:
    """The server of these tests."""
    with silencer() as running:
        yield running


@pytest.fixture
def chat(place: Silencer) -> Iterator[Silent]:
    """A chat that falls silent."""
    with place.falling_silent("v1") as silent:
        yield silent


@pytest.fixture(params=STREAMS)
def silent(request: pytest.FixtureRequest, place: Silencer) -> Iterator[Silent]:
    """Every stream that the server has, one after the other."""
    with place.falling_silent(request.param) as one:
        yield one


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of the system's Chromium, which is gone after the test with its event loop."""
    path = program("chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield chromium.new_page()
        chromium.close()


def assert_whole(chunks: list[ChatCompletionChunk]) -> None:
    """Assert that a client has all of the chat."""
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == SUMMARY_TEXT
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 100


def assert_silences(raw: bytes) -> None:
    """Assert that a body has heartbeats enough in each silence."""
    silent = re.findall(rb"(?:^: ping\n+){%d,}" % HEARTBEATS, raw, re.MULTILINE)
    assert len(silent) >= SILENCES


def told(silent: Silent) -> list[Seen]:
    """Return what a client must have seen: the events of what was sent, by the standard."""
    assert_silences(silent.sent)
    return interpret(silent.sent)[0]


def test_the_official_python_client_waits_through_heartbeats(chat: Silent) -> None:
    """Contract 2: the whole text and its usage, however long the model thinks."""
    with (
        OpenAI(base_url=f"{chat.server.base}/v1", api_key="any", max_retries=0) as client,
        client.chat.completions.create(**CHAT_BODY, timeout=WAIT_S) as stream,
    ):
        assert_whole(list(stream))
    assert_silences(chat.sent)


async def test_the_asynchronous_python_client_waits_through_heartbeats(chat: Silent) -> None:
    """Contract 2."""
    base = f"{chat.server.base}/v1"
    async with AsyncOpenAI(base_url=base, api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(**CHAT_BODY, timeout=WAIT_S)
        assert_whole([chunk async for chunk in stream])
    assert_silences(chat.sent)


def test_the_official_javascript_client_waits_through_heartbeats(chat: Silent) -> None:
    """Contract 2."""
    node = program("node")
    if not (HERE / "node_modules" / "openai").is_dir():
        missing("the npm client is not installed: npm install --prefix tests/clients")
    done = subprocess.run(
        [node, str(HERE / "waiting_client.mjs"), chat.server.base, json.dumps(CHAT_BODY)],
        capture_output=True,
        text=True,
        timeout=WAIT_S,
    )
    assert done.returncode == 0, done.stderr
    assert_whole([ChatCompletionChunk.model_validate(chunk) for chunk in json.loads(done.stdout)])
    assert_silences(chat.sent)


def test_httpx_sse_sees_events_and_no_heartbeats(silent: Silent) -> None:
    """Contract 3, 4: as the standard reads them, on every path."""
    with (
        silent.server.client() as client,
        httpx_sse.connect_sse(client, silent.method, silent.path, json=silent.body) as source,
    ):
        seen = [Seen(sse.event, sse.data, sse.id) for sse in source.iter_sse()]
    assert seen == told(silent)


@pytest.mark.parametrize("silent", ["v4 text", "v4 patches", "v1", "session"], indirect=True)
def test_sseclient_py_sees_events_and_no_heartbeats(silent: Silent) -> None:
    """Contract 1 to 3: as the standard reads them; this client keeps no id for the next event."""
    with (
        silent.server.client() as client,
        client.stream(silent.method, silent.path, json=silent.body) as response,
    ):
        seen = list(sseclient.SSEClient(response.iter_bytes()).events())
    expected = told(silent)
    assert [(e.event, e.data) for e in seen] == [(e.event, e.data) for e in expected]
    ids = [e.id for e in seen if e.data != "[DONE]"]
    assert ids == [e.id for e in expected if e.data != "[DONE]"]


def test_curl_gets_heartbeats_in_every_silence_and_no_blank_line_after_one(silent: Silent) -> None:
    """A10, contract 3, 4: the bytes themselves, which no client could take for an empty event."""
    url = silent.server.base + silent.path
    line = [program("curl"), "-sSN", "--fail", "--max-time", f"{WAIT_S}", url]
    if silent.body is not None:
        line += ["-H", "Content-Type: application/json", "-d", json.dumps(silent.body)]
    done = subprocess.run(line, capture_output=True, timeout=WAIT_S + 5)
    assert done.returncode == 0, done.stderr
    raw = done.stdout
    assert raw == silent.sent
    assert_silences(raw)
    events, blank = interpret(raw)
    assert not [one for one in blank if one.after_comment and one.known_id]
    assert [one.lines for one in blank] == [1] * len(events)
    strict = frames(raw.decode())
    assert [(f.event or "message", f.data) for f in strict] == [(e.event, e.data) for e in events]


def test_the_standards_reading_finds_a_blank_line_after_a_comment() -> None:
    """The proof above can fail: this is what the official Python client died of."""
    raw = b": ping\n\nid: a:0\ndata: x\n\n: ping\n\n"
    events, blank = interpret(raw)
    assert events == [Seen("message", "x", "a:0")]
    assert [(one.lines, one.after_comment, one.known_id) for one in blank] == [
        (0, True, False),
        (1, False, True),
        (0, True, True),
    ]


def test_a_browsers_event_source_sees_every_event_once_and_stops(
    page: Page, place: Silencer
) -> None:
    """Contract 3: in order; when it comes back after the end, 204 says that there is no more."""
    page.goto(f"{place.server.base}/health")
    with place.falling_silent("session") as silent:
        names = ["message", "metadata", "status", "result"]
        found = page.evaluate(EVENT_SOURCE, [silent.path, names, WAIT_S * 1000])
        seen = [Seen(*event) for event in found]
        assert seen == told(silent)
        assert len({event.id for event in seen}) == len(seen)
        assert silent.statuses == [200, 204]
