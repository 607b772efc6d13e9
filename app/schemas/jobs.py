"""The request for an article, and the state of its job (contract 4)."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

MAX_TOPIC_CHARS = 200
EXAMPLE_TOPIC = "Why the sky is blue"
# Control characters, line and paragraph separators, halves of characters.
_BREAKS = frozenset(("Cc", "Zl", "Zp", "Cs"))


def is_one_line(text: str) -> bool:
    """Say whether a text has neither control characters nor anything that breaks a line."""
    return not any(unicodedata.category(char) in _BREAKS for char in text)


def _a_topic(text: str) -> str:
    if not is_one_line(text):
        raise ValueError("write the topic on one line, without control characters")
    if not any(unicodedata.category(char)[0] in "LNSP" for char in text):
        raise ValueError("the topic is empty")
    return text


Topic = Annotated[
    str,
    StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=MAX_TOPIC_CHARS),
    AfterValidator(_a_topic),
]


class JobBody(BaseModel):
    """The topic of an article, in any language; the article is written in the same one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"topic": EXAMPLE_TOPIC}]})

    topic: Topic


class StartedAnswer(BaseModel):
    """A job has begun; `job_id` is its session id too."""

    job_id: str
    topic: str
    status: Literal["started"] = "started"


class JobState(BaseModel):
    """Where a job stands: what its events so far come to. What is not known yet is left out.

    `step`: that of the newest event. `progress`: 0 to 100, it never goes back.
    """

    job_id: str
    topic: str | None = None
    status: Literal["running", "complete", "error", "cancelled"] = "running"
    step: Literal["connected", "outline", "content", "style", "complete", "error"] | None = None
    progress: Annotated[int, Field(ge=0, le=100)] = 0
    sections: list[str] = Field(default_factory=list)
    completed_sections: int = 0
    total_sections: int = 3
    final_article: str | None = None
    error: str | None = None
    code: str | None = None
