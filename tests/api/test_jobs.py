"""Article jobs over HTTP, on a scripted engine: contract 4 and the sessions under it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from app.core.errors import EngineUnavailable, GenerationFailed, Unsupported
from app.core.logging import configure_logging
from tests.article_engine import (
    ARTICLE,
    OUTLINE,
    TITLES,
    TOPIC,
    ArticleEngine,
    Step,
    assert_sound,
    events,
    gated,
    section_text,
    start,
    state,
    steps,
    watch,
)
from tests.engines import ARTICLE as HARBOUR
from tests.engines import Gate, ScriptedEngine
from tests.servers import STREAM, WAIT_S, frames, serving, until

ALONE = {"summary_engine": "local", "v4_model_id": "nobody/nothing", "fallback_engine": "none"}


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.contextvars.clear_contextvars()
    configure_logging("warning")


# A whole job


def test_a_job_tells_every_step_and_then_the_article() -> None:
    """S3.2 to S3.5, contract 4: names, order and progress of every event."""
    gate = Gate()
    with serving(ArticleEngine(style=["# Look", gate, " up!\n"])) as server:
        response = server.post("/start-job", {"topic": f"  {TOPIC}\n"})
        assert response.status_code == 202
        job_id = response.json()["job_id"]
        assert response.json() == {"job_id": job_id, "topic": TOPIC, "status": "started"}
        assert response.headers["location"] == f"/jobs/{job_id}"
        assert response.headers["x-session-id"] == job_id
        with (
            server.client() as client,
            client.stream("GET", f"/progress/{job_id}") as stream,
        ):
            assert stream.headers["content-type"] == "text/event-stream"
            assert stream.headers["cache-control"] == "no-cache"
            assert stream.headers["x-accel-buffering"] == "no"
            assert stream.headers["x-session-id"] == job_id
            gate.open()
            found = frames(stream.read().decode())
    assert [frame.id for frame in found] == [f"{job_id}:{n}" for n in range(len(found))]
    sent = events(found)
    assert_sound(sent)
    assert sent[0]["step"] == "connected"
    assert set(sent[0]["data"]) == {"message", "topic"}
    assert sent[0]["data"]["topic"] == TOPIC
    assert sent[1] == {"step": "outline", "progress": 33, "data": {"sections": TITLES}}
    contents = [
        {"section": title, "completed_sections": n, "total_sections": 3, "text": text.strip()}
        for n, (title, text) in enumerate(zip(TITLES, map(section_text, (1, 2, 3)), strict=True), 1)
    ]
    assert sent[2:5] == [
        {"step": "content", "progress": progress, "data": content}
        for progress, content in zip((44, 55, 66), contents, strict=True)
    ]
    styled = sent[5:-1]
    assert {event["step"] for event in styled} == {"style"}
    assert all(66 <= event["progress"] <= 99 for event in styled)
    assert "".join(event["data"]["text"] for event in styled) == "# Look up!"
    last = {"step": "complete", "progress": 100, "data": {"final_article": "# Look up!"}}
    assert sent[-1] == last


def test_the_state_follows_the_job() -> None:
    """Contract 4: GET /jobs is the fold of the events, and leaves out what is not known."""
    gates = [Gate(), Gate(), Gate()]
    engine = ArticleEngine(
        outlines=[[gates[0], OUTLINE]], sections={3: [gates[1], "last"]}, style=[gates[2], ARTICLE]
    )
    with serving(engine) as server:
        job_id = start(server)
        known = {"job_id": job_id, "topic": TOPIC, "status": "running", "total_sections": 3}
        assert state(server, job_id) == {
            **known, "step": "connected", "progress": 0, "sections": [], "completed_sections": 0,
        }  # fmt: skip
        gates[0].open()
        until(lambda: state(server, job_id)["progress"] == 55)
        assert state(server, job_id) == {
            **known, "step": "content", "progress": 55, "sections": TITLES,
            "completed_sections": 2,
        }  # fmt: skip
        gates[1].open()
        gates[2].open()
        assert_sound(events(watch(server, job_id)))
        assert state(server, job_id) == {
            **known, "status": "complete", "step": "complete", "progress": 100,
            "sections": TITLES, "completed_sections": 3, "final_article": ARTICLE,
        }  # fmt: skip


@pytest.mark.parametrize("kind", ["urlencoded", "multipart", "json"])
def test_a_topic_comes_as_a_form_or_as_json(kind: str) -> None:
    """S3.2, contract 4; in any script."""
    topic = "Mengapa langit biru? 空が青い理由 + 100 % 🌌"
    form: dict[str, Any] = {
        "urlencoded": {"data": {"topic": topic}},
        "multipart": {"files": {"topic": (None, topic)}},
        "json": {"json": {"topic": topic}},
    }[kind]
    with serving(ArticleEngine()) as server, server.client() as client:
        response = client.post("/start-job", **form)
        assert (response.status_code, response.json()["topic"]) == (202, topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "  \n ",
        "\u200b",
        "x" * 201,
        "two\nlines",
        "a\x00b",
        "a\x1b[31m",
        "a\u2028b",
        7,
        None,
        [],
    ],
)
def test_a_topic_that_is_none_is_refused(topic: Any) -> None:
    """Contract 4: 1 to 200 characters without control characters; what was sent is not repeated."""
    engine = ArticleEngine()
    with serving(engine) as server, server.client() as client:
        answers = [client.post("/start-job", json={"topic": topic})]
        if isinstance(topic, str):
            answers.append(client.post("/start-job", data={"topic": topic}))
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
            assert answer.json()["detail"][0]["loc"] == ["body", "topic"]
            assert "input" not in answer.json()["detail"][0]
        assert client.post("/start-job", json={"topic": "x" * 200}).status_code == 202


@pytest.mark.parametrize(
    ("content", "kind", "expected"),
    [
        (b"{", "application/json", (422, "validation_error")),
        (b"[]", "application/json", (422, "validation_error")),
        (b'{"topic":"\\ud800"}', "application/json", (422, "validation_error")),
        (b'{"topic":"\xff"}', "application/json", (422, "validation_error")),
        (b"", "application/json", (422, "validation_error")),
        (b"", "application/x-www-form-urlencoded", (422, "validation_error")),
        (b"subject=x", "application/x-www-form-urlencoded", (422, "validation_error")),
        (b"x", "multipart/form-data", (400, "bad_request")),
        (b"--b\r\nbroken", "multipart/form-data; boundary=b", (422, "validation_error")),
        (b"topic", "text/plain", (415, "unsupported_media_type")),
        (b"topic", "", (415, "unsupported_media_type")),
    ],
)
def test_a_body_that_holds_no_topic_is_refused(
    content: bytes, kind: str, expected: tuple[int, str]
) -> None:
    """Contract 4, C16: a 4xx that says what to send, for any bytes."""
    with serving(ArticleEngine()) as server, server.client() as client:
        answer = client.post("/start-job", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == expected


def test_a_file_is_no_topic() -> None:
    """Contract 4: uploads are not written anywhere."""
    with serving(ArticleEngine()) as server, server.client() as client:
        answer = client.post("/start-job", files={"topic": ("a.txt", b"x" * 10)})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


# Who may see what


def test_what_is_no_job_is_unknown() -> None:
    """Contract 4: 404 `unknown_job`, for a session of another kind too."""
    with serving(ScriptedEngine()) as server, server.client() as client:
        server.post(STREAM, {"text": HARBOUR, "session_id": "summary"})
        for job_id in ("nope", "summary", "a" * 65, "%00", "a b"):
            for method, path in (("GET", "progress"), ("GET", "jobs"), ("DELETE", "jobs")):
                answer = client.request(method, f"/{path}/{job_id}")
                assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def test_another_keys_job_is_unknown() -> None:
    """Contract 3: it is neither seen nor cancelled."""
    gate = Gate()
    mine, other = ({"X-API-Key": key} for key in ("one", "two"))
    with (
        serving(gated("style", gate), api_keys=("one", "two")) as server,
        server.client() as client,
    ):
        job_id = start(server, headers=mine)
        for method, path in (("GET", "progress"), ("GET", "jobs"), ("DELETE", "jobs")):
            answer = client.request(method, f"/{path}/{job_id}", headers=other)
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")
        client.post(f"/v1/cancel/{job_id}", headers=other)
        assert client.get(f"/jobs/{job_id}").status_code == 401
        gate.open()
        assert_sound(events(watch(server, job_id, headers=mine)))
        answer = client.get(f"/jobs/{job_id}", headers=mine)
        assert answer.json()["status"] == "complete"


# Resume


def test_a_job_resumes_after_every_event() -> None:
    """Contract 3, 4: the rest exactly, by header and by query, then nothing after the end."""
    with serving(ArticleEngine()) as server:
        job_id = start(server)
        whole = watch(server, job_id)
        for place, frame in enumerate(whole[:-1]):
            rest = watch(server, job_id, headers={"Last-Event-ID": frame.id or ""})
            assert rest == whole[place + 1 :]
            assert watch(server, job_id, params={"last_event_id": frame.id}) == rest
        over = server.get(f"/progress/{job_id}", headers={"Last-Event-ID": whole[-1].id or ""})
        assert (over.status_code, over.text) == (204, "")
        replayed = server.get(f"/api/sessions/{job_id}/events")
        assert frames(replayed.text) == whole


def test_a_resume_point_that_is_none_of_the_job_is_refused() -> None:
    """Contract 3: 422 for nonsense and for another session, 410 for what never was."""
    with serving(ArticleEngine()) as server:
        job_id = start(server)
        watch(server, job_id)
        for sent, expected in (
            ("nonsense", (422, "invalid_last_event_id")),
            ("other:1", (422, "invalid_last_event_id")),
            (f"{job_id}:99999", (410, "events_gone")),
        ):
            answer = server.get(f"/progress/{job_id}", headers={"Last-Event-ID": sent})
            assert (answer.status_code, answer.json()["code"]) == expected


def test_equal_titles_do_not_send_the_progress_back() -> None:
    """Pitfall: equal section titles sent progress backwards."""
    outline = json.dumps({"sections": ["Same", "Same", "Same"]})
    with serving(ArticleEngine(outlines=[[outline]])) as server:
        sent = events(watch(server, start(server)))
    assert_sound(sent)
    assert [e["progress"] for e in sent if e["step"] == "content"] == [44, 55, 66]


# Failures


@pytest.mark.parametrize(("place", "progress"), [("outline", 0), ("content", 44), ("style", 68)])
def test_a_failing_engine_ends_the_job_where_it_stood(place: Step, progress: int) -> None:
    """Contract 4, pitfall: a failed job never ended its stream. The engine's code, the progress."""
    gate = Gate()
    error = EngineUnavailable("the model has gone", code="upstream_unavailable")
    engine = ArticleEngine(
        outlines=[error] if place == "outline" else [[OUTLINE]],
        sections={2: [gate, error], 3: [Gate()]} if place == "content" else None,
        style=["x" * 30, gate, error],
    )
    with serving(engine, max_concurrent_generations=3) as server:
        job_id = start(server)
        if place != "outline":
            until(lambda: state(server, job_id)["progress"] == progress)
            gate.open()
        sent = events(watch(server, job_id))
        assert_sound(sent)
        told = {"error": "the model has gone", "code": "upstream_unavailable"}
        assert sent[-1] == {"step": "error", "progress": progress, "data": told}
        found = state(server, job_id)
        assert (found["status"], found["step"], found["progress"]) == ("error", "error", progress)
        assert (found["error"], found["code"]) == (told["error"], told["code"])
        assert "final_article" not in found
        until(lambda: engine.running == 0)
    assert engine.closed == (["content"] if place == "content" else [])


