"""Several servers of one model: which of them serve now, and which gets the next request.

Knows addresses, health and load; not what the requests say.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx
import structlog

from app.core.errors import AppError, EngineUnavailable
from app.engine.remote.errors import (
    model_missing,
    read_bounded,
    read_refusal,
    unavailable,
    unreachable,
)

PROBE_TIMEOUT_S = 2.0
PROBE_INTERVAL_S = 5.0
FRESH_S = 2.0
# Longer than the watch's interval, so that a watched replica comes back by its health check only;
# without a watch it is tried again after this time.
DOWN_S = 10.0
MAX_LIST_BYTES = 1_000_000

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Replica:
    """One server. `outstanding`: requests that it is answering; `turn`: when it was last chosen."""

    base: SplitResult
    model: str | None = None
    outstanding: int = 0
    turn: int = 0
    problem: EngineUnavailable | None = None
    down_until_s: float = 0.0
    seen_s: float = float("-inf")

    @property
    def up(self) -> bool:
        """It is not known to be down."""
        return self.problem is None or time.monotonic() >= self.down_until_s

    @property
    def label(self) -> str:
        """What logs call it: its address without credentials and query."""
        return f"{self.base.netloc.rpartition('@')[2]}{self.base.path}"

    def url(self, path: str) -> str:
        """Return the address of one of its endpoints."""
        return self.base._replace(path=f"{self.base.path.rstrip('/')}/{path}").geturl()


def read_bases(urls: Sequence[str]) -> list[SplitResult]:
    """Return the addresses, each once.

    Raises:
        ValueError: there is none, or one is no http or https address.
    """
    bases = [urlsplit(url.strip()) for url in dict.fromkeys(urls)]
    for base in bases:
        if base.scheme not in ("http", "https") or not base.hostname:
            raise ValueError("a model server's address must look like http://host:8000/v1")
    if not bases:
        raise ValueError("a remote engine needs the address of at least one model server")
    return bases


class Replicas:
    """Chooses a replica for each request, and keeps track of which are up."""

    def __init__(
        self, bases: Sequence[SplitResult], client: httpx.AsyncClient, headers: Mapping[str, str]
    ) -> None:
        self._all = [Replica(base) for base in bases]
        self._client = client
        self._headers = dict(headers)
        self._probing = asyncio.Lock()
        self._turns = 0

    @property
    def model(self) -> str | None:
        """The model that some replica is known to serve."""
        return next((replica.model for replica in self._all if replica.model), None)

    def choose(self, tried: Collection[Replica] = ()) -> Replica | None:
        """Return the replica with the least to do, the one that waited longest among equals.

        None when no untried one is up; but when all are down and none was tried, one of those.
        """
        able = [replica for replica in self._all if replica.up and replica not in tried]
        if not able and not tried:
            able = self._all
        chosen = min(able, key=lambda replica: (replica.outstanding, replica.turn), default=None)
        if chosen is not None:
            self._turns += 1
            chosen.turn = self._turns
        return chosen

    @contextmanager
    def busy(self, replica: Replica) -> Iterator[None]:
        """Count a request for as long as the replica answers it."""
        replica.outstanding += 1
        try:
            yield
        finally:
            replica.outstanding -= 1

    def mark_up(self, replica: Replica) -> None:
        """Note that a replica answered."""
        if replica.problem is not None:
            log.info("replica_up", replica=replica.label)
        replica.problem = None
        replica.seen_s = time.monotonic()

    def mark_down(self, replica: Replica, problem: EngineUnavailable) -> None:
        """Give a replica no requests until it answers a health check, or for a while."""
        if replica.problem is None:
            log.warning("replica_down", replica=replica.label, code=problem.code)
        # What was raised holds on to its traceback, and so to a prompt.
        replica.problem = problem.copy()
        replica.down_until_s = time.monotonic() + DOWN_S

    def known_problem(self) -> EngineUnavailable | None:
        """Return why no replica can serve as far as is known; sends nothing."""
        if any(replica.up for replica in self._all):
            return None
        return (self._all[0].problem or unavailable()).copy()

    async def problem(self) -> EngineUnavailable | None:
        """Return why no replica can serve, probing them unless that was known a moment ago."""
        async with self._probing:
            now_s = time.monotonic()
            if any(item.up and now_s - item.seen_s < FRESH_S for item in self._all):
                return None
            if not all(item.problem and _fresh_down(item, now_s) for item in self._all):
                await self._probe_until_one_answers(now_s)
        return self.known_problem()

    async def watch(self) -> None:
        """Check the health of all replicas, for ever."""
        while True:
            try:
                async with asyncio.TaskGroup() as group:
                    for replica in self._all:
                        group.create_task(self.probe(replica))
            except Exception as failure:
                # What runs beside the requests may not take the server down with it.
                log.error("replica_check_failed", error=type(failure).__name__)
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def model_of(self, replica: Replica) -> str:
        """Return the first model that a replica lists, asking it if that is not known.

        Raises:
            EngineUnavailable: it does not answer, or lists none.
        """
        if replica.model is None:
            await self.probe(replica)
        if replica.model is None:
            raise (replica.problem or model_missing()).copy()
        return replica.model

    async def probe(self, replica: Replica) -> None:
        """Request a replica's list of models, and note whether it is up."""
        try:
            async with (
                asyncio.timeout(PROBE_TIMEOUT_S),
                self._client.stream(
                    "GET", replica.url("models"), headers=self._headers
                ) as response,
            ):
                # A server without such a list is up all the same.
                if response.status_code not in (200, 404, 405, 429):
                    self._refused(replica, await read_refusal(response))
                    return
                body = await read_bounded(response, MAX_LIST_BYTES)
        except (httpx.RequestError, TimeoutError) as exc:
            self.mark_down(replica, unreachable(exc))
            return
        if response.status_code == 200:
            replica.model = _first_model(body) or replica.model
        self.mark_up(replica)

    def _refused(self, replica: Replica, error: AppError) -> None:
        self.mark_down(replica, error if isinstance(error, EngineUnavailable) else unavailable())

    async def _probe_until_one_answers(self, began_s: float) -> None:
        async with asyncio.TaskGroup() as group:
            probes = [group.create_task(self.probe(replica)) for replica in self._all]
            for probe in asyncio.as_completed(probes):
                await probe
                if any(item.problem is None and item.seen_s >= began_s for item in self._all):
                    break
            for left in probes:
                left.cancel()


def _fresh_down(replica: Replica, now_s: float) -> bool:
    return replica.down_until_s - DOWN_S > now_s - FRESH_S


def _first_model(body: bytes) -> str | None:
    """Return the first id of a list of models, None when there is none."""
    try:
        listed = json.loads(body)["data"]
        found = listed[0]["id"]
    except (ValueError, TypeError, LookupError):
        return None
    return found if isinstance(found, str) and found else None
