"""Contract 5: no personal data of a card in any log, database, cache, error or temporary file."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from app.core.logging import configure_logging
from app.services.ocr import reader
from app.services.ocr.engine import OcrModels
from app.wiring import PRIVATE_TTL_S
from tests.api.card_images import card_photo
from tests.redis_server import redis_server, redis_url  # noqa: F401
from tests.servers import Running, frames, serving, until

CARD_S = 50.0
# Short values and those of every card would be found anywhere.
SECRET = ("nik", "nama", "tgl_lahir", "alamat")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    structlog.contextvars.clear_contextvars()
    configure_logging("warning")


def post(server: Running, path: str = "/ktp-ocr/", name: str = "card.jpg") -> str:
    _, data = card_photo()
    with server.client(timeout=CARD_S) as client:
        return client.post(path, files={"image": (name, data)}, data={"session_id": "own"}).text


def secrets() -> list[str]:
    card, _ = card_photo()
    return [card.fields[name] for name in SECRET]


@pytest.mark.parametrize("form", ["console", "json"])
def test_no_value_of_a_card_is_in_a_log_a_database_or_a_temporary_file(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every level, both formats, with a log of sessions on disk."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    made: list[object] = []
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda *a, **k: made.append(a))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *a, **k: made.append(a))
    database = tmp_path / "sessions.db"
    values = {"log_level": "debug", "log_format": form, "sessions_url": f"sqlite:{database}"}
    with serving(**values) as server:
        answer = post(server, "/ktp-ocr/stream", name="SITI NAMED THE FILE.jpg")
        health = server.get("/health").text
    assert frames(answer)[-1].event == "result"
    assert all(secret in answer for secret in secrets()), answer
    written = "".join(capfd.readouterr())
    assert "/ktp-ocr/stream" in written
    for secret in (*secrets(), "NAMED THE FILE"):
        assert secret not in written
        assert secret not in health
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert made == []
    assert list(scratch.iterdir()) == []
    if database.exists():
        with sqlite3.connect(database) as kept:
            tables = [row[0] for row in kept.execute("SELECT name FROM sqlite_master")]
            assert "ktp" not in "".join(tables)


def test_a_card_is_not_in_redis_and_is_gone_after_its_time(
    redis_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Contract 5: in memory only whatever SESSIONS_URL says; 60 s after its end it is gone."""
    assert PRIVATE_TTL_S <= 55.0
    monkeypatch.setattr("app.wiring.PRIVATE_TTL_S", 0.2)
    with serving(sessions_url=redis_url, sessions_ttl_seconds=0.2) as server:
        answer = post(server, "/ktp-ocr/stream")
        assert secrets()[0] in answer
        until(lambda: server.get("/api/sessions/own/events").status_code == 404)
        import redis

        with redis.Redis.from_url(redis_url) as client:
            for key in client.scan_iter("*"):
                assert b"ktp" not in key
                kept = client.dump(key) or b""
                assert all(secret.encode() not in kept for secret in secrets()), key


def test_a_failure_in_the_middle_of_a_card_tells_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Contract 5: neither the answer nor the log quotes what was being read."""
    secret = secrets()[0]

    def broken(*given: object) -> None:
        raise RuntimeError(f"while reading {secret}")

    monkeypatch.setattr(OcrModels, "load", lambda self: None)
    monkeypatch.setattr(OcrModels, "read", broken)
    with serving(log_level="debug") as server:
        answer = post(server)
    assert "generation_failed" in answer
    assert secret not in answer + "".join(capfd.readouterr())


def test_nothing_of_a_photo_is_in_the_text_of_its_objects() -> None:
    """What is printed for a debugger holds no value either."""
    photo = reader.Photo.__dataclass_fields__["decoded"]
    assert photo.repr is False
