"""Structured logs: one line an event, for people (console) or machines (JSON), never a secret.

Lines of the standard library's loggers (uvicorn, transformers) go through the same processors.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"

_SECRET_KEYS = re.compile(
    r"(authorization|api[-_]?key|(?<!_)token$|hf_token|access_token|secret|password|cookie"
    r"|prompt$|^text$|content|article|body|messages|nik|nama|alamat)",
    re.IGNORECASE,
)
_SECRET_VALUES = re.compile(
    r"(?P<name>bearer\s+|basic\s+)[A-Za-z0-9._~+/=-]{6,}"
    r"|\b(?:hf|sk|ghp|gho)[_-][A-Za-z0-9_-]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.IGNORECASE,
)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _SECRET_VALUES.sub(lambda m: (m.group("name") or "") + REDACTED, value)
    if isinstance(value, dict):
        return {k: REDACTED if _is_secret(k) else _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def _is_secret(key: object) -> bool:
    return isinstance(key, str) and _SECRET_KEYS.search(key) is not None


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace secrets, prompts and article text, by key and by the look of a value."""
    return {
        key: REDACTED if _is_secret(key) and value is not None else _clean(value)
        for key, value in event.items()
    }


def configure_logging(level: str = "info", form: Literal["console", "json"] = "console") -> None:
    """Send all logs of the process to standard error, in one form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: list[Processor]
    if form == "json":
        last = [structlog.processors.format_exc_info, redact, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        last = [redact, plain]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # These print whole URLs and prompts at debug level, and nothing that we need.
    for name in ("httpx", "httpcore", "trafilatura", "sse_starlette", "htmldate", "pypdf"):
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))
