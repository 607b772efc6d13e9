"""ID cards over HTTP with the real OCR models: contract 5, C30, S2.30 to S2.35."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from app.core.errors import GenerationFailed
from app.services.ocr import reader
from tests.api.card_images import card_photo, saved, values
from tests.engines import ScriptedEngine
from tests.servers import Running, frames, serving

ROOT = Path(__file__).parents[2]
CARD_S = 50.0
READ = {"timeout": CARD_S}
FLAT = 14


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """One server, so that the models are loaded once."""
    with serving() as running:
        yield running


def post(server: Running, data: bytes, path: str = "/ktp-ocr/", **form: str) -> httpx.Response:
    with server.client(**READ) as client:
        return client.post(path, files={"image": ("card.jpg", data, "image/jpeg")}, data=form)


@pytest.fixture(scope="module")
def streamed(server: Running) -> httpx.Response:
    """The stream of the card, read once for the tests that look at it."""
    return post(server, card_photo()[1], "/ktp-ocr/stream", session_id="my-card")


def test_a_card_becomes_json(server: Running) -> None:
    """S2.30, S2.31, contract 5: every value a string, the address nested, headers say by whom."""
    card, data = card_photo()
    answer = post(server, data)
    assert answer.status_code == 200
    assert answer.json() == values(card)
    assert answer.headers["x-precis-engine"] == "ocr"
    assert answer.headers["x-precis-warnings"] == ""
    assert server.get("/health").json()["ocr"]["loaded"] is True


def test_a_stream_tells_stages_and_then_the_details(streamed: httpx.Response) -> None:
    """Contract 5: `status`, then `result` with boxes and confidences, once, last."""
    card, _ = card_photo()
    events = frames(streamed.text)
    assert [event.event for event in events][-1] == "result"
    assert {event.event for event in events[:-1]} == {"status"}
    details = events[-1].json
    assert details["card"] == values(card)
    assert (details["engine"], details["warnings"]) == ("ocr", [])
    assert len(details["fields"]) == FLAT
    for told in details["fields"].values():
        assert 0 <= told["confidence"] <= 1
        x, y, width, height = told["box"]
        assert min(x, y) >= 0
        assert width > height > 0


def test_a_stream_is_a_session_that_can_be_replayed(
    server: Running, streamed: httpx.Response
) -> None:
    """Contract 3 and 5: the same events again, by its path and by that of all sessions."""
    session = streamed.headers["x-session-id"]
    assert session == "my-card"
    whole = server.get(f"/api/sessions/{session}/events")
    assert frames(whole.text) == frames(streamed.text)
    with server.client() as client:
        last = {"Last-Event-ID": f"{session}:0"}
        again = client.post("/ktp-ocr/stream", headers=last)
    assert frames(again.text) == frames(streamed.text)[1:]


@pytest.mark.parametrize(
    ("files", "status", "code"),
    [
        (None, 400, "invalid_image"),
        ({"image": ("a.jpg", b"")}, 400, "invalid_image"),
        ({"image": ("a.jpg", b"no image")}, 400, "invalid_image"),
        ({"picture": ("a.jpg", b"x")}, 400, "invalid_image"),
        ({"image": (None, "text")}, 400, "invalid_image"),
        ({"image": ("a.jpg", b"\xff\xd8" + bytes(10_000_001))}, 413, "image_too_large"),
        ({"image": ("a.jpg", bytes(11_000_000))}, 413, "body_too_large"),
    ],
)
def test_what_is_no_image_is_refused_before_any_work(
    server: Running, files: Any, status: int, code: str
) -> None:
    """Contract 5: 400 and 413, on both paths."""
    for path in ("/ktp-ocr/", "/ktp-ocr/stream"):
        with server.client() as client:
            answer = client.post(path, files=files)
        assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def test_without_the_ocr_libraries_the_answer_is_503_and_names_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Contract 5: no engine."""
    monkeypatch.setattr(reader, "installed", lambda: False)
    with serving() as server:
        answer = post(server, card_photo()[1])
    assert (answer.status_code, answer.json()["code"]) == (503, "ocr_unavailable")
    assert "requirements-ocr.txt" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0


def test_keys_and_rates_hold_for_cards_too() -> None:
    """Contract 8."""
    with serving(api_keys=("secret",), rate_limit="1/minute") as server:
        assert post(server, b"x").status_code == 401
        with server.client(headers={"X-API-Key": "secret"}) as client:
            statuses = [client.post("/ktp-ocr/").status_code for _ in range(2)]
    assert statuses == [400, 429]


def test_a_blank_image_is_no_card(server: Running) -> None:
    """Contract 5: 422 without fields; in a stream, the terminal event has the code."""
    blank = saved(Image.new("RGB", (400, 250), "white"))
    answer = post(server, blank)
    assert (answer.status_code, answer.json()["code"]) == (422, "not_a_ktp")
    assert "fields" not in answer.json()
    events = frames(post(server, blank, "/ktp-ocr/stream").text)
    assert (events[-1].event, events[-1].json["code"]) == ("error", "not_a_ktp")


PROGRAM = """
import asyncio, socket, sys
from contextlib import aclosing
tried = []
def refused(*given):
    tried.append(given)
    raise OSError("the network is blocked")
socket.socket.connect = refused
socket.getaddrinfo = refused
from app.services.ocr.reader import CardReader
async def main():
    reader = CardReader()
    photo = await reader.check(sys.stdin.buffer.read())
    async with aclosing(reader.read(photo)) as drafts:
        async for draft in drafts:
            last = draft
    await reader.aclose()
    print(last.data["card"]["nik"], len(tried))
asyncio.run(main())
"""


def test_a_card_is_read_with_the_network_blocked() -> None:
    """C30: the models are files of the wheel; nothing is downloaded."""
    card, data = card_photo()
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=data, capture_output=True, cwd=ROOT, timeout=CARD_S
    )
    assert ran.stdout.decode().split() == [card.fields["nik"], "0"], ran.stderr.decode()


def test_a_vision_model_is_asked_beside_ocr_and_disagreement_is_a_warning() -> None:
    """Contract 5, S2.32: OCR's number stays, the image goes to the model, the header says who."""
    card, data = card_photo()
    engine = ScriptedEngine(['```json\n{"nik": "3204124107900009", "nama": "SOMEBODY ELSE"}\n```'])
    with serving(engine) as server:
        answer = post(server, data)
    assert answer.headers["x-precis-engine"] == "vision"
    assert answer.headers["x-precis-warnings"] == "nik_differs,nama_differs"
    assert answer.json() == values(card)
    assert [len(request.images) for request in engine.requests] == [1]


def test_a_vision_model_that_fails_leaves_what_ocr_read() -> None:
    """Contract 5: with a model it gets better, not different."""
    card, data = card_photo()
    with serving(ScriptedEngine([GenerationFailed("no")])) as server:
        answer = post(server, data)
    assert (answer.headers["x-precis-engine"], answer.json()) == ("ocr", values(card))
