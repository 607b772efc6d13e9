"""An engine that writes articles by a script for each step, and what tests do with jobs."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Literal, get_args

from app.core.errors import AppError, EngineUnavailable
from app.engine.base import Finish, Fitted, GenerateRequest, Item, Status, Text
from app.services.articles.prompts import STYLE_TASK
from tests.engines import Gate, pieces_of
from tests.servers import Frame, Running, frames
from tests.turns import next_turn

Step = Literal["outline", "content", "style"]
Script = Sequence[str | Gate | Exception]

TITLES = ["Light from the sun", "What air does to it", "And at sunset"]
OUTLINE = json.dumps({"sections": TITLES}, separators=(",", ":"))
ARTICLE = "# Look up!\n\n" + "\n\n".join(
    f"## {title}\n\nEver wondered why? Here is the answer, in a few plain words."
    for title in TITLES
)
STYLE = tuple(pieces_of(ARTICLE))
TOPIC = "Why the sky is blue"

_NUMBER = re.compile(r"Write section (\d+)")


def section_text(number: int) -> str:
    """The text of a section; `number` counts from 1."""
    return f"Text {number} of the article. " * 6


def step_of(request: GenerateRequest) -> Step:
    """Say which step of an article asks."""
    prompt = request.messages[-1].content
    if _NUMBER.search(prompt):
        return "content"
    return "style" if prompt.startswith(STYLE_TASK) else "outline"


class ArticleEngine:
    """Answers as the scripts say: `outlines` one after the other, `sections` by their number.

    Gates are waited for and exceptions raised, wherever they stand.
    """

    name = "scripted"
    model = "writer-1"

    def __init__(
        self,
        *,
        outlines: Sequence[Script | AppError] = ((OUTLINE,),),
        sections: dict[int, Script] | None = None,
        style: Script = STYLE,
        fit_error: AppError | None = None,
    ) -> None:
        self.outlines = list(outlines)
        self.sections = sections or {}
        self.style = style
        self.fit_error = fit_error
        self.requests: list[GenerateRequest] = []
        self.running = 0
        self.most_running = 0
        self.closed_early = threading.Event()
        self.closed: list[Step] = []
        # Opened when a call of that step waits at a gate.
        self.reached: dict[Step, Gate] = {step: Gate() for step in get_args(Step)}

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        finished = False
        step = step_of(request)
        tokens = 0
        try:
            yield Status("writing")
            for part in self._script(step, request):
                await next_turn()
                if isinstance(part, Gate):
                    self.reached[step].open()
                    await part.passed()
                elif isinstance(part, Exception):
                    finished = True
                    raise part
                else:
                    tokens += 1
                    yield Text(part)
            finished = True
            yield Finish("stop", 100, tokens)
        finally:
            self.running -= 1
            if not finished:
                self.closed.append(step)
                self.closed_early.set()

    def _script(self, step: Step, request: GenerateRequest) -> Script:
        if step == "style":
            return self.style
        if step == "outline":
            script = self.outlines.pop(0) if len(self.outlines) > 1 else self.outlines[0]
            return [script] if isinstance(script, AppError) else script
        found = _NUMBER.search(request.messages[-1].content)
        assert found is not None
        number = int(found[1])
        return self.sections.get(number, pieces_of(section_text(number)))

    def prompts(self, step: Step) -> list[str]:
        """Return the prompts of a step, in the order in which they came."""
        return [r.messages[-1].content for r in self.requests if step_of(r) == step]

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        if self.fit_error is not None:
            raise self.fit_error
        return Fitted(request)

    def facts(self) -> dict[str, str]:
        return {}

    def info(self) -> dict[str, Any]:
        return {"model_id": self.model, "loaded": True}

    async def unavailable(self) -> EngineUnavailable | None:
        return None

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def load(self) -> None:
        """Nothing to load."""

    async def maintain(self) -> None:
        """Nothing is to be done."""

    async def aclose(self) -> None:
        """Nothing is held."""


def steps(events: Sequence[dict[str, Any]]) -> list[str]:
    """Return the steps of a job's events, each run of equal ones once."""
    found = [event["step"] for event in events]
    return [step for place, step in enumerate(found) if place == 0 or found[place - 1] != step]


def assert_sound(events: Sequence[dict[str, Any]]) -> None:
    """Assert what holds for every job that has ended: contract 4."""
    progress = [event["progress"] for event in events]
    assert progress == sorted(progress), "the progress went back"
    assert all(set(event) == {"step", "progress", "data"} for event in events)
    ends = [event["step"] for event in events if event["step"] in ("complete", "error")]
    assert len(ends) == 1
    assert events[-1]["step"] == ends[0]


def start(server: Running, topic: str = TOPIC, **options: Any) -> str:
    response = server.post("/start-job", {"topic": topic}, **options)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["job_id"]
    return job_id


def watch(server: Running, job_id: str, **options: Any) -> list[Frame]:
    response = server.get(f"/progress/{job_id}", **options)
    assert response.status_code == 200, response.text
    return frames(response.text)


def events(found: list[Frame]) -> list[dict[str, Any]]:
    assert all(frame.event == "" for frame in found)
    return [frame.json for frame in found]


def state(server: Running, job_id: str) -> dict[str, Any]:
    response = server.get(f"/jobs/{job_id}")
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def gated(place: Step, gate: Gate) -> ArticleEngine:
    """An engine that waits in the middle of a step."""
    return ArticleEngine(
        outlines=[[OUTLINE[:9], gate, OUTLINE[9:]]] if place == "outline" else [[OUTLINE]],
        sections={2: ["half ", gate, "done"]} if place == "content" else None,
        style=["# Look", " up", gate, "!"] if place == "style" else [ARTICLE],
    )
