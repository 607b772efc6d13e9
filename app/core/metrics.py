"""What an operator counts, in Prometheus' names and units; `/metrics` shows it.

Labels are bounded: routes, codes and kinds that this server knows, never anything of a user.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_LAGS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_RATES = (0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256)

REGISTRY = CollectorRegistry()

REQUESTS = Counter(
    "precis_http_requests", "Requests by route and status.", ("method", "route", "code"),
    registry=REGISTRY,
)  # fmt: skip
FIRST_BYTE = Histogram(
    "precis_http_first_byte_seconds", "From a request to the first byte of its body.", ("route",),
    buckets=_SECONDS, registry=REGISTRY,
)  # fmt: skip
LAST_BYTE = Histogram(
    "precis_http_request_duration_seconds", "From a request to its last byte.", ("route",),
    buckets=_SECONDS, registry=REGISTRY,
)  # fmt: skip
SESSIONS = Counter(
    "precis_sessions", "Sessions that ended, by kind and ending: done, or the code of the error.",
    ("kind", "ending"), registry=REGISTRY,
)  # fmt: skip
ACTIVE_SESSIONS = Gauge(
    "precis_sessions_active", "Sessions that run or wait in this process.", registry=REGISTRY,
    multiprocess_mode="livesum",
)  # fmt: skip
GENERATIONS = Counter(
    "precis_generations", "Generations by engine and outcome: a finish reason, cancelled, or the "
    "code of the error.", ("engine", "outcome"), registry=REGISTRY,
)  # fmt: skip
FIRST_TOKEN = Histogram(
    "precis_generation_first_token_seconds", "From a request to an engine to its first token.",
    ("engine",), buckets=_SECONDS, registry=REGISTRY,
)  # fmt: skip
QUEUED = Histogram(
    "precis_generation_queue_seconds", "How long a generation waited in line.", ("engine",),
    buckets=_SECONDS, registry=REGISTRY,
)  # fmt: skip
TOKENS_PER_SECOND = Histogram(
    "precis_generation_tokens_per_second", "Tokens of one generation a second, from its first on.",
    ("engine",), buckets=_RATES, registry=REGISTRY,
)  # fmt: skip
TOKENS = Counter(
    "precis_tokens", "Tokens read (prompt) and written (completion).", ("engine", "kind"),
    registry=REGISTRY,
)  # fmt: skip
FETCHES = Counter(
    "precis_page_fetches", "Pages of strangers by outcome: ok, or the code of the error.",
    ("outcome",), registry=REGISTRY,
)  # fmt: skip
CACHE = Counter(
    "precis_cache_lookups", "Lookups in a cache.", ("cache", "result"), registry=REGISTRY,
)  # fmt: skip
WORKER_KILLS = Counter(
    "precis_worker_kills", "Tasks that used up their time or memory.", ("pool",), registry=REGISTRY,
)  # fmt: skip
LOOP_LAG = Histogram(
    "precis_event_loop_lag_seconds", "How late the event loop woke up.", buckets=_LAGS,
    registry=REGISTRY,
)  # fmt: skip


def exposition() -> bytes:
    """Return all figures in Prometheus' text format.

    With PROMETHEUS_MULTIPROC_DIR set, those of all processes that share the folder.
    """
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
    return generate_latest(shared)
