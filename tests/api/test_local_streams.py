"""The whole way with the local engine: a tiny real model behind a real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.schemas.summary_v4 import StructuredSummary
from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import make_checkpoint
from tests.engines import ARTICLE
from tests.servers import NDJSON, PROSE, STREAM, Frame, Running, frames, serving, text_of, until
from tests.weight_formats import of_this_run

BODY = {"text": ARTICLE, "use_cache": False, "max_tokens": 128}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("phi3"))


@pytest.fixture(autouse=True)
def _fresh_model() -> Iterator[None]:
    ModelServiceV4.unload()
    yield
    ModelServiceV4.unload()


def local(model: Path | str, **values: Any) -> Any:
    return serving(summary_engine="local", v4_model_id=str(model), **values)


def terminals(found: list[Frame]) -> list[str]:
    return [f.event for f in found if f.event in ("result", "error")]


def sockets() -> int:
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue
    return sum(link.startswith("socket:") for link in links)


def test_the_local_model_streams_a_valid_summary(checkpoint: Path) -> None:
    """S0.1, S0.4, S0.11, S0.12, S4.23: lazily loaded, token by token, always an object."""
    with local(checkpoint) as server:
        assert server.get("/health").json()["modelReady"] is False
        assert server.get("/ready").status_code == 200
        assert server.get("/health").json()["modelReady"] is False
        found = frames(server.post(STREAM, BODY).text)
        health = server.get("/health").json()
    assert found[0].json["data"]["engine"] == "local"
    assert found[0].json["data"]["weights"] == of_this_run().held
    assert found[0].json["data"]["weights_reason"]
    stages = [f.json["stage"] for f in found if f.event == "status"]
    assert stages[0] == "loading"
    assert stages[-1] == "writing"
    assert terminals(found) == ["result"]
    summary = StructuredSummary.model_validate_json(text_of(found))
    assert found[-1].json["summary"] == summary.model_dump(mode="json")
    assert found[-1].json["usage"]["completion_tokens"] <= 128
    assert found[-1].json["usage"]["prompt_tokens"] > 50
    assert health["modelReady"] is True
    assert health["model"]["weights"] == of_this_run().held


def test_preloading_warms_the_model_up_before_the_first_request(checkpoint: Path) -> None:
    """C10."""
    with local(checkpoint, preload_models=True) as server:
        until(lambda: server.get("/health").json()["modelReady"])


@pytest.mark.parametrize("path", [NDJSON, PROSE])
def test_the_other_wire_forms_end_well_too(checkpoint: Path, path: str) -> None:
    """Contract 1: one service, three encoders."""
    with local(checkpoint) as server:
        found = frames(server.post(path, BODY).text)
    assert found[-1].json["done"] is True
    assert "error" not in found[-1].json


def asleep(server: Running, session_id: str, text: str) -> socket.socket:
    """Ask for a stream on a socket that is never read."""
    where = urlsplit(server.base)
    sleeper = socket.create_connection((where.hostname, where.port))
    sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    body = json.dumps({**BODY, "text": text, "session_id": session_id}).encode()
    head = f"POST {STREAM} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sleeper.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sleeper


def new_threads(before: set[threading.Thread]) -> set[str]:
    """Name the threads that came since; the loop's own pool keeps its workers, up to a few."""
    came = {thread.name for thread in set(threading.enumerate()) - before}
    return {name for name in came if not name.startswith("asyncio_")}


def test_eight_streams_at_once_end_once_each_and_leave_nothing(checkpoint: Path) -> None:
    """Must hold: one cancelled, one disconnected, one reader asleep; threads, tasks, sockets."""
    with local(checkpoint) as server:
        server.post(STREAM, BODY)
        server.post(STREAM, BODY)
        until(lambda: server.app.state.services().sessions.active == 0)
        threads, tasks, open_sockets = set(threading.enumerate()), server.tasks(), sockets()
        with server.client() as client:
            streams = {
                n: client.stream(
                    "POST", STREAM, json={**BODY, "text": f"{n} {ARTICLE}", "session_id": f"s{n}"}
                )
                for n in range(7)
            }
            responses = {n: stream.__enter__() for n, stream in streams.items()}
            sleeper = asleep(server, "s7", f"7 {ARTICLE}")
            server.post("/v1/cancel/s5")
            responses[6].close()
            ends = {n: terminals(frames(responses[n].read().decode())) for n in range(6)}
            for n in (6, 7):
                until(lambda n=n: server.get(f"/api/sessions/s{n}/events").status_code == 200, 40)
                ends[n] = terminals(frames(server.get(f"/api/sessions/s{n}/events").text))
            for stream in streams.values():
                stream.__exit__(None, None, None)
            sleeper.close()
        assert ends.pop(5) in (["error"], ["result"])
        assert set(map(tuple, ends.values())) == {("result",)}
        until(lambda: server.app.state.services().sessions.active == 0)
        until(lambda: not new_threads(threads))
        until(lambda: server.tasks() <= tasks)
        until(lambda: sockets() == open_sockets)


