"""Logs: structured, with the request id, without secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app.core.logging import configure_logging
from tests.engines import ARTICLE, ScriptedEngine
from tests.servers import STREAM, serving


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.contextvars.clear_contextvars()
    configure_logging("warning")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]


def test_json_lines_of_our_and_of_other_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    """S1.36; pitfall: JSON logging crashed on every record in the one place where it was on."""
    configure_logging("info", "json")
    structlog.get_logger("ours").info("started", port=1)
    logging.getLogger("uvicorn.error").info("listening on %s", "x")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("ours").exception("failed")
    first, second, third = lines(capsys)
    assert (first["event"], first["port"], first["level"]) == ("started", 1, "info")
    assert second["event"] == "listening on x"
    assert "ValueError: broken" in str(third["exception"])


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": "Bearer abcdefghijk"},
        {"headers": {"X-API-Key": "abcdefghijk"}},
        {"note": "sent Bearer abcdefghijk along"},
        {"note": "token hf_abcdefghijk"},
        {"note": "key sk-abcdefghijk"},
        {"hf_token": "abcdefghijk"},
        {"prompt": "abcdefghijk"},
        {"article_text": "abcdefghijk"},
        {"content": "abcdefghijk"},
        {"url": "http://user:abcdefghijk@example.com/"},
        {"many": [{"password": "abcdefghijk"}]},
        {"nik": "abcdefghijk"},
    ],
)
def test_a_secret_is_redacted_wherever_it_stands(
    form: str, fields: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """S1.34, S2.24; pitfall: prompts and personal data were logged."""
    configure_logging("info", form)  # type: ignore[arg-type]
    structlog.get_logger().info("event", **fields)
    printed = capsys.readouterr().err
    assert "abcdefghijk" not in printed
    assert "redacted" in printed


def test_a_secret_in_another_loggers_line_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    logging.getLogger("library").warning("calling with Bearer %s", "abcdefghijk")
    assert "abcdefghijk" not in capsys.readouterr().err


def test_token_counts_are_not_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info", "json")
    structlog.get_logger().info("done", prompt_tokens=5, completion_tokens=6, max_tokens=7)
    assert lines(capsys)[0]["prompt_tokens"] == 5


def test_every_line_of_a_request_has_its_id_and_no_article_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """S1.33, S1.36: stream start and stop are logged, with the request id."""
    with serving(ScriptedEngine(), log_level="debug", log_format="json") as server:
        server.post(STREAM, {"text": ARTICLE}, headers={"X-Request-ID": "req-7"})
    printed = lines(capsys)
    mine = {line["event"] for line in printed if line.get("request_id") == "req-7"}
    assert {"request", "session_started", "session_ended"} <= mine
    assert all("harbour" not in json.dumps(line).lower() for line in printed)
