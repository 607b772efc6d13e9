"""The scraper as its callers see it: one flight per URL, the page cache, and clean endings.

S0.18: `scrape_url` returns a dict with "content". S0.19: a failure is `ScrapeFailed` with a reason.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.core.errors import ScrapeFailed
from app.services.article_scraper import ArticleScraper, article_scraper_service
from tests.services.origin import (
    PARAGRAPHS,
    Exchange,
    Origin,
    article_html,
    redirect,
    response,
    serving,
)

LIMIT_S = 10.0
KEYS = {
    "content",
    "title",
    "author",
    "date",
    "site_name",
    "url",
    "method",
    "partial",
    "section",
    "tags",
    "language",
    "word_count",
    "sentence_count",
    "latency_ms",
}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Gate:
    """A script that answers when it is opened."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.open = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        await self.open.wait()
        await exchange.send(self._answer)


@asynccontextmanager
async def scraping(
    *, clock: Clock | None = None, **options: Any
) -> AsyncIterator[tuple[ArticleScraper, Origin]]:
    scraper = ArticleScraper(clock=clock) if clock else ArticleScraper()
    async with asyncio.timeout(LIMIT_S), serving() as origin:
        origin.scripts["/a"] = response(article_html())
        scraper.configure(allow_hosts=frozenset((origin.authority,)), **options)
        try:
            yield scraper, origin
        finally:
            await scraper.aclose()


async def code_of(scraper: ArticleScraper, url: str, **options: Any) -> str:
    with pytest.raises(ScrapeFailed) as failure:
        await scraper.scrape_url(url, **options)
    return failure.value.code


async def test_a_page_becomes_a_dict_with_every_key() -> None:
    async with scraping() as (scraper, origin):
        origin.scripts["/old"] = redirect("/a")
        page = await scraper.scrape_url(origin.url("/old"))
        assert set(page) == KEYS
        assert page["content"].startswith(PARAGRAPHS[0].strip())
        assert (page["url"], page["method"]) == (origin.url("/a"), "trafilatura")
        assert (page["author"], page["date"], page["tags"]) == (None, None, [])
        assert 0 < page["latency_ms"] < LIMIT_S * 1000


async def test_the_module_level_service_refuses_the_inside_by_default() -> None:
    async with asyncio.timeout(LIMIT_S), serving() as origin:
        assert await code_of(article_scraper_service, origin.url()) == "blocked_url"
        assert origin.connections == 0
        await article_scraper_service.aclose()


async def test_a_second_call_is_answered_from_the_cache() -> None:
    async with scraping() as (scraper, origin):
        first = await scraper.scrape_url(origin.url("/a"))
        first["tags"].append("changed by its caller")
        again = await scraper.scrape_url(origin.url("/a#comments"))
        assert origin.hits("/a") == 1
        assert again["content"] == first["content"]
        assert again["tags"] == []


async def test_the_cache_forgets_after_its_time() -> None:
    """Pitfalls, Configuration: the cache TTL was a module constant."""
    clock = Clock()
    async with scraping(clock=clock, cache_ttl_s=60.0) as (scraper, origin):
        for now_s, hits in ((0.0, 1), (59.0, 1), (61.0, 2)):
            clock.now_s = now_s
            await scraper.scrape_url(origin.url("/a"))
            assert origin.hits("/a") == hits


async def test_the_cache_holds_as_many_pages_as_it_may() -> None:
    async with scraping(cache_size=1) as (scraper, origin):
        origin.scripts["/b"] = origin.scripts["/a"]
        for path in ("/a", "/b", "/a"):
            await scraper.scrape_url(origin.url(path))
        assert (origin.hits("/a"), origin.hits("/b")) == (2, 1)


@pytest.mark.parametrize("options", [{"cache_size": 0}, {"cache_ttl_s": 0.0}])
async def test_a_cache_of_nothing_keeps_nothing(options: dict[str, Any]) -> None:
    async with scraping(**options) as (scraper, origin):
        await scraper.scrape_url(origin.url("/a"))
        await scraper.scrape_url(origin.url("/a"))
        assert origin.hits("/a") == 2


async def test_without_the_cache_nothing_is_read_or_written() -> None:
    async with scraping() as (scraper, origin):
        await scraper.scrape_url(origin.url("/a"), use_cache=False)
        await scraper.scrape_url(origin.url("/a"))
        await scraper.scrape_url(origin.url("/a"), use_cache=False)
        await scraper.scrape_url(origin.url("/a"))
        assert origin.hits("/a") == 3


async def test_a_failure_is_not_kept() -> None:
    async with scraping() as (scraper, origin):
        origin.scripts["/late"] = response(status="503 Busy")
        assert await code_of(scraper, origin.url("/late")) == "http_error"
        origin.scripts["/late"] = response(article_html())
        assert (await scraper.scrape_url(origin.url("/late")))["title"] == "Ferry"


