"""What the endpoints that do not stream answer with, and the two forms of an error."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelState(BaseModel):
    """What is known of a model without loading it; engines tell more than this."""

    model_config = ConfigDict(extra="allow")

    model_id: str
    loaded: bool
    error: str | None = None


class RoleState(ModelState):
    """The model of a role, and the kind of engine that runs it."""

    engine: str


class MarketState(BaseModel):
    """The marketplace's database; `closed`: nobody has needed it yet."""

    state: Literal["closed", "ready", "unavailable"]
    error: str | None


class OcrState(BaseModel):
    """What reads ID cards. `memory_bytes`: what its models took, once they are loaded."""

    installed: bool
    loaded: bool
    memory_bytes: int


class HealthAnswer(BaseModel):
    """The process can answer. `modelReady`: the weights of the default engine are in memory."""

    status: Literal["ok"]
    service: str
    version: str
    ok: Literal[True]
    modelReady: bool
    modelId: str | None
    error: str | None
    engine: str
    model: ModelState
    roles: dict[str, RoleState]
    sessions: int = Field(description="How many sessions run or wait in this process")
    market: MarketState
    ocr: OcrState


class ReadyAnswer(BaseModel):
    """The default engine can serve."""

    ready: Literal[True]
    engine: str
    model: str


class ModelAnswer(BaseModel):
    """A model that can answer a chat."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When this server started, in Unix seconds")
    owned_by: str


class ModelListAnswer(BaseModel):
    """The models that can answer a chat, the one for text first."""

    object: Literal["list"]
    data: list[ModelAnswer]


class CancelAnswer(BaseModel):
    """Whether or not there was such a session, none of that id runs now."""

    ok: Literal[True]
    session_id: str


class ErrorAnswer(BaseModel):
    """An error; `code` is the contract, `detail` is for people."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "detail": "give exactly one of 'url' and 'text'",
                    "code": "invalid_input",
                    "request_id": "6f5fb0ace3bd40778d30476d67e202fe",
                }
            ]
        }
    )

    detail: str | list[Any] = Field(description="Text, or a list of the fields at fault")
    code: str
    request_id: str


class OpenAIErrorDetail(BaseModel):
    """What went wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None = Field(description="The field at fault, as in `messages[0].role`")
    code: str


class OpenAIErrorAnswer(BaseModel):
    """An error of a path under `/v1`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "message": "messages: send at least one message",
                        "type": "invalid_request_error",
                        "param": "messages",
                        "code": "invalid_input",
                    }
                }
            ]
        }
    )

    error: OpenAIErrorDetail
