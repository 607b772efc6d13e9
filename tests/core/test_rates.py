"""Rates that processes share: a real redis-server, and what happens while it is away."""

from __future__ import annotations

from pathlib import Path

import structlog.testing

from app.core.errors import Overloaded
from app.core.rates import Rates
from tests.engines import ARTICLE, ScriptedEngine
from tests.redis_server import redis_server, redis_url, running_redis
from tests.servers import STREAM, serving

__all__ = ["redis_server", "redis_url"]

BODY = {"text": ARTICLE}


async def refused(limit: Rates, caller: str) -> bool:
    try:
        await limit.count(caller)
    except Overloaded:
        return True
    return False


async def test_processes_on_one_redis_count_together(redis_url: str) -> None:
    one, other = Rates("3/minute", redis_url), Rates("3/minute", redis_url)
    turns = [one, other, one, other, one]
    assert [await refused(limit, "she") for limit in turns] == [False, False, False, True, True]
    assert not await refused(other, "he")


def test_two_servers_on_one_redis_have_one_rate(redis_url: str) -> None:
    """Contract 8: RATE_LIMIT is per key or address, whatever process answers."""
    shared = {"sessions_url": redis_url, "rate_limit": "2/minute"}
    with serving(ScriptedEngine(), **shared) as one, serving(ScriptedEngine(), **shared) as other:
        answers = [server.post(STREAM, BODY) for server in (one, other, one, other)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_without_its_redis_a_process_counts_for_itself_and_says_so_once() -> None:
    with running_redis() as redis, structlog.testing.capture_logs() as logs:
        limit = Rates("2/minute", redis.url, retry_s=0.0)
        assert not await refused(limit, "she")
        redis.stop()
        assert [await refused(limit, "she") for _ in range(3)] == [False, False, True]
        redis.start()
        assert [await refused(limit, "she") for _ in range(2)] == [False, True]
    assert [entry["event"] for entry in logs] == ["rates_not_shared"]


async def test_a_redis_that_is_away_is_not_asked_by_every_request() -> None:
    with running_redis() as redis:
        limit = Rates("9/minute", redis.url, retry_s=600.0)
        redis.stop()
        assert not await refused(limit, "she")
        redis.start()
        assert not await refused(limit, "she")
        assert redis.kept() == []


async def test_a_log_in_a_file_or_in_memory_shares_no_rates(tmp_path: Path) -> None:
    for url in (None, "memory:", f"sqlite:{tmp_path / 'log.db'}"):
        one, other = Rates("1/minute", url), Rates("1/minute", url)
        assert [await refused(limit, "she") for limit in (one, other, one)] == [False, False, True]