def test_an_outline_that_never_comes_is_told() -> None:
    """S3.15, contract 4."""
    with serving(ArticleEngine(outlines=[["no idea"]])) as server:
        sent = events(watch(server, start(server)))
    assert steps(sent) == ["connected", "error"]
    assert sent[-1]["data"]["code"] == "invalid_output"


def test_a_defect_is_told_without_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Contract 4, RULES 5: exactly one terminal event, whatever happens."""
    engine = ArticleEngine(style=["x", RuntimeError("a defect")])
    with serving(engine, log_level="error") as server:
        sent = events(watch(server, start(server)))
    assert_sound(sent)
    assert sent[-1]["data"]["code"] == "internal_error"
    assert "defect" not in sent[-1]["data"]["error"]
    assert "a defect" in capsys.readouterr().err


def test_a_job_that_takes_too_long_ends_with_its_progress() -> None:
    """GENERATION_TIMEOUT_SECONDS holds for the whole job."""
    engine = gated("style", Gate())
    with serving(engine, generation_timeout_seconds=1.0) as server:
        sent = events(watch(server, start(server)))
    assert_sound(sent)
    assert sent[-1]["data"]["code"] == "timeout"
    assert sent[-1]["progress"] == sent[-2]["progress"] >= 66
    assert engine.closed == ["style"]


# Cancel


@pytest.mark.parametrize("place", ["outline", "content", "style"])
@pytest.mark.parametrize("way", ["delete", "cancel"])
def test_a_job_is_cancelled_in_any_step(place: Step, way: str) -> None:
    """Contract 3, 4: one terminal event `cancelled`, the engine stopped, the state says so."""
    engine = gated(place, Gate())
    told_before = {"outline": 0, "content": 55, "style": 66}[place]
    with serving(engine, max_concurrent_generations=3) as server, server.client() as client:
        job_id = start(server)
        until(lambda: state(server, job_id)["progress"] >= told_before and engine.running)
        with client.stream("GET", f"/progress/{job_id}") as stream:
            if way == "delete":
                answer = server.client().delete(f"/jobs/{job_id}")
                assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
                assert engine.running == 0
            else:
                assert server.post(f"/v1/cancel/{job_id}").json()["ok"] is True
            sent = events(frames(stream.read().decode()))
        assert_sound(sent)
        assert sent[-1]["data"]["code"] == "cancelled"
        assert sent[-1]["progress"] == sent[-2]["progress"]
        until(lambda: engine.running == 0)
        assert engine.closed == [place]
        found = state(server, job_id)
        assert (found["status"], found["code"]) == ("cancelled", "cancelled")
        again = client.delete(f"/jobs/{job_id}")
        assert (again.status_code, again.json()) == (200, found)


def test_cancelling_a_finished_job_changes_nothing() -> None:
    """Contract 4: idempotent."""
    with serving(ArticleEngine()) as server, server.client() as client:
        job_id = start(server)
        whole = watch(server, job_id)
        answer = client.delete(f"/jobs/{job_id}")
        assert (answer.status_code, answer.json()["status"]) == (200, "complete")
        assert answer.json() == state(server, job_id)
        assert watch(server, job_id) == whole


def test_a_job_that_nobody_looks_at_ends_and_one_that_is_asked_for_does_not() -> None:
    """S1.25: CANCEL_AFTER_DISCONNECT_SECONDS; asking for the state keeps a job alive."""
    gate = Gate()
    engine = gated("style", gate)
    with serving(engine, cancel_after_disconnect_seconds=1.0) as server, server.client() as client:
        job_id = start(server)
        # From when a follower leaves, the time runs.
        with client.stream("GET", f"/progress/{job_id}") as stream:
            assert any('"step":"style"' in line for line in stream.iter_lines())
        until_s = time.monotonic() + 2.5
        while time.monotonic() < until_s:
            assert client.get(f"/jobs/{job_id}").json()["status"] == "running"
        assert engine.closed_early.wait(WAIT_S)
        assert state(server, job_id)["code"] == "cancelled"


# Without a model


@pytest.mark.parametrize("engine", ["none", "extractive", "refusing"])
def test_a_server_without_a_language_model_says_how_to_get_one(engine: str) -> None:
    """C19: 503 with Retry-After before any work, not a job that breaks."""
    from app.engine.extractive.engine import ExtractiveEngine

    given = {
        "none": None,
        "extractive": ExtractiveEngine(),
        "refusing": ArticleEngine(fit_error=Unsupported("it writes nothing")),
    }[engine]
    with serving(given, **(ALONE if given is None else {})) as server:
        answer = server.post("/start-job", {"topic": TOPIC})
        health = server.get("/health").json()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert health["sessions"] == 0
    code, told = answer.json()["code"], answer.json()["detail"]
    assert code == "model_unavailable" or (engine == "none" and code == "model_downloading")
    assert all(name in told for name in ("ENGINE_URL", "MODEL_REPO_ID", "V4_MODEL_ID"))


def test_a_full_server_refuses_a_job_before_any_work() -> None:
    """Contract 8: 429."""
    engine = gated("style", Gate())
    with serving(engine, max_queue=0) as server:
        job_id = start(server)
        answer = server.post("/start-job", {"topic": TOPIC})
        assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
        assert server.client().delete(f"/jobs/{job_id}").json()["status"] == "cancelled"
        until(lambda: server.get("/health").json()["sessions"] == 0)
        engine.style = [ARTICLE]
        assert events(watch(server, start(server)))[-1]["step"] == "complete"


# Logs


def test_neither_topic_nor_text_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """S1.34, RULES 8: of jobs that end well, fail, and are refused."""
    secret = "zebra crossing"
    texts = {n: [f"{secret} {n}"] for n in (1, 2, 3)}
    failing = GenerationFailed(f"about a {secret}")
    outlines = [[json.dumps({"sections": [secret] * 3})], [secret], [secret], [secret], failing]
    engine = ArticleEngine(outlines=outlines, sections=texts, style=[f"# {secret}"])
    with serving(engine, log_level="debug", log_format="json") as server:
        ends = [events(watch(server, start(server, secret)))[-1]["step"] for _ in range(3)]
        server.post("/start-job", {"topic": f"{secret}\x00"})
    assert ends == ["complete", "error", "error"]
    printed = capsys.readouterr().err
    assert "session_ended" in printed
    assert "zebra" not in printed
