"""What `/docs` shows of article jobs: requests that work, and the events of a job."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from app.api.docs.frames import on_wire
from app.schemas.jobs import EXAMPLE_TOPIC, JobBody
from app.stream.event import Draft

_EXAMPLES = {
    "topic": {"summary": "A topic", "value": {"topic": EXAMPLE_TOPIC}},
    "indonesian": {
        "summary": "In the language of the topic",
        "value": {"topic": "Mengapa langit berwarna biru"},
    },
}


def request_body(form_types: Set[str]) -> dict[str, Any]:
    """Return the described body of `/start-job`, which may be JSON or a form."""
    schema = JobBody.model_json_schema()
    types = ("application/json", *sorted(form_types, reverse=True))
    content = {name: {"schema": schema, "examples": _EXAMPLES} for name in types}
    return {"requestBody": {"required": True, "content": content}}


def _example() -> str:
    """Return a job as it is on the wire, most of its pieces left out."""
    titles = ["Light from the sun", "What air does to it", "And at sunset"]
    section = {"section": titles[0], "completed_sections": 1, "total_sections": 3}
    article = "# Look up!\n\n## Light from the sun\n\nEver wondered …"
    events: tuple[tuple[int, str, int, dict[str, Any]], ...] = (
        (0, "connected", 0, {"message": "The job has begun.", "topic": "Why the sky is blue"}),
        (1, "outline", 33, {"sections": titles}),
        (2, "content", 44, {**section, "text": "Sunlight looks white, yet …"}),
        (5, "style", 67, {"text": "# Look up!\n\n"}),
        (64, "complete", 100, {"final_article": article}),
    )
    return on_wire(
        *(
            (index, Draft("", {"step": step, "progress": progress, "data": data}))
            for index, step, progress, data in events
        ),
        session_id="my-job",
    )


JOB_EVENTS = _example()
