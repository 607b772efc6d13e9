"""Mistyped words: which words of the goods a word may have meant."""

from __future__ import annotations

from collections.abc import Iterable

from rapidfuzz import process
from rapidfuzz.distance import OSA
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.tables import search_words

_MIN_CHARS, _MIN_PREFIX_CHARS = 4, 3
_MAX_MEANT, _MAX_CANDIDATES = 6, 60
# Two letters changed places cost many trigrams of a short word: `lpatop` has 0.27 of `laptop`.
_TRIGRAM_SIMILARITY = "0.2"


class Spelling:
    """Knows every word of the goods; on SQLite in memory, on PostgreSQL by its trigrams."""

    def __init__(self, *, in_memory: bool) -> None:
        self._in_memory = in_memory
        self._words: list[str] = []
        self._known: set[str] = set()
        self._newest = 0

    async def corrected(
        self, connection: AsyncConnection, asked: list[tuple[str, ...]]
    ) -> list[tuple[str, ...]]:
        """Return the terms asked for, those that no product has replaced by what they may mean."""
        known = await self._known_of(connection, {term for terms in asked for term in terms})
        corrected = []
        for terms in asked:
            found: tuple[str, ...] = terms
            if known.isdisjoint(terms):
                found = (*terms, *await self._meant(connection, terms[0]))
            corrected.append(found)
        return corrected

    async def _known_of(self, connection: AsyncConnection, terms: set[str]) -> set[str]:
        if self._in_memory:
            await self._read(connection)
            return terms & self._known
        query = select(search_words.c.word).where(search_words.c.word.in_(sorted(terms)))
        return set(await connection.scalars(query))

    async def _read(self, connection: AsyncConnection) -> None:
        query = (
            select(search_words.c.id, search_words.c.word)
            .where(search_words.c.id > self._newest)
            .order_by(search_words.c.id)
        )
        for number, word in (await connection.execute(query)).all():
            self._newest = max(self._newest, number)
            if word not in self._known:
                self._known.add(word)
                self._words.append(word)

    async def _meant(self, connection: AsyncConnection, word: str) -> list[str]:
        if len(word) < _MIN_PREFIX_CHARS or word.isdigit():
            return []
        candidates: Iterable[str] = self._words
        if not self._in_memory:
            candidates = await self._candidates(connection, word)
        longer = [one for one in candidates if one.startswith(word)][:_MAX_MEANT]
        if longer or len(word) < _MIN_CHARS or any(char.isdigit() for char in word):
            return longer
        mistakes = 1 if len(word) < 8 else 2
        near = process.extract(
            word,
            candidates,
            scorer=OSA.distance,  # type: ignore[arg-type]
            score_cutoff=mistakes,
            limit=_MAX_MEANT,
        )
        return [one for one, mistake, _ in near if mistake == near[0][1]]

    async def _candidates(self, connection: AsyncConnection, word: str) -> list[str]:
        await connection.execute(
            text(f"SET LOCAL pg_trgm.similarity_threshold = {_TRIGRAM_SIMILARITY}")
        )
        near = (
            select(search_words.c.word)
            .where(search_words.c.word.op("%")(word))
            .order_by(func.similarity(search_words.c.word, word).desc(), search_words.c.word)
            .limit(_MAX_CANDIDATES)
        )
        begun = (
            select(search_words.c.word)
            .where(search_words.c.word.like(f"{word}%"))
            .order_by(search_words.c.word)
            .limit(_MAX_MEANT)
        )
        found = [*await connection.scalars(begun), *await connection.scalars(near)]
        return list(dict.fromkeys(found))
