"""The log in Redis: shared by processes of any host, which resume, join and stop each other's runs.

It knows one Redis, not a cluster. A process is alive as long as its key there is, which its
heartbeat renews.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from app.core.errors import AppError, EventsGone
from app.stream.event import Event
from app.stream.log import Header, Page, not_kept
from app.stream.logs.mirror import Mirror, Mirrors
from app.stream.logs.redis_client import connect, translated, unavailable
from app.stream.logs.redis_scripts import (
    APPEND,
    EXTEND_EXPIRY,
    FIND,
    HEARTBEAT,
    LEASE_LEFT,
    OPEN,
    PREFIX,
    READ,
    RENEW_LEASE,
    REQUEST_STOP,
    SWEEP,
)
from app.stream.logs.write_through import Append, WriteThroughLog, Written, unpack

COMMAND_TIMEOUT_S = 5.0
# How often a follower checks that its run still exists.
LISTEN_S = 1.0
INBOX_S = 5.0
# A dead process is noticed this long after its last heartbeat; no busy one may be so late.
PROCESS_TTL_S = 8.0
# When Redis was away, the keys of all processes have expired: so long each may take to set its own.
GRACE_S = 3.0
KEPT_EVENTS = 65_536
# When no process is left to sweep or to end a run, Redis drops it after so long.
EXPIRE_S = 24 * 3600
EXTEND_EXPIRY_EVERY_S = 3600.0
SWEPT_AT_ONCE = 64
CONNECTIONS = 64
LISTENERS = 512


class RedisLog(WriteThroughLog):
    """An `EventLog` in the Redis at `url`.

    What blocks until something happens has connections of its own, so that commands never wait for
    a connection.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._redis = connect(url, CONNECTIONS, COMMAND_TIMEOUT_S)
        self._waiting_redis = connect(url, LISTENERS, INBOX_S + COMMAND_TIMEOUT_S)
        self._append_script = self._redis.register_script(APPEND)
        self._process = secrets.token_hex(12)
        self._mirrors = Mirrors()
        self._expire_s = EXPIRE_S
        self._heartbeat_at_s = float("-inf")
        self._finds_lost_from_s = 0.0
        self._expiry_extended_at_s = float("-inf")

    async def find(self, owner: str, session_id: str) -> Header | None:
        found = await self._run(FIND, owner, session_id)
        return _header(found) if found else None

    async def request_stop(self, owner: str, session_id: str) -> None:
        await self._run(REQUEST_STOP, owner, session_id)

    async def stop_requests(self, timeout_s: float) -> list[str]:
        inbox = f"{PREFIX}inbox:{self._process}"
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        while (left_s := deadline_s - loop.time()) > 0:
            with translated():
                # A time-out of zero would mean no time-out.
                first = await self._waiting_redis.blpop([inbox], max(min(left_s, INBOX_S), 0.01))
                if first is not None:
                    more = await self._redis.lpop(inbox, 1000) or []
                    return [run.decode() for run in (first[1], *more)]
        return []

    async def renew_lease(self, run: str, for_s: float) -> None:
        await self._run(RENEW_LEASE, run, round(for_s * 1000))

    async def lease_left_s(self, run: str) -> float:
        left_ms = await self._run(LEASE_LEFT, run)
        return float("-inf") if left_ms is None else left_ms / 1000

    def forget(self, run: str) -> None:
        super().forget(run)
        self._mirrors.drop(run)

    async def aclose(self) -> None:
        await super().aclose()
        with suppress(RedisError, OSError):
            # Other processes need not wait until it expires to end what still runs here.
            await self._redis.delete(f"{PREFIX}process:{self._process}")
        for client in (self._redis, self._waiting_redis):
            with suppress(RedisError, OSError):
                await client.aclose(close_connection_pool=True)

    async def _claim(self, header: Header, shared: bool) -> Header:
        holder = await self._run(
            OPEN,
            *(self._process, round(PROCESS_TTL_S * 1000), self._expire_s, int(shared)),
            *(header.run, header.session_id, header.kind, header.owner, header.fingerprint),
        )
        return _header(holder) if holder else header

    async def _write(self, batch: Sequence[Append]) -> Sequence[Written | AppError]:
        with translated():
            answers = await self._append_all(batch)
            unknown = [i for i, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                # Redis has restarted, or gets the script for the first time. redis-py would check
                # that before each pipeline: a second round trip for every event.
                await self._redis.script_load(APPEND)
                again = await self._append_all([batch[i] for i in unknown])
                for i, answer in zip(unknown, again, strict=True):
                    answers[i] = answer
        return [_written(answer) for answer in answers]

    async def _append_all(self, batch: Sequence[Append]) -> list[Any]:
        """Send a batch in one round trip; return the answer to each append, errors included."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job in batch:
                drafts = [part for d in job.packed for part in (d.kind, d.data, int(d.terminal))]
                pipe.evalsha(
                    self._append_script.sha, 0, job.run, self._expire_s, KEPT_EVENTS, *drafts
                )
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
        first = events[0].index if events else next_index
        if after >= max(next_index, 1) or (first != after + 1 and after + 1 < next_index):
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
                listens = await mirror.wait(after)
        except TimeoutError:
            return
        if not listens:
            return
        try:
            await self._listen(run, mirror, after, deadline_s)
        finally:
            mirror.stop_listening()

    async def _listen(self, run: str, mirror: Mirror, after: int, deadline_s: float) -> None:
        """Wait for events after an index and put them into the mirror, for every follower here."""
        if not mirror.known or mirror.last < after:
            with translated():
                state = await self._redis.hmget(f"{PREFIX}run:{run}", ["next", "ended"])
            if state[0] is None:
                self._mirrors.drop(run)
                raise not_kept()
            next_index = int(state[0])
            if next_index <= after or (state[1] is not None and next_index == after + 1):
                return
        if mirror.last < after:
            mirror.begin_after(after)
        left_s = min(LISTEN_S, deadline_s - asyncio.get_running_loop().time())
        stream = f"{PREFIX}events:{run}"
        with translated():
            answer: Any = await self._waiting_redis.xread(
                {stream: f"{after + 1}-0"}, count=256, block=max(round(left_s * 1000), 1)
            )
        mirror.known = bool(answer)
        for _, entries in answer:
            mirror.extend([_event(entry, fields) for entry, fields in entries])

    async def _heartbeat(self) -> list[Header]:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._heartbeat_at_s > PROCESS_TTL_S:
            self._finds_lost_from_s = now_s + GRACE_S
        finds_lost = int(now_s >= self._finds_lost_from_s)
        lost = await self._run(HEARTBEAT, self._process, round(PROCESS_TTL_S * 1000), finds_lost)
        self._heartbeat_at_s = asyncio.get_running_loop().time()
        if now_s - self._expiry_extended_at_s > EXTEND_EXPIRY_EVERY_S:
            await self._run(EXTEND_EXPIRY, self._process, self._expire_s)
            self._expiry_extended_at_s = now_s
        return [_header(found) for found in lost]

    async def _drop(self, older_than_s: float) -> int:
        self._expire_s = max(EXPIRE_S, round(2 * older_than_s))
        dropped = 0
        while True:
            runs: int = await self._run(SWEEP, round(older_than_s * 1000), SWEPT_AT_ONCE)
            dropped += runs
            if runs < SWEPT_AT_ONCE:
                return dropped

    async def _run(self, script: str, *values: str | int) -> Any:
        with translated():
            return await self._redis.register_script(script)(args=values)


def _written(answer: Any) -> Written | AppError:
    if isinstance(answer, Exception):
        return unavailable(answer)
    if answer is None:
        return not_kept()
    last, taken = answer
    return Written(last, bool(taken))


def _header(values: Sequence[bytes]) -> Header:
    return Header(*(value.decode() for value in values))


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _event(entry: bytes, fields: dict[bytes, bytes]) -> Event:
    index = int(entry.partition(b"-")[0]) - 1
    kind, data = fields[b"kind"].decode(), unpack(fields[b"data"])
    return Event(index, kind, data, fields[b"terminal"] == b"1")
