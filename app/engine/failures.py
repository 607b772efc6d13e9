"""What becomes of an exception in a model's thread: an error for people, a place for the log."""

from __future__ import annotations

from pathlib import Path

from app.core.errors import AppError, GenerationFailed


def as_app_error(failure: BaseException) -> AppError:
    """Return `failure` if clients may see it, else a neutral error that it is the cause of."""
    if isinstance(failure, AppError):
        return failure
    error = GenerationFailed("The model failed while it was writing; the server's log says more.")
    error.__cause__ = failure
    return error


def raised_at(failure: BaseException) -> str:
    """Return the file and line that raised. Not the message: it may hold a prompt's text."""
    trace = failure.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
