"""Bounds how many sessions may be active, requests that still prepare theirs included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import Overloaded

RETRY_AFTER_S = 5


class Reservation:
    """A place reserved for a session that is not there yet."""


class Reservations:
    """The places that are reserved. `limit`: sessions and reservations at once; None for any."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._reserved: set[Reservation] = set()

    @contextmanager
    def reserve(self, active: int) -> Iterator[Reservation]:
        """Hold a place beside the `active` sessions; the session that takes it over ends it.

        Raises:
            Overloaded: every place is taken.
        """
        if self._limit is not None and active + len(self._reserved) >= self._limit:
            raise Overloaded(
                f"{self._limit} requests are running or waiting, which is all this server "
                "takes at once; try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        reservation = Reservation()
        self._reserved.add(reservation)
        try:
            yield reservation
        finally:
            self.end(reservation)

    def end(self, reservation: Reservation) -> None:
        """Give a place back; without effect if that was done before."""
        self._reserved.discard(reservation)
