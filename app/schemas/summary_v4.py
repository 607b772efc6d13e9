"""The structured summary, and what a client may ask of it (contract 1)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

SESSION_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
MAX_POINTS = 5
# The members whose texts are sentences and points.
PROSE = ("main_summary", "key_points")
EXAMPLE_TEXT = (
    "The central bank cut its main interest rate by half a point on Tuesday, the first cut in four "
    "years. Inflation fell to 2.1 percent in May, close to the target of 2 percent. Shares rose "
    "and the currency lost 1.4 percent within an hour. The governor said that growth is too weak "
    "and that more cuts may follow this year. Exporters welcomed the decision, while savers will "
    "earn less on their deposits from July."
)


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
        Field(
            min_length=1,
            max_length=MAX_POINTS,
            description="3 to 5; 1 or 2 for a text of under five sentences",
        ),
    ]
    category: Annotated[str, Field(min_length=1, max_length=40)]
    sentiment: Sentiment
    read_time_min: Annotated[int, Field(ge=1, description="Minutes to read the article")]


def summary_schema(read_time_min: int, *, short: bool = False) -> dict[str, Any]:
    """Return the JSON schema of a summary whose `read_time_min` is already known (C20).

    `short`: the text has under five sentences, and so no three different points.
    """
    schema = StructuredSummary.model_json_schema()
    points = schema["properties"]["key_points"]
    points["minItems"], points["maxItems"] = (1, 2) if short else (3, MAX_POINTS)
    schema["properties"]["read_time_min"] = {"const": read_time_min}
    return schema


class SummaryBody(BaseModel):
    """What V4 accepts as JSON; `url` and `style` may come as query parameters instead (C3)."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": EXAMPLE_TEXT, "style": "executive"}]}
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
    include_status: Annotated[
        bool | None, Field(description="`/stream-ndjson` also tells what happens before the words")
    ] = False
    session_id: Annotated[str | None, Field(pattern=SESSION_ID_PATTERN)] = None
