"""Reads what a log holds of a run now, without waiting for more.

Followers are not counted here; that is done in `followers.py`.
"""

from __future__ import annotations

from app.core.errors import AppError, EventsGone
from app.stream.event import Event
from app.stream.log import EventLog


async def events_of_run(log: EventLog, run: str) -> list[Event]:
    """Return every event of a run.

    Raises:
        EventsGone: the first ones are no longer kept.
        UnknownSession: the run is not kept.
    """
    found: list[Event] = []
    while True:
        page = await log.read(run, found[-1].index if found else -1)
        found += page.events
        if page.ended or not page.events:
            return found


async def last_event(log: EventLog, run: str) -> Event | None:
    """Return the newest event of a run, None if it has none or its first ones are gone.

    Raises:
        UnknownSession: the run is not kept.
    """
    try:
        events = await events_of_run(log, run)
    except EventsGone:
        return None
    return events[-1] if events else None


async def event_at(log: EventLog, run: str, index: int) -> Event | None:
    """Return the event of an index, None if it is not kept or cannot be read."""
    try:
        page = await log.read(run, index - 1, 1)
    except AppError:
        return None
    return page.events[0] if page.events else None
