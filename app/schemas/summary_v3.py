"""What a client may ask of the plain prose summary (contract 1, V3)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.summary_v4 import EXAMPLE_TEXT, SESSION_ID_PATTERN


class ProseBody(BaseModel):
    """A page or a text, and how to write about it. A `url` that is none is taken as text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": EXAMPLE_TEXT}]})

    url: str | None = None
    text: str | None = None
    prompt: Annotated[str | None, Field(max_length=2000)] = None
    max_tokens: Annotated[int | None, Field(ge=1, le=2048)] = None
    temperature: Annotated[float | None, Field(ge=0.0, le=2.0)] = None
    top_p: Annotated[float | None, Field(gt=0.0, le=1.0)] = None
    include_metadata: bool | None = True
    use_cache: bool | None = True
    session_id: Annotated[str | None, Field(pattern=SESSION_ID_PATTERN)] = None
