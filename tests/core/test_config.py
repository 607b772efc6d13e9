"""Every documented variable is read, and nothing else is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.core.config import Settings

ROOT = Path(__file__).parents[2]
OTHER = {
    "host": "0.0.0.0", "port": "3000", "log_level": "debug", "log_format": "json",
    "api_keys": "a,b", "rate_limit": "5/second", "cors_origins": "https://a.example",
    "summary_engine": "extractive", "fallback_engine": "none", "v4_weights": "bfloat16",
    "fetch_allow_hosts": "localhost:9", "fetch_ports": "81,82", "heartbeat_seconds": "3",
    "engine_url": "http://a:1/v1,https://b/v1", "sessions_url": "redis://h:1/2",
    "database_url": "postgresql://h/market", "login_rate_limit": "5/minute",
    "jwt_keys": "a:0123456789abcdefghijklmnopqrstuvwxyz", "access_token_seconds": "60",
    "temperature": "0.1", "torch_dtype": "float16",
}  # fmt: skip


def variables(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if re.match(r"[A-Z0-9_]+=", line))


@pytest.mark.parametrize("name", sorted(variables(".env.example")))
def test_a_documented_variable_changes_its_setting(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1.17, S1.40; pitfall: documented variables did nothing."""
    field = name.lower()
    default = getattr(Settings(_env_file=None), field)
    other = OTHER.get(field) or ("false" if default is True else "true" if default is False else "")
    if not other:
        other = (
            "17"
            if isinstance(default, int | float) or field.endswith(("_bytes", "_client"))
            else "other"
        )
    monkeypatch.setenv(name, other)
    assert getattr(Settings(_env_file=None), field) != default


def test_the_example_names_every_setting_and_its_default() -> None:
    """S1.40: .env.example is complete, and what it says is true."""
    example = variables(".env.example")
    assert set(example) == {name.upper() for name in Settings.model_fields}


def test_the_examples_values_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings(_env_file=None)
    for name, value in variables(".env.example").items():
        monkeypatch.setenv(name, value)
    assert Settings(_env_file=None) == defaults


def test_the_space_configuration_is_a_subset() -> None:
    """S0.25, C15."""
    space = variables("env.hf")
    assert set(space) <= set(variables(".env.example"))
    assert space["ENABLE_V4_STRUCTURED"] == "true"
    assert space["PORT"] == "7860"


def test_defaults_are_what_the_contracts_say() -> None:
    """C15, contract 3, contract 6, contract 8."""
    settings = Settings(_env_file=None)
    assert settings.port == 7860
    assert settings.sessions_ttl_seconds == 600
    assert settings.cancel_after_disconnect_seconds == 3600
    assert settings.fetch_ports == (80, 443, 8080, 8443)
    assert settings.fetch_allow_hosts == ()
    assert settings.api_keys == ()


def test_settings_are_frozen_and_hide_secrets() -> None:
    settings = Settings(_env_file=None, hf_token="hf_abcdefgh1234", api_keys=("k1-secret",))
    assert "hf_abcdefgh1234" not in repr(settings)
    assert "k1-secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "99999"),
        ("V4_WEIGHTS", "int2"),
        ("RATE_LIMIT", "often"),
        ("RATE_LIMIT", "60/minute;5/second"),
        ("RATE_LIMIT", "0/minute"),
        ("MAX_QUEUE", "-1"),
        ("API_KEYS", " , "),
        ("FETCH_PORTS", ","),
    ],
)
def test_a_wrong_value_is_refused_at_start(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError):
        Settings(_env_file=None)


def test_the_program_names_the_variable_that_is_wrong() -> None:
    """S1.17: a sentence and status 2, no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "app"], cwd=ROOT, env={**os.environ, "RATE_LIMIT": "often"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "RATE_LIMIT: Value error, write one limit, as in 60/minute or 1000/hour\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SESSIONS_URL", "mysql://user:hunter2@host/db"),
        ("SESSIONS_URL", "redis://user:hunter2@host:99999/0"),
        ("SESSIONS_URL", "memory:hunter2"),
        ("SESSIONS_URL", "sqlite:"),
        ("ENGINE_URL", "gpu-1:8000"),
        ("TORCH_DTYPE", "int3"),
        ("MAX_TOKENS", "0"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1.26, S2.24: a URL may hold a password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None)
    problem = refused.value.errors()[0]
    assert problem["loc"] == (name.lower(),)
    assert "hunter2" not in problem["msg"]


def test_where_sessions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """S1.28, S4.20: memory, a file, or what SESSIONS_URL says, which wins."""
    assert Settings(_env_file=None).log_url == "memory:"
    monkeypatch.setenv("PERSIST_SESSIONS", "1")
    assert Settings(_env_file=None).log_url == "sqlite:sessions.db"
    monkeypatch.setenv("SESSIONS_URL", "redis://h:1/2")
    assert Settings(_env_file=None).log_url == "redis://h:1/2"
