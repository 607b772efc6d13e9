"""Every error that a client can see, and the one place where each gets its code and status.

    AppError
    ├── InvalidInput        422  the request is legal HTTP, but what it asks for is not allowed
    ├── Unauthorized        401  a key is needed and none, or a wrong one, came
    ├── UnknownSession      404  no session of that id belongs to the caller
    ├── SessionBusy         409  that session id is running something else right now
    ├── EventsGone          410  the events after that index are no longer kept
    ├── BodyTooLarge        413  the request body is over the limit
    ├── Overloaded          429  as many requests run and wait as this server allows
    ├── ScrapeFailed        400  the page could not be fetched, or holds no article
    ├── Unsupported         400  the engine cannot honour a field of the request
    ├── EngineUnavailable   503  the model is missing, still loading, or does not fit in memory
    ├── GenerationFailed    500  the engine failed after it had accepted the request
    ├── TimedOut            504  the generation took longer than it may
    ├── Cancelled           499  somebody cancelled the session
    ├── Interrupted         503  the server stopped while the session was running
    ├── LogUnavailable      503  the place where sessions are kept cannot be read or written
    ├── Forbidden           403  who asks is known, and may not do this
    ├── NotFound            404  the marketplace has nothing of that id
    ├── Conflict            409  what is there now does not allow it
    ├── DatabaseUnavailable 503  the marketplace's database cannot be opened, read or written
    └── InternalError       500  a defect of this server; its log has the traceback

`code` is the contract and what tests assert. `message` is for people: it names the fix and never
holds a traceback, a path or a secret. The exception handler turns an error into a response before
the first byte; after it, the session's supervisor turns it into the terminal event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class AppError(Exception):
    """Base of all errors that a client may see.

    `codes`: those that a class has beside its own when it ends a session; an event has a code and
    no status, so that the code must say which error it was.
    """

    code = "internal_error"
    status = 500
    retry_after_s: int | None = None
    codes: frozenset[str] = frozenset()

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.status = status or self.status
        self.retry_after_s = retry_after_s or self.retry_after_s
        # The field of the request that is at fault, where one is.
        self.param = param

    def copy(self, message: str | None = None, *, param: str | None = None) -> Self:
        """Return the same error without its traceback, which may hold on to a prompt."""
        return type(self)(
            message or self.message,
            code=self.code,
            status=self.status,
            retry_after_s=self.retry_after_s,
            param=param or self.param,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all that `from_dict` needs to make an equal error."""
        return {
            "message": self.message,
            "code": self.code,
            "status": self.status,
            "retry_after_s": self.retry_after_s,
            "param": self.param,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> AppError:
        """Return the error of a `message` and a `code`; what else is missing is its class's own."""
        code = data["code"]
        kind = next((k for k in AppError.__subclasses__() if code in (k.code, *k.codes)), AppError)
        return kind(
            data["message"],
            code=code,
            status=data.get("status"),
            retry_after_s=data.get("retry_after_s"),
            param=data.get("param"),
        )


class InvalidInput(AppError):
    """The request is well-formed HTTP, but what it asks for is not allowed."""

    code = "invalid_input"
    status = 422
    codes = frozenset(("not_a_ktp",))


class Unauthorized(AppError):
    """A key is needed and none, or a wrong one, came."""

    code = "unauthorized"
    status = 401
    codes = frozenset(
        ("invalid_credentials", "invalid_refresh_token", "invalid_token", "token_expired")
    )


class UnknownSession(AppError):
    """No session of that id belongs to the caller."""

    code = "unknown_session"
    status = 404


class SessionBusy(AppError):
    """That session id is running something else right now."""

    code = "session_busy"
    status = 409


class EventsGone(AppError):
    """The events after that index are no longer kept."""

    code = "events_gone"
    status = 410


class BodyTooLarge(AppError):
    """The request body is over the limit."""

    code = "body_too_large"
    status = 413


class Overloaded(AppError):
    """As many requests run and wait as this server allows."""

    code = "overloaded"
    status = 429


class ScrapeFailed(AppError):
    """The page could not be fetched, or holds no article; `code` says which."""

    code = "scrape_failed"
    status = 400
    codes = frozenset(
        (
            "blocked_url",
            "dns_failed",
            "connect_failed",
            "fetch_timeout",
            "http_error",
            "too_large",
            "too_many_redirects",
            "unsupported_type",
            "bad_encoding",
            "no_article",
            "page_too_complex",
        )
    )


class Unsupported(AppError):
    """The engine cannot honour a field of the request."""

    code = "unsupported"
    status = 400
    codes = frozenset(
        (
            "budget_too_small",
            "context_length_exceeded",
            "image_not_placed",
            "invalid_image",
            "no_chat_template",
            "no_grammar",
            "schema_too_long",
            "unsupported_messages",
            "unsupported_schema",
            "upstream_rejected",
        )
    )


class EngineUnavailable(AppError):
    """The model is missing, still loading, or does not fit in memory."""

    code = "model_unavailable"
    status = 503
    # A 503 always says when to come back (C19).
    retry_after_s = 30
    codes = frozenset(
        (
            "device_unavailable",
            "model_downloading",
            "model_load_failed",
            "not_enough_memory",
            "ocr_unavailable",
            "upstream_model_missing",
            "upstream_unauthorized",
            "upstream_unavailable",
            "weights_unsupported",
        )
    )


class GenerationFailed(AppError):
    """The engine failed after it had accepted the request."""

    code = "generation_failed"
    status = 500
    codes = frozenset(("invalid_output", "upstream_failed", "upstream_ignored_tools"))


class TimedOut(AppError):
    """The generation took longer than it may."""

    code = "timeout"
    status = 504


class Cancelled(AppError):
    """Somebody cancelled the session."""

    code = "cancelled"
    status = 499


class Interrupted(AppError):
    """The server stopped while the session was running."""

    code = "interrupted"
    status = 503


class LogUnavailable(AppError):
    """The place where sessions are kept (a disk, a Redis) cannot be read or written."""

    code = "log_unavailable"
    status = 503
    retry_after_s = 5


class Forbidden(AppError):
    """Who asks is known, and may not do this."""

    code = "forbidden"
    status = 403
    codes = frozenset(("ai_access_disabled", "not_a_supplier", "not_yours"))


class NotFound(AppError):
    """The marketplace has nothing of that id, or no more."""

    code = "not_found"
    status = 404


class Conflict(AppError):
    """What is there now does not allow it; `current` shows it where that helps."""

    code = "conflict"
    status = 409
    codes = frozenset(("already_a_supplier", "duplicate_sku", "email_taken", "stale_version"))

    def __init__(
        self, message: str, *, current: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(message, **options)
        self.current = current


class DatabaseUnavailable(AppError):
    """The marketplace's database cannot be opened, read or written."""

    code = "database_unavailable"
    status = 503
    retry_after_s = 5
    codes = frozenset(("database_not_migrated",))


class InternalError(AppError):
    """A defect of this server; its log has the traceback."""
