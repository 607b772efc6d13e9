"""Admission: bounds how many sessions are active, in all and for each client.

Requests that still prepare their session count too. When no place is left, the session that nobody
has followed for longest gives way, if that is long enough.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import structlog

from app.core.client import current_client
from app.core.errors import Cancelled, LogUnavailable, Overloaded
from app.stream.log import EventLog
from app.stream.session import Session

log = structlog.get_logger(__name__)

# A reader whose connection broke is back within this time, if it comes back at all by itself.
ABANDONED_AFTER_S = 15.0
# Until a session has ended, nobody knows how long one takes.
RETRY_AFTER_S = 5
MAX_RETRY_AFTER_S = 600
DURATIONS = 32


class Reservation:
    """A place reserved for a session of a client that is not there yet."""

    def __init__(self, client: str) -> None:
        self.client = client


class Admission:
    """The places for sessions. `sessions`: those of this process whose tasks have not ended.

    `limit`: sessions and reservations at once; None for any. `per_client`: those of one client;
    None for any.
    """

    def __init__(
        self,
        sessions: Mapping[str, Session],
        event_log: EventLog,
        *,
        limit: int | None = None,
        per_client: int | None = None,
    ) -> None:
        self._sessions = sessions
        self._log = event_log
        self._limit = limit
        self._per_client = per_client
        self._reserved: set[Reservation] = set()
        self._durations_s: deque[float] = deque(maxlen=DURATIONS)

    @asynccontextmanager
    async def reserve(self) -> AsyncIterator[Reservation]:
        """Hold a place for the client of this request; the session that takes it over ends it.

        Raises:
            Overloaded: every place, or every one that a client may have, is taken.
        """
        reservation = Reservation(current_client.get())
        await self._make_room(reservation.client)
        self._reserved.add(reservation)
        try:
            yield reservation
        finally:
            self.end(reservation)

    def end(self, reservation: Reservation) -> None:
        """Give a place back; without effect if that was done before."""
        self._reserved.discard(reservation)

    def record(self, duration_s: float) -> None:
        """Take note of how long a session took from its start to its end."""
        self._durations_s.append(duration_s)

    async def _make_room(self, client: str) -> None:
        """Return at the moment when a place is free for a client, without waiting for one."""
        while (full := self._full(client)) is not None:
            abandoned = await self._longest_abandoned(full.of_client)
            if abandoned is None:
                raise full.error
            log.info("session_gives_way", session_id=abandoned.header.session_id)
            abandoned.give_way(
                Cancelled("abandoned: nobody was listening, and another request needed the place")
            )

    def _full(self, client: str) -> _Full | None:
        """Return which limit a new session of a client would exceed, None if none."""
        taken = [s.client for s in self._sessions.values() if not s.gave_way]
        taken += [reservation.client for reservation in self._reserved]
        own = taken.count(client)
        if self._per_client is not None and own >= self._per_client:
            return _Full(
                self._overloaded(
                    own,
                    f"{own} requests of yours are running or waiting, which is all that one "
                    "client may have; wait for one of them, or cancel one",
                ),
                of_client=client,
            )
        if self._limit is not None and len(taken) >= self._limit:
            return _Full(
                self._overloaded(
                    len(taken),
                    f"{self._limit} requests are running or waiting, which is all this server "
                    "takes at once; try again soon",
                )
            )
        return None

    def _overloaded(self, active: int, message: str) -> Overloaded:
        """Return the refusal, with the time until one of `active` sessions ends.

        By Little's law sessions end at the rate of the active ones over the time that one takes.
        """
        retry_after_s = RETRY_AFTER_S
        if self._durations_s and active:
            mean_s = sum(self._durations_s) / len(self._durations_s)
            retry_after_s = min(max(math.ceil(mean_s / active), 1), MAX_RETRY_AFTER_S)
        return Overloaded(message, retry_after_s=retry_after_s)

    async def _longest_abandoned(self, of_client: str | None) -> Session | None:
        """Return the session that nobody has followed for longest, here or in another process."""
        candidates = [
            (idle_s, session)
            for session in self._sessions.values()
            if of_client in (None, session.client)
            and (idle_s := session.abandoned_s) is not None
            and idle_s >= ABANDONED_AFTER_S
        ]
        for _, session in sorted(candidates, key=lambda each: -each[0]):
            try:
                followed = await self._log.lease_left_s(session.header.run) > -ABANDONED_AFTER_S
            except LogUnavailable:
                followed = True
            # It may have got a follower, or have ended, meanwhile.
            if not followed and session.abandoned_s is not None:
                return session
        return None


class _Full:
    """A limit that is reached, and whose sessions count for it: one client's, or all (None)."""

    def __init__(self, error: Overloaded, of_client: str | None = None) -> None:
        self.error = error
        self.of_client = of_client
