"""The structured summary, and what a client may ask of it (contract 1)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SESSION_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"


class Sentiment(StrEnum):
    """The tone of an article."""

    positive = "positive"
    negative = "negative"
    neutral = "neutral"


class StructuredSummary(BaseModel):
    """The object that a V4 stream spells out, in this order of keys."""

    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=120, description="A click-worthy title")]
    main_summary: Annotated[str, Field(min_length=1, max_length=1200)]
    key_points: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=240)]],
        Field(min_length=3, max_length=5),
    ]
    category: Annotated[str, Field(min_length=1, max_length=40)]
    sentiment: Sentiment
    read_time_min: Annotated[int, Field(ge=1, description="Minutes to read the article")]


def summary_schema(read_time_min: int) -> dict[str, Any]:
    """Return the JSON schema of a summary whose `read_time_min` is already known (C20)."""
    schema = StructuredSummary.model_json_schema()
    schema["properties"]["read_time_min"] = {"const": read_time_min}
    return schema


class SummaryBody(BaseModel):
    """What V4 accepts as JSON; `url` and `style` may come as query parameters instead (C3)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://example.com/news/article", "style": "executive"}]
        }
    )

    url: Annotated[str | None, Field(description="http or https address of an article")] = None
    text: Annotated[
        str | None, Field(description="The text itself, 50 to 50,000 characters, instead of url")
    ] = None
    style: Annotated[
        str | None, Field(description="skimmer, executive or eli5; anything else is executive")
    ] = None
    max_tokens: Annotated[int | None, Field(ge=128, le=2048)] = None
    include_metadata: bool | None = True
    use_cache: bool | None = True
    session_id: Annotated[str | None, Field(pattern=SESSION_ID_PATTERN)] = None
