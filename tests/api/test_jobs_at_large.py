"""Article jobs: many at once, on several processes, after a crash, on real and on far models."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.demo import free_port
from app.demo import server as process_server
from app.engine.base import GenerateRequest, Message, Text
from app.engine.local.engine import LocalEngine
from app.services.articles.outline import OUTLINE_SCHEMA
from app.services.articles.prompts import STYLE_TASK, outline_prompt
from app.services.model_loader_v4 import ModelServiceV4
from bench.upstream import ARTICLE as FAR_ARTICLE
from bench.upstream import Script, running_upstream
from tests.article_engine import (
    ARTICLE,
    OUTLINE,
    TITLES,
    TOPIC,
    ArticleEngine,
    assert_sound,
    events,
    gated,
    start,
    state,
    steps,
    watch,
)
from tests.checkpoints import checkpoint, make_checkpoint
from tests.engines import Gate, pieces_of
from tests.redis_server import redis_server, redis_url
from tests.servers import WAIT_S, frames, serving, until
from tests.weight_formats import of_this_run

__all__ = ["checkpoint", "redis_server", "redis_url"]


async def _read(
    client: httpx.AsyncClient, job_id: str, cuts: list[int], connected: asyncio.Event
) -> tuple[list[int], list[dict[str, Any]]]:
    """Read a job to its end, leaving after so many events each time and coming back."""
    seen: list[int] = []
    told: list[dict[str, Any]] = []
    while not told or told[-1]["step"] not in ("complete", "error"):
        head = {"Last-Event-ID": f"{job_id}:{seen[-1]}"} if seen else {}
        leave_after = len(seen) + cuts.pop(0) if cuts else None
        async with client.stream("GET", f"/progress/{job_id}", headers=head) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    seen.append(int(line.rpartition(":")[2]))
                elif line.startswith("data: "):
                    told.append(json.loads(line.removeprefix("data: ")))
                    connected.set()
                    if len(told) == leave_after:
                        break
    return seen, told


def test_twenty_jobs_at_once_reach_every_reader_whole() -> None:
    """S3.6, contract 4: two readers a job, one of them coming back five times; nothing is lost."""
    gate = Gate()
    engine = ArticleEngine(sections={3: ["begun ", gate, "done"]})
    chance = random.Random(3)

    async def all_jobs(base: str) -> list[Any]:
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(
                base_url=base, timeout=WAIT_S, trust_env=False, limits=limits
            ) as client,
            asyncio.timeout(2 * WAIT_S),
        ):
            answers = await asyncio.gather(
                *(client.post("/start-job", json={"topic": f"{TOPIC} {n}"}) for n in range(20))
            )
            ids = [answer.json()["job_id"] for answer in answers]
            assert len(set(ids)) == 20
            connected = [asyncio.Event() for _ in range(40)]
            async with asyncio.TaskGroup() as group:
                readers = [
                    group.create_task(_read(client, ids[n // 2], cuts, connected[n]))
                    for n, cuts in enumerate(
                        [1, *(chance.randint(1, 2) for _ in range(4))] if n % 2 else []
                        for n in range(40)
                    )
                ]
                for event in connected:
                    await event.wait()
                gate.open()
            return [reader.result() for reader in readers]

    with serving(engine, max_concurrent_generations=64) as server:
        found = asyncio.run(all_jobs(server.base))
    for number, (seen, told) in enumerate(found):
        assert seen == list(range(len(seen)))
        assert_sound(told)
        assert told[-1]["data"] == {"final_article": ARTICLE}
        assert told[0]["data"]["topic"] == f"{TOPIC} {number // 2}"
    assert all(one == two for one, two in zip(found[::2], found[1::2], strict=True))
    assert engine.most_running <= 64


def test_a_job_is_watched_and_cancelled_on_another_process(redis_url: str) -> None:
    """Contract 3: any process."""
    engine = gated("style", Gate())
    idle = ArticleEngine()
    with (
        serving(engine, sessions_url=redis_url) as one,
        serving(idle, sessions_url=redis_url) as two,
    ):
        job_id = start(one)
        until(lambda: state(two, job_id)["step"] == "style")
        answer = two.client().delete(f"/jobs/{job_id}")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert state(one, job_id) == answer.json()
        sent = events(watch(two, job_id))
        assert_sound(sent)
        assert sent == events(watch(one, job_id))
    assert engine.closed == ["style"]
    assert not idle.requests


def test_a_killed_server_leaves_a_job_that_tells_the_truth(tmp_path: Path) -> None:
    """Contract 4: with a durable log, after SIGKILL: `interrupted`, and the progress stays."""
    script = Script(words_per_second=60.0)
    kept = {"PERSIST_SESSIONS": "1", "SESSIONS_DB_PATH": str(tmp_path / "sessions.db")}
    with running_upstream(script) as (url, _):
        variables = {**kept, "ENGINE_URL": url, "LOG_LEVEL": "error"}
        seen: list[dict[str, Any]] = []
        with process_server(free_port(), variables=variables) as server:
            base = {"base_url": server.base, "timeout": WAIT_S, "trust_env": False}
            with httpx.Client(**base) as client:
                job_id = client.post("/start-job", json={"topic": TOPIC}).json()["job_id"]
                with client.stream("GET", f"/progress/{job_id}") as stream:
                    for line in stream.iter_lines():
                        if line.startswith("data: "):
                            seen.append(json.loads(line.removeprefix("data: ")))
                        if seen and seen[-1]["step"] == "outline":
                            break
                    os.kill(server.process.pid, signal.SIGKILL)
                    server.process.wait(WAIT_S)
        with process_server(free_port(), variables=variables) as server:
            base = {"base_url": server.base, "timeout": WAIT_S, "trust_env": False}
            with httpx.Client(**base) as client:
                found = client.get(f"/jobs/{job_id}").json()
                told = events(frames(client.get(f"/progress/{job_id}").text))
    assert (found["status"], found["code"]) == ("error", "interrupted")
    assert found["sections"] == seen[-1]["data"]["sections"]
    assert told[: len(seen)] == seen
    assert_sound(told)
    assert told[-1]["progress"] == told[-2]["progress"] >= 33


def test_a_far_model_that_writes_yaml_in_blocks_serves(tmp_path: Path) -> None:
    """C17, S3.15: ENGINE_URL at a server that refuses every JSON form."""
    block = "Here it is:\n\nsections:\n  - One\n  - Two\n  - Three\n"
    with (
        running_upstream(Script(steps=[block])) as (url, script),
        serving(summary_engine="local", engine_url=(url,)) as server,
    ):
        script.refused_forms = frozenset(("json_schema", "json_object"))
        sent = events(watch(server, start(server)))
        first = script.bodies[0]
    assert_sound(sent)
    assert sent[1]["data"]["sections"] == ["One", "Two", "Three"]
    assert sent[-1]["data"]["final_article"] == block.strip()
    assert first["response_format"]["type"] == "json_schema"


def test_a_far_model_writes_whole_articles() -> None:
    """C17: the model server of the benches plans, writes and styles."""
    with (
        running_upstream(Script(words=60, words_per_second=200.0)) as (url, script),
        serving(summary_engine="local", engine_url=(url,)) as server,
    ):
        sent = events(watch(server, start(server)))
        most = script.most_running
    assert_sound(sent)
    assert steps(sent) == ["connected", "outline", "content", "style", "complete"]
    assert sent[-1]["data"]["final_article"] == FAR_ARTICLE.strip()
    assert most == 3


def test_a_model_in_here_writes_a_job(tmp_path: Path) -> None:
    """S3.15, C24: the real fit, queue and threads of a local model; its words are a script's."""
    folder = make_checkpoint(tmp_path / "phi3", context_tokens=8192)
    schemas: list[Any] = []

    class Scripted(ModelServiceV4):
        """Its generation is a script."""

        @classmethod
        def stream_generation(cls, prompt: Any, **options: Any) -> Iterator[str]:
            schemas.append(options["request"].json_schema)
            asked = prompt[-1].content
            script = OUTLINE if schemas[-1] else ARTICLE if STYLE_TASK in asked else "A section. "
            yield from pieces_of(script)

    Scripted.configure(**of_this_run().loading(folder))
    with serving(LocalEngine(Scripted)) as server:
        sent = events(watch(server, start(server)))
    assert_sound(sent)
    assert steps(sent) == ["connected", "outline", "content", "style", "complete"]
    assert sent[1]["data"]["sections"] == TITLES
    assert sent[-1]["data"]["final_article"] == ARTICLE
    assert schemas == [OUTLINE_SCHEMA, None, None, None, None]


@pytest.mark.parametrize("seed", range(3))
async def test_a_model_in_here_holds_itself_to_the_outline(seed: int, checkpoint: Path) -> None:
    """C6: random weights say anything, and yet there are three titles."""

    class Tiny(ModelServiceV4):
        """The tiny checkpoint."""

    Tiny.configure(**of_this_run().loading(checkpoint))
    request = GenerateRequest(
        messages=(Message("user", outline_prompt(TOPIC)),),
        max_tokens=512,
        temperature=1.0,
        seed=seed,
        json_schema=OUTLINE_SCHEMA,
    )
    engine = LocalEngine(Tiny)
    async with asyncio.timeout(WAIT_S), aclosing(engine.generate(request)) as stream:
        items = [item async for item in stream]
    titles = json.loads("".join(item.text for item in items if isinstance(item, Text)))["sections"]
    assert len(titles) == 3
    assert all(3 <= len(title) <= 80 for title in titles)
