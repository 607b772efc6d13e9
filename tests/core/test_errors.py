"""One tree of errors: what is raised, written to an event and read from it is the same error."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from app.core import errors
from app.core.errors import AppError, EngineUnavailable, LogUnavailable, Overloaded, Unsupported

APP = Path(__file__).parents[2] / "app"
TREE = AppError.__subclasses__()


@pytest.mark.parametrize("kind", TREE)
def test_an_error_written_and_read_is_the_same(kind: type[AppError]) -> None:
    error = kind("the message", retry_after_s=7, param="messages")
    read = AppError.from_dict(error.to_dict())
    assert type(read) is kind
    assert read.to_dict() == error.to_dict()


@pytest.mark.parametrize("kind", TREE)
def test_an_event_without_a_status_gets_that_of_its_code(kind: type[AppError]) -> None:
    """Item 5: a status is never guessed from what a wire form calls the error."""
    for code in (kind.code, *kind.codes):
        read = AppError.from_dict({"message": "m", "code": code, "type": "server_error"})
        assert (type(read), read.status, read.code) == (kind, kind.status, code)
        assert read.retry_after_s == kind.retry_after_s


def test_no_retry_after_is_made_up() -> None:
    """C19: a missing model says when to come back; whoever is full says it, or it is not known."""
    assert Overloaded("full").retry_after_s is None
    assert AppError.from_dict(Overloaded("full").to_dict()).retry_after_s is None
    assert EngineUnavailable("none").retry_after_s == 30
    assert LogUnavailable("away").retry_after_s == 5


def test_a_code_that_nobody_knows_is_a_defect_of_the_server() -> None:
    assert AppError.from_dict({"message": "m", "code": "new"}).status == 500


def test_a_copy_has_no_traceback_and_no_cause() -> None:
    try:
        try:
            raise ValueError("private")
        except ValueError as cause:
            raise Unsupported("no", code="no_grammar", param="tools") from cause
    except Unsupported as raised:
        copy = raised.copy("not here", param="response_format")
    assert (copy.__traceback__, copy.__cause__, copy.__context__) == (None, None, None)
    assert (copy.message, copy.code, copy.status) == ("not here", "no_grammar", 400)
    assert copy.param == "response_format"


def test_codes_belong_to_one_class_each() -> None:
    codes = [code for kind in TREE for code in {kind.code, *kind.codes}]
    assert sorted(codes) == sorted(set(codes))


def test_every_code_that_can_end_a_session_is_known_to_its_class() -> None:
    """What engines and services raise ends sessions, and other processes know only its code."""
    raised: set[tuple[str, str]] = set()
    for folder in ("engine", "services", "stream"):
        for path in (APP / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                    continue
                for given in node.keywords:
                    if given.arg == "code" and isinstance(given.value, ast.Constant):
                        raised.add((node.func.id, str(given.value.value)))
    # What a request holds is checked before its session begins.
    raised = {(name, code) for name, code in raised if name != "InvalidInput"}
    assert ("Unsupported", "context_length_exceeded") in raised
    for name, code in raised:
        kind = getattr(errors, name)
        assert code in (kind.code, *kind.codes), f"{name}.codes lacks {code}"
