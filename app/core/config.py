"""Every setting, read once from the environment (or `.env`) and frozen.

Only `main.py`, `wiring.py` and `__main__.py` see this object; everyone else is handed plain values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.core.database_url import database_url
from app.core.log_url import log_kind
from app.core.signing_keys import checked_keys


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
PortList = Annotated[tuple[int, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """The configuration of one process; `.env.example` explains each variable."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        str_strip_whitespace=True,
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    enable_v4_structured: bool = True
    summary_engine: Literal["local", "extractive"] = "local"
    fallback_engine: Literal["extractive", "none"] = "extractive"
    v4_model_id: str = "microsoft/Phi-3-mini-4k-instruct"
    v4_model_revision: str | None = None
    v4_weights: Literal["auto", "float32", "bfloat16", "int8", "int4"] = "auto"
    model_repo_id: str | None = None
    vision_model_id: str = "Qwen/Qwen3-VL-2B-Thinking"
    device_map: str = "auto"
    torch_dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto"
    max_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_video_frames: Annotated[int, Field(ge=1, le=256)] = 16
    enable_auto_compression: bool = True
    engine_url: CommaList = ()
    engine_model: str | None = None
    engine_api_key: str | None = Field(default=None, repr=False)
    trust_remote_code: bool = False
    hf_token: str | None = Field(default=None, repr=False)
    preload_models: bool = False
    memory_limit_bytes: Annotated[int, Field(gt=0)] | None = None
    quant_cache_dir: str = "auto"
    native_kernels: bool = True
    model_idle_unload_seconds: Annotated[float, Field(ge=0)] = 0.0

    max_concurrent_generations: Annotated[int, Field(ge=1)] = 1
    max_queue: Annotated[int, Field(ge=0)] = 64
    max_active_per_client: Annotated[int, Field(ge=1)] | None = None
    shutdown_seconds: Annotated[float, Field(ge=1)] = 8.0
    generation_timeout_seconds: Annotated[float, Field(gt=0)] = 1800.0

    persist_sessions: bool = False
    sessions_db_path: str = "sessions.db"
    sessions_url: str | None = Field(default=None, repr=False)
    sessions_ttl_seconds: Annotated[float, Field(ge=0)] = 600.0
    cancel_after_disconnect_seconds: Annotated[float, Field(ge=0)] = 3600.0
    heartbeat_seconds: Annotated[float, Field(gt=0, le=15)] = 10.0

    summary_cache_ttl_seconds: Annotated[float, Field(ge=0)] = 3600.0
    summary_cache_size: Annotated[int, Field(ge=0)] = 256
    page_cache_ttl_seconds: Annotated[float, Field(ge=0)] = 600.0
    page_cache_size: Annotated[int, Field(ge=0)] = 256

    data_dir: str = "data"
    database_url: str | None = Field(default=None, repr=False)
    migrate: bool = True
    jwt_keys: CommaList = Field(default=(), repr=False)
    access_token_seconds: Annotated[int, Field(ge=30, le=86_400)] = 900
    refresh_token_days: Annotated[int, Field(ge=1, le=365)] = 30
    login_rate_limit: str = "10/minute"

    fetch_allow_hosts: CommaList = ()
    fetch_ports: PortList = (80, 443, 8080, 8443)
    fetch_timeout_seconds: Annotated[float, Field(gt=0)] = 10.0
    fetch_max_bytes: Annotated[int, Field(gt=0)] = 5_000_000
    fetch_max_redirects: Annotated[int, Field(ge=0)] = 5
    fetch_user_agent: Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")] = (
        "Mozilla/5.0 (compatible; Precis/1.0)"
    )

    forwarded_allow_ips: str | None = None
    api_keys: CommaList = Field(default=(), repr=False)
    rate_limit: str | None = None
    cors_origins: CommaList = ("*",)
    max_body_bytes: Annotated[int, Field(gt=0)] = 2_000_000
    max_media_body_bytes: Annotated[int, Field(gt=0)] = 20_000_000

    @field_validator("api_keys", "fetch_ports", "jwt_keys", mode="before")
    @classmethod
    def _list_is_not_only_commas(cls, value: object) -> object:
        # A list that was meant and came out empty would open the server, or close the web.
        if isinstance(value, str) and value and not value.strip(" ,"):
            raise ValueError("the list is empty; leave the variable out instead")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _level_in_lower_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @property
    def log_url(self) -> str:
        """Where sessions are kept, as `open_log` wants it."""
        if self.sessions_url is not None:
            return self.sessions_url
        return f"sqlite:{self.sessions_db_path}" if self.persist_sessions else "memory:"

    @field_validator("sessions_url")
    @classmethod
    def _sessions_url_is_of_a_known_log(cls, value: str | None) -> str | None:
        if value:
            log_kind(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _database_is_of_a_known_kind(cls, value: str | None) -> str | None:
        return database_url(value) if value else value

    @field_validator("jwt_keys")
    @classmethod
    def _keys_cannot_be_guessed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_keys(value)

    @field_validator("engine_url")
    @classmethod
    def _engine_url_is_http(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(url.startswith(("http://", "https://")) for url in value):
            raise ValueError("write http(s)://HOST:PORT/v1, several of them with commas between")
        return value

    @field_validator("rate_limit", "login_rate_limit")
    @classmethod
    def _rate_limit_is_known(cls, value: str | None) -> str | None:
        from limits import parse_many

        if value is None:
            return None
        try:
            found = parse_many(value)
        except ValueError:
            found = []
        if len(found) != 1 or found[0].amount < 1:
            raise ValueError("write one limit, as in 60/minute or 1000/hour")
        return value
