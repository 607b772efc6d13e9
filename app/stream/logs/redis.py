"""The log in Redis: shared by processes of any host, which resume, join and stop each other's runs.

It knows one Redis, not a cluster. A process is alive as long as its key there is, which its
heartbeat renews.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoScriptError, OutOfMemoryError, RedisError

from app.core.errors import AppError, EventsGone, LogUnavailable
from app.stream.event import Event
from app.stream.log import Header, Page, not_kept
from app.stream.logs.mirror import Mirror, Mirrors
from app.stream.logs.redis_scripts import (
    APPEND,
    ATTEND,
    ATTENDED,
    FIND,
    HEARTBEAT,
    OPEN,
    PREFIX,
    PROLONG,
    READ,
    STOP,
    SWEEP,
    Script,
)
from app.stream.logs.write_through import Append, WriteThroughLog, Written, unpack

CONNECT_TIMEOUT_S = 2.0
COMMAND_TIMEOUT_S = 5.0
# A follower looks at least so often whether its run is still there.
LISTEN_S = 1.0
INBOX_S = 5.0
# A dead process is noticed after this and a beat; a busy one must not be late for so long.
LIFE_S = 8.0
# All processes lose their keys when Redis is away; each gets so long to show itself again.
GRACE_S = 3.0
KEPT_EVENTS = 65_536
# When no process is left to sweep or to end a run, Redis drops it after so long.
EXPIRE_S = 24 * 3600
PROLONG_EVERY_S = 3600.0
SWEPT_AT_ONCE = 64
CONNECTIONS = 64
LISTENERS = 512


class RedisLog(WriteThroughLog):
    """An `EventLog` in the Redis at `url`.

    Commands are not tried twice: whether one that got no answer was done is not known. Who waits
    does so on connections of its own, so that nobody waits for a connection to write with.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._redis = _client(url, CONNECTIONS, COMMAND_TIMEOUT_S)
        self._waiting_redis = _client(url, LISTENERS, INBOX_S + COMMAND_TIMEOUT_S)
        self._process = secrets.token_hex(12)
        self._mirrors = Mirrors()
        self._expire_s = EXPIRE_S
        self._beaten_at_s = float("-inf")
        self._judges_from_s = 0.0
        self._prolonged_at_s = float("-inf")

    async def find(self, owner: str, session_id: str) -> Header | None:
        found = await self._run(FIND, owner, session_id)
        return _header(found) if found else None

    async def request_stop(self, owner: str, session_id: str) -> None:
        await self._run(STOP, owner, session_id)

    async def stop_requests(self, timeout_s: float) -> list[str]:
        inbox = f"{PREFIX}inbox:{self._process}"
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            with _translated():
                # Zero would be for ever.
                first = await self._waiting_redis.blpop([inbox], max(min(left_s, INBOX_S), 0.01))
                if first is not None:
                    more = await self._redis.lpop(inbox, 1000) or []
                    return [run.decode() for run in (first[1], *more)]
        return []

    async def renew_lease(self, run: str, for_s: float) -> None:
        await self._run(ATTEND, run, round(for_s * 1000))

    async def lease_left_s(self, run: str) -> float:
        left_ms = await self._run(ATTENDED, run)
        return float("-inf") if left_ms is None else left_ms / 1000

    def forget(self, run: str) -> None:
        super().forget(run)
        self._mirrors.drop(run)

    async def aclose(self) -> None:
        await super().aclose()
        with suppress(RedisError, OSError):
            # What still runs has nobody from now on, and others need not wait to know it.
            await self._redis.delete(f"{PREFIX}process:{self._process}")
        for client in (self._redis, self._waiting_redis):
            with suppress(RedisError, OSError):
                await client.aclose(close_connection_pool=True)

    async def _claim(self, header: Header, shared: bool) -> Header:
        held = await self._run(
            OPEN,
            *(self._process, round(LIFE_S * 1000), self._expire_s, int(shared)),
            *(header.run, header.session_id, header.kind, header.owner, header.fingerprint),
        )
        return _header(held) if held else header

    async def _write(self, batch: Sequence[Append]) -> Sequence[Written | AppError]:
        with _translated():
            answers = await self._append_all(batch)
            late = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if late:
                await self._redis.script_load(APPEND.text)
                again = await self._append_all([batch[i] for i in late])
                for i, answer in zip(late, again, strict=True):
                    answers[i] = answer
        return [_written(answer) for answer in answers]

    async def _append_all(self, batch: Sequence[Append]) -> list[Any]:
        """Send a batch in one go; return what Redis said to each, errors included."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in batch:
                drafts = [part for d in job.packed for part in (d.kind, d.data, int(d.terminal))]
                pipe.evalsha(APPEND.sha, 0, job.run, self._expire_s, KEPT_EVENTS, *drafts)
            return await pipe.execute(raise_on_error=False)

    async def _fetch(self, run: str, after: int, limit: int) -> Page:
        mirror = self._mirrors.find(run)
        page = mirror.page(after, limit) if mirror is not None else None
        if page is not None:
            return page
        found = await self._run(READ, run, after, limit)
        if found is None:
            raise not_kept()
        next_index, ended, entries = found
        events = [_event(entry, _pairs(fields)) for entry, fields in entries]
        there = events[0].index if events else next_index
        if after >= max(next_index, 1) or (there != after + 1 and after + 1 < next_index):
            raise EventsGone(
                f"events after index {after} are not kept: this session has up to "
                f"{next_index - 1}; read it again from the start"
            )
        last = events[-1].index if events else after
        return Page(events, ended=bool(ended) and last == next_index - 1)

    async def _watch(self, run: str, after: int, timeout_s: float) -> None:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        mirror = self._mirrors.use(run)
        try:
            async with asyncio.timeout_at(deadline_s):
                await mirror.listening.acquire()
        except TimeoutError:
            return
        try:
            if not mirror.dropped and mirror.last <= after:
                await self._listen(run, mirror, after, deadline_s)
        finally:
            mirror.listening.release()

    async def _listen(self, run: str, mirror: Mirror, after: int, deadline_s: float) -> None:
        """Put into the mirror what comes after an index; one listener a run is enough for all."""
        if not mirror.known or mirror.last < after:
            with _translated():
                is_at = await self._redis.hmget(f"{PREFIX}run:{run}", ["next", "ended"])
            if is_at[0] is None:
                self._mirrors.drop(run)
                raise not_kept()
            next_index = int(is_at[0])
            if next_index <= after or (is_at[1] is not None and next_index == after + 1):
                return
        if mirror.last < after:
            mirror.begin_after(after)
        left_s = min(LISTEN_S, deadline_s - asyncio.get_running_loop().time())
        stream = f"{PREFIX}events:{run}"
        with _translated():
            came: Any = await self._waiting_redis.xread(
                {stream: f"{after + 1}-0"}, count=256, block=max(round(left_s * 1000), 1)
            )
        mirror.known = bool(came)
        for _, entries in came:
            mirror.extend([_event(entry, fields) for entry, fields in entries])

    async def _heartbeat(self) -> list[Header]:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._beaten_at_s > LIFE_S:
            self._judges_from_s = now_s + GRACE_S
        judges = int(now_s >= self._judges_from_s)
        lost = await self._run(HEARTBEAT, self._process, round(LIFE_S * 1000), judges)
        self._beaten_at_s = asyncio.get_running_loop().time()
        if now_s - self._prolonged_at_s > PROLONG_EVERY_S:
            await self._run(PROLONG, self._process, self._expire_s)
            self._prolonged_at_s = now_s
        return [_header(found) for found in lost]

    async def _drop(self, older_than_s: float) -> int:
        self._expire_s = max(EXPIRE_S, round(2 * older_than_s))
        dropped = 0
        while True:
            runs: int = await self._run(SWEEP, round(older_than_s * 1000), SWEPT_AT_ONCE)
            dropped += runs
            if runs < SWEPT_AT_ONCE:
                return dropped

    async def _run(self, script: Script, *values: str | int) -> Any:
        with _translated():
            try:
                return await self._redis.evalsha(script.sha, 0, *values)
            except NoScriptError:
                # Redis has restarted, or sees the script for the first time.
                await self._redis.script_load(script.text)
                return await self._redis.evalsha(script.sha, 0, *values)


def _client(url: str, connections: int, timeout_s: float) -> Redis:
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections,
        timeout=timeout_s,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=timeout_s,
    )
    return Redis(connection_pool=pool)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as exc:
        raise _away(exc) from exc


def _away(exc: Exception) -> LogUnavailable:
    if isinstance(exc, AuthenticationError):
        return LogUnavailable("Redis refuses the password; correct it in SESSIONS_URL")
    if isinstance(exc, OutOfMemoryError):
        return LogUnavailable("Redis is full; raise its maxmemory or wait until sessions are swept")
    return LogUnavailable("Redis, where sessions are kept, does not answer now; try again soon")


def _written(answer: Any) -> Written | AppError:
    if isinstance(answer, Exception):
        return _away(answer)
    if answer is None:
        return not_kept()
    last, taken = answer
    return Written(last, bool(taken))


def _header(who: Sequence[bytes]) -> Header:
    return Header(*(value.decode() for value in who))


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _event(entry: bytes, fields: dict[bytes, bytes]) -> Event:
    index = int(entry.partition(b"-")[0]) - 1
    kind, data = fields[b"kind"].decode(), unpack(fields[b"data"])
    return Event(index, kind, data, fields[b"terminal"] == b"1")