async def test_a_page_with_hardly_any_text_is_no_article() -> None:
    async with scraping() as (scraper, origin):
        origin.scripts["/"] = response(article_html("Too short."))
        assert await code_of(scraper, origin.url()) == "no_article"


async def test_callers_of_the_same_page_share_one_flight() -> None:
    async with scraping() as (scraper, origin):
        gate = Gate(response(article_html()))
        origin.scripts["/a"] = gate
        async with asyncio.TaskGroup() as callers:
            calls = [callers.create_task(scraper.scrape_url(origin.url("/a"))) for _ in range(20)]
            await origin.asked.wait()
            gate.open.set()
        assert origin.hits("/a") == 1
        assert len({call.result()["content"] for call in calls}) == 1


async def test_a_call_without_the_cache_flies_alone() -> None:
    async with scraping() as (scraper, origin):
        async with asyncio.TaskGroup() as callers:
            for use_cache in (True, False, False):
                callers.create_task(scraper.scrape_url(origin.url("/a"), use_cache=use_cache))
        assert origin.hits("/a") == 3


async def test_a_caller_that_leaves_does_not_take_the_others_along() -> None:
    async with scraping() as (scraper, origin):
        gate = Gate(response(article_html()))
        origin.scripts["/a"] = gate
        leaver = asyncio.create_task(scraper.scrape_url(origin.url("/a")))
        stayer = asyncio.create_task(scraper.scrape_url(origin.url("/a")))
        await origin.asked.wait()
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        gate.open.set()
        assert (await stayer)["title"] == "Ferry"
        assert origin.hits("/a") == 1


async def test_a_flight_that_everyone_left_is_cancelled_and_the_next_one_is_new() -> None:
    async with scraping() as (scraper, origin):
        origin.scripts["/a"] = Gate(b"")
        leaver = asyncio.create_task(scraper.scrape_url(origin.url("/a")))
        await origin.asked.wait()
        leaver.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaver
        origin.scripts["/a"] = response(article_html())
        assert (await scraper.scrape_url(origin.url("/a")))["title"] == "Ferry"
        assert origin.hits("/a") == 2


async def test_a_shared_failure_reaches_every_caller() -> None:
    async with scraping() as (scraper, origin):
        gate = Gate(response(status="404 Not Found"))
        origin.scripts["/a"] = gate
        calls = [asyncio.create_task(scraper.scrape_url(origin.url("/a"))) for _ in range(3)]
        await origin.asked.wait()
        gate.open.set()
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [getattr(failure, "code", None) for failure in failures] == ["http_error"] * 3


async def test_closing_ends_what_runs_and_the_scraper_can_start_again() -> None:
    async with scraping() as (scraper, origin):
        origin.scripts["/slow"] = Gate(b"")
        call = asyncio.create_task(scraper.scrape_url(origin.url("/slow")))
        await origin.asked.wait()
        await scraper.aclose()
        with pytest.raises(ScrapeFailed, match="stopping"):
            await call
        assert (await scraper.scrape_url(origin.url("/a")))["title"] == "Ferry"


def test_one_scraper_serves_several_event_loops_in_turn() -> None:
    scraper = ArticleScraper()

    async def once(*, abandon: bool) -> None:
        async with asyncio.timeout(LIMIT_S), serving() as origin:
            origin.scripts["/a"] = response(article_html())
            origin.scripts["/slow"] = Gate(b"")
            scraper.configure(allow_hosts=frozenset((origin.authority,)))
            assert (await scraper.scrape_url(origin.url("/a")))["title"] == "Ferry"
            if abandon:
                call = asyncio.create_task(scraper.scrape_url(origin.url("/slow")))
                await origin.asked.wait()
                call.cancel()

    for _ in range(3):
        asyncio.run(once(abandon=True))


async def test_the_event_loop_stays_free_while_a_page_is_read() -> None:
    """Pitfalls, Fetching: extraction ran on the event loop."""
    async with scraping() as (scraper, origin):
        body = article_html(*(f"{i}. " + PARAGRAPHS[i % 3] for i in range(1_000)))
        origin.scripts["/big"] = response(gzip.compress(body.encode()), "Content-Encoding: gzip")
        loop, ticks, late_s = asyncio.get_running_loop(), 0, 0.0
        call = asyncio.create_task(scraper.scrape_url(origin.url("/big")))
        while not call.done():
            before_s = loop.time()
            await asyncio.wait((call,), timeout=0.01)
            late_s = max(late_s, loop.time() - before_s)
            ticks += 1
        assert call.result()["word_count"] > 7_500
        assert ticks > 5
        assert late_s < 1.0
