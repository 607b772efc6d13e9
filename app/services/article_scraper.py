"""A URL to an article: the page cache and the one flight per URL around fetching and extraction.

Knows nothing of settings, HTTP responses or summaries; `main` hands it plain values.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpcore
import structlog
from cachetools import TTLCache

from app.core.errors import ScrapeFailed
from app.core.metrics import CACHE, FETCHES
from app.core.worker import WorkerKilled, WorkerPool
from app.services.extraction.article import Article, is_pdf, read_article
from app.services.fetching.addresses import read_url
from app.services.fetching.errors import too_costly
from app.services.fetching.fetch import USER_AGENT, FetchPolicy, Resolve, fetch, resolve_name

# The slowest page of a public benchmark takes under a second; PDF files wait for themselves only.
PAGES = WorkerPool("pages", processes=2, cpu_s=10.0, memory_bytes=1_500_000_000)
PDFS = WorkerPool("pdfs", processes=1, cpu_s=20.0, memory_bytes=1_500_000_000)
_TRACKING = re.compile(
    r"(?:utm_\w+|fbclid|gclid|dclid|gbraid|wbraid|msclkid|yclid|twclid|igshid|igsh|mc_[ce]id|_hs\w+|"
    r"mkt_tok|oly_\w+_id|vero_id|ref_src|ref_url|cmpid|ocid|smid|spm|s_cid|wt_mc|__twitter_impression)"
    r"(?:=|$)",
    re.IGNORECASE,
)

log = structlog.get_logger()


@dataclasses.dataclass(slots=True)
class _Flight:
    task: asyncio.Task[Article]
    waiters: int = 0


class ArticleScraper:
    """Fetches and reads pages. Holds no connections, only finished articles and running tasks.

    `resolve`, `backend` and `ssl_context` are the network's seams.
    """

    def __init__(
        self,
        *,
        resolve: Resolve = resolve_name,
        backend: httpcore.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._backend = backend
        self._ssl_context = ssl_context
        self._clock = clock
        self._flights: dict[str, _Flight] = {}
        self.configure()

    def configure(
        self,
        *,
        allow_hosts: frozenset[str] = frozenset(),
        timeout_s: float = 10.0,
        max_bytes: int = 5_000_000,
        max_redirects: int = 5,
        ports: frozenset[int] = frozenset((80, 443, 8080, 8443)),
        cache_ttl_s: float = 600.0,
        cache_size: int = 256,
        min_chars: int = 100,
        user_agent: str = USER_AGENT,
    ) -> None:
        """Set the limits and empty the cache, whose pages were admitted under the old ones.

        `allow_hosts`: exact host:port entries. `cache_ttl_s` or `cache_size` 0: no cache.
        """
        self._policy = FetchPolicy(
            allow_hosts=frozenset(entry.strip().lower() for entry in allow_hosts),
            timeout_s=timeout_s,
            max_bytes=max_bytes,
            max_redirects=max_redirects,
            ports=ports,
            user_agent=user_agent,
        )
        self._min_chars = min_chars
        self._cache: TTLCache[str, Article] = TTLCache(
            maxsize=max(0, cache_size), ttl=max(0.0, cache_ttl_s), timer=self._clock
        )

    async def scrape_url(self, url: str, *, use_cache: bool = True) -> dict[str, Any]:
        """Return the article at `url`: `Article`'s fields and `latency_ms`, None where unknown.

        `use_cache` false neither reads nor writes the cache, and fetches for itself.

        Raises:
            ScrapeFailed: the page cannot be had or holds no article; `code` says which.
        """
        started_s = time.perf_counter()
        key = _cache_key(read_url(url).url)
        if not use_cache:
            article = await self._scrape(url)
        else:
            cached = self._cache.get(key)
            CACHE.labels("page", "miss" if cached is None else "hit").inc()
            article = cached if cached is not None else await self._fly(key, url)
        result = dataclasses.asdict(article)
        result["tags"] = list(article.tags)
        result["latency_ms"] = round((time.perf_counter() - started_s) * 1000, 2)
        return result

    async def aclose(self) -> None:
        """Cancel what runs; the scraper may be used again afterwards."""
        loop = asyncio.get_running_loop()
        tasks = [flight.task for flight in self._flights.values()]
        self._flights.clear()
        tasks = [task for task in tasks if task.get_loop() is loop]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cache.clear()

    async def _fly(self, key: str, url: str) -> Article:
        """Join the flight of that URL, or start it; the last one to leave cancels it."""
        flight = self._flights.get(key)
        # A flight of an earlier event loop that was torn down will never land.
        if flight is None or flight.task.get_loop() is not asyncio.get_running_loop():
            # Not a bare task: held here, awaited by its callers, cancelled by the last of them or
            # by aclose(). It is a task at all because no one caller may own the shared work.
            flight = _Flight(asyncio.create_task(self._scrape_and_keep(key, url)))
            self._flights[key] = flight
            flight.task.add_done_callback(lambda task: self._landed(key, task))
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if flight.task.cancelled() and caller is not None and not caller.cancelling():
                raise ScrapeFailed(
                    "The server is stopping; try again in a moment.", code="connect_failed"
                ) from None
            raise
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.task.done():
                self._forget(key, flight.task)
                flight.task.cancel()

    def _landed(self, key: str, task: asyncio.Task[Article]) -> None:
        self._forget(key, task)
        # Marks the failure as seen: its callers may all have been cancelled a moment before.
        if not task.cancelled():
            task.exception()

    def _forget(self, key: str, task: asyncio.Task[Article]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]

    async def _scrape_and_keep(self, key: str, url: str) -> Article:
        cache = self._cache
        article = await self._scrape(url)
        if cache.maxsize > 0:
            cache[key] = article
        return article

    async def _scrape(self, url: str) -> Article:
        try:
            article = await self._fetch_and_read(url)
        except ScrapeFailed as failed:
            FETCHES.labels(failed.code).inc()
            raise
        FETCHES.labels("ok").inc()
        return article

    async def _fetch_and_read(self, url: str) -> Article:
        started_s = time.perf_counter()
        page = await fetch(
            url,
            self._policy,
            resolve=self._resolve,
            backend=self._backend,
            ssl_context=self._ssl_context,
        )
        workers = PDFS if is_pdf(page) else PAGES
        try:
            article = await workers.run(read_article, page, min_chars=self._min_chars)
        except WorkerKilled as killed:
            raise too_costly() from killed
        log.info(
            "page_scraped",
            host=urlsplit(page.url).hostname,
            method=article.method,
            page_bytes=len(page.body),
            chars=len(article.content),
            took_ms=round((time.perf_counter() - started_s) * 1000, 1),
        )
        return article


def _cache_key(url: str) -> str:
    """Return an address without what only tells who sent the reader there."""
    base, mark, query = url.partition("?")
    kept = [part for part in query.split("&") if not _TRACKING.match(part)]
    return base + (mark + "&".join(kept) if kept else "")


article_scraper_service = ArticleScraper()
