"""Conversations with the assistant: kept for their owner, counted for admins."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update

from app.core.errors import NotFound
from app.db.database import Database
from app.db.tables import conversations, messages, now
from app.schemas.market import (
    ConversationAnswer,
    ConversationList,
    DayCount,
    MessageAnswer,
    QueriesAnswer,
    QueryCount,
    WholeConversation,
)
from app.services.market.accounts import User
from app.services.market.cursors import Cursors

MAX_TITLE_CHARS = 80
_COUNTED = 20_000
_PERSONAL = re.compile(r"\S+@\S+|https?://\S+|\+?\d[\d\s().-]{7,}\d")


class Conversations:
    """What was said, and by whom; only its owner finds a conversation."""

    def __init__(self, database: Database, cursors: Cursors) -> None:
        self._database = database
        self._cursors = cursors

    async def begin(self, user: User, conversation_id: str, *, title: str) -> None:
        """Make a conversation of that id."""
        async with self._database.write() as connection:
            await connection.execute(
                insert(conversations).values(
                    id=conversation_id, user_id=user.id, title=title[:MAX_TITLE_CHARS]
                )
            )

    async def say(
        self,
        conversation_id: str,
        role: str,
        content: str,
        *,
        session_id: str | None = None,
        interpretation: dict[str, Any] | None = None,
        hits: int | None = None,
    ) -> int:
        """Keep what one side said; return the message's id."""
        async with self._database.write() as connection:
            made = await connection.execute(
                insert(messages)
                .values(
                    conversation_id=conversation_id,
                    role=role,
                    content=content,
                    interpretation=interpretation,
                    hits=hits,
                )
                .returning(messages.c.id)
            )
            values: dict[str, Any] = {"updated_at": now()}
            if session_id is not None:
                values["session_id"] = session_id
            await connection.execute(
                update(conversations).where(conversations.c.id == conversation_id).values(values)
            )
            return int(made.scalar_one())

    async def list(self, user: User, *, limit: int, cursor: str | None) -> ConversationList:
        """Return a page of somebody's conversations, newest first."""
        own = conversations.c.user_id == user.id
        kind = f"conversations {user.id}"
        at, key = conversations.c.updated_at, conversations.c.id
        query = select(conversations).where(own).order_by(at.desc(), key.desc()).limit(limit + 1)
        async with self._database.read() as connection:
            if cursor is None:
                counted = select(func.count()).select_from(conversations).where(own)
                total = (await connection.execute(counted)).scalar_one()
            else:
                last, last_key, total = self._cursors.read(kind, cursor)
                last = datetime.fromisoformat(last)
                query = query.where(or_(at < last, and_(at == last, key < last_key)))
            rows = (await connection.execute(query)).all()
        next_cursor = None
        if len(rows) > limit:
            end = rows[limit - 1]
            next_cursor = self._cursors.write(kind, end.updated_at.isoformat(), end.id, total)
        items = [ConversationAnswer(**_brief(row)) for row in rows[:limit]]
        return ConversationList(items=items, total=total, next_cursor=next_cursor)

    async def whole(self, user: User, conversation_id: str) -> WholeConversation:
        """Return a conversation with its messages.

        Raises:
            NotFound: there is none, or it is another user's.
        """
        async with self._database.read() as connection:
            found = await connection.execute(
                select(conversations).where(_own(user, conversation_id))
            )
            row = found.first()
            if row is None:
                raise _unknown()
            said = await connection.execute(
                select(messages)
                .where(messages.c.conversation_id == conversation_id)
                .order_by(messages.c.id)
            )
            spoken = [
                MessageAnswer(role=one.role, content=one.content, timestamp=one.timestamp)
                for one in said
            ]
        return WholeConversation(**_brief(row), messages=spoken)

    async def last_interpretation(self, conversation_id: str) -> dict[str, Any] | None:
        """Return how the newest understood message of a conversation was understood."""
        query = (
            select(messages.c.interpretation)
            .where(messages.c.conversation_id == conversation_id, messages.c.role == "user")
            .order_by(messages.c.id.desc())
            .limit(20)
        )
        async with self._database.read() as connection:
            found = (await connection.execute(query)).scalars().all()
        return next((one for one in found if one), None)

    async def delete(self, user: User, conversation_id: str) -> None:
        """Erase a conversation.

        Raises:
            NotFound: there is none, or it is another user's.
        """
        async with self._database.write() as connection:
            gone = await connection.execute(
                delete(conversations).where(_own(user, conversation_id))
            )
        if gone.rowcount == 0:
            raise _unknown()

    async def queries(self, *, days: int, limit: int) -> QueriesAnswer:
        """Return what was asked for lately: no names, and nothing that looks like an address."""
        query = (
            select(messages.c.content, messages.c.hits, messages.c.timestamp)
            .where(messages.c.role == "user", messages.c.timestamp > now() - timedelta(days=days))
            .order_by(messages.c.id.desc())
            .limit(_COUNTED)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        asked: Counter[str] = Counter()
        missed: Counter[str] = Counter()
        by_day: dict[str, list[int]] = {}
        for content, hits, at in rows:
            text = _impersonal(content)
            day = by_day.setdefault(at.date().isoformat(), [0, 0])
            asked[text] += 1
            day[0] += 1
            if hits == 0:
                missed[text] += 1
                day[1] += 1
        return QueriesAnswer(
            top=[QueryCount(query=text, count=n) for text, n in asked.most_common(limit)],
            without_hits=[QueryCount(query=text, count=n) for text, n in missed.most_common(limit)],
            days=[
                DayCount(day=day, count=n, without_hits=none)
                for day, (n, none) in sorted(by_day.items())
            ],
        )


def _own(user: User, conversation_id: str) -> Any:
    return and_(conversations.c.id == conversation_id, conversations.c.user_id == user.id)


def _unknown() -> NotFound:
    return NotFound("there is no such conversation")


def _brief(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ConversationAnswer.model_fields}


def _impersonal(text: str) -> str:
    return _PERSONAL.sub("…", " ".join(text.casefold().split()))[:200]