def test_those_who_wait_are_told_their_position(checkpoint: Path) -> None:
    """C25: a queue in front, clients are told their position."""
    with local(checkpoint) as server, server.client() as client:
        streams = [
            client.stream("POST", STREAM, json={**BODY, "text": f"{n} {ARTICLE}"}) for n in range(4)
        ]
        responses = [stream.__enter__() for stream in streams]
        found = [frames(response.read().decode()) for response in responses]
    positions = [f.json["position"] for one in found for f in one if f.stage == "queued"]
    assert set(positions) <= {1, 2, 3}
    assert 3 in positions


def test_a_model_raising_in_its_thread_is_one_error_event(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfall: generate() raised in its thread and the request hung for good."""
    from transformers import Phi3Model

    def broken(self: object, *args: object, **kwargs: object) -> None:
        raise RuntimeError("/secret/path exploded")

    with local(checkpoint) as server:
        with monkeypatch.context() as patched:
            patched.setattr(Phi3Model, "forward", broken)
            found = frames(server.post(STREAM, BODY).text)
            patches = frames(server.post(NDJSON, BODY).text)
        assert terminals(found) == ["error"]
        assert found[-1].json["code"] == "generation_failed"
        assert "secret" not in found[-1].json["error"]
        assert patches[-1].json["done"] is True
        assert terminals(frames(server.post(STREAM, BODY).text)) == ["result"]


def broken_copy(checkpoint: Path, folder: Path) -> Path:
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return folder


@pytest.mark.parametrize(
    ("case", "says"),
    [("missing", "download|offline|network"), ("broken", "load"), ("memory", "GB")],
)
def test_a_model_that_cannot_serve_hands_over_and_says_why(
    case: str, says: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12, C19: missing model, failing loader, short memory: the fallback, and the reason."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    values: dict[str, Any] = {"memory_limit_bytes": 10_000} if case == "memory" else {}
    model: Path | str = {
        "missing": "nobody/nothing",
        "broken": broken_copy(checkpoint, tmp_path),
        "memory": checkpoint,
    }[case]
    with local(model, **values) as server:
        found = frames(server.post(STREAM, BODY).text)
        last_metadata = [f for f in found if f.event == "metadata"][-1].json["data"]
        assert last_metadata["engine"] == "extractive"
        assert re.search(says, last_metadata["engine_reason"])
        assert terminals(found) == ["result"]
    with local(model, fallback_engine="none", **values) as server:
        server.post(STREAM, BODY)
        response = server.post(STREAM, BODY)
        assert response.status_code == 503
        assert re.search(says, response.json()["detail"])
        assert int(response.headers["retry-after"]) > 0


def test_cancelling_stops_the_model_and_the_next_one_runs(checkpoint: Path) -> None:
    """S1.25, S1.31, S1.32: the model stops within a token; the place is free again."""
    with local(checkpoint) as server, server.client() as client:
        server.post(STREAM, BODY)
        long = {**BODY, "max_tokens": 1024, "session_id": "mine"}
        with client.stream("POST", STREAM, json=long) as response:
            lines = response.iter_lines()
            while '"writing"' not in next(lines):
                pass
            server.post("/v1/cancel/mine")
            rest = list(lines)
        assert rest[-2].startswith('data: {"error"') or "result" in "".join(rest)
        until(lambda: server.app.state.services().sessions.active == 0)
        until(lambda: not [t for t in threading.enumerate() if t.name.startswith("gener")])
        assert terminals(frames(server.post(STREAM, BODY).text)) == ["result"]


def test_a_model_id_that_cannot_be_one_is_a_reason_not_a_defect() -> None:
    """C19, S1.35; also when it should be preloaded, and the server stays up."""
    with local("bad id!", preload_models=True) as server:
        found = frames(server.post(STREAM, BODY).text)
        assert "V4_MODEL_ID" in found[0].json["data"]["engine_reason"]
        assert terminals(found) == ["result"]
        assert server.get("/ready").status_code == 503
        assert server.tasks(), "the sweeper runs on"


def test_health_tells_what_is_known_of_a_model_that_could_not_load(checkpoint: Path) -> None:
    """C9, C12: after a request has found it out; the probe itself looks for nothing."""
    with local(checkpoint, memory_limit_bytes=10_000) as server:
        assert server.get("/health").json()["error"] is None
        server.post(STREAM, BODY)
        health = server.get("/health").json()
        assert "GB" in health["error"]
        assert (health["ok"], health["modelReady"]) == (True, False)
        ready = server.get("/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_enough_memory")
