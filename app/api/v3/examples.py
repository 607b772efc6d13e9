"""What `/docs` shows of a prose summary: requests that work, and their events."""

from __future__ import annotations

from app.api.docs.frames import METADATA, named_endings, on_wire
from app.api.docs.requests import OWN_ID, PAGE, PAGE_SUMMARY, Examples, example
from app.api.v3.wire import prose_failure
from app.schemas.summary_v4 import EXAMPLE_TEXT
from app.stream.event import Draft

PROSE_STREAM: Examples = {
    "text": example("A text", text=EXAMPLE_TEXT),
    "page": example(PAGE_SUMMARY, url=PAGE),
    "session": example(OWN_ID, text=EXAMPLE_TEXT, session_id="my-prose"),
    "prompt": example(
        "With an instruction and a budget",
        text=EXAMPLE_TEXT,
        prompt="Summarize this in one sentence for a newspaper:",
        max_tokens=96,
        temperature=0.2,
        top_p=0.9,
    ),
}


PROSE_EVENTS = named_endings(
    on_wire(
        (0, Draft("", METADATA)),
        (1, Draft("", {"content": "The central", "done": False, "tokens_used": 2})),
        (2, Draft("", {"content": " bank cut", "done": False, "tokens_used": 4})),
        (40, Draft("", {"content": "", "done": True, "tokens_used": 58, "latency_ms": 4210.5})),
        session_id="my-prose",
    ),
    prose_failure,
    "my-prose",
)
