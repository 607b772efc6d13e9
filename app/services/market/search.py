"""Search: filters in, goods out, each with the offers of all suppliers that sell it.

Full text is the database's own (FTS5, tsvector); places, days of delivery, grouping, order and
limit are SQL too, so that the limit comes last. The statements are in search_sql.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import InvalidInput
from app.db.database import Database
from app.db.geography import Point, delivery_days, haversine_km, island_of
from app.db.words.terms import asked_for
from app.schemas.market import HitAnswer, HitList, OfferAnswer, SupplierBrief
from app.services.market.cursors import Cursors
from app.services.market.filters import SearchFilters
from app.services.market.search_sql import Statements, match_of
from app.services.market.spelling import Spelling

MAX_WORDS = 16
# How many searches read at once: more of them only make each other slow.
_AT_ONCE = 6


class Search:
    """Finds goods in a database."""

    def __init__(self, database: Database, cursors: Cursors) -> None:
        self._database = database
        self._cursors = cursors
        self._spelling = Spelling(in_memory=database.is_sqlite)
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def search(self, filters: SearchFilters) -> HitList:
        """Return one page.

        Where nothing has all words of the text, what has some of them is found.

        Raises:
            InvalidInput: the filters contradict each other, or the cursor is of another search.
        """
        _check(filters)
        async with self._places, self._database.read() as connection:
            asked = asked_for(filters.text)[:MAX_WORDS]
            if asked:
                asked = await self._spelling.corrected(connection, asked)
            elif filters.text.strip() and not filters.category:
                # Only signs, or only words that say nothing of goods.
                return HitList(items=[], total=0, next_cursor=None)
            if filters.cursor is None:
                found = await self._page(connection, filters, asked, every=True)
                if not found.items and len(asked) > 1:
                    found = await self._page(connection, filters, asked, every=False)
                return found
            every, key, identity, total = self._cursors.read(filters.fingerprint(), filters.cursor)
            return await self._page(
                connection, filters, asked, every=every, after=(key, identity), total=total
            )

    async def _page(
        self,
        connection: AsyncConnection,
        filters: SearchFilters,
        asked: list[tuple[str, ...]],
        *,
        every: bool,
        after: tuple[Any, int] | None = None,
        total: int = 0,
    ) -> HitList:
        match = match_of(asked, every=every, is_sqlite=self._database.is_sqlite)
        without = match_of(
            [terms for word in filters.without for terms in asked_for(word)],
            every=False,
            is_sqlite=self._database.is_sqlite,
        )
        statements = Statements(
            filters, match=match, without=without, is_sqlite=self._database.is_sqlite
        )
        rows = (await connection.execute(statements.goods(after))).all()
        if after is None and rows:
            total = rows[0].total
        page = rows[: filters.limit]
        if not page:
            return HitList(items=[], total=total, next_cursor=None)
        offers: dict[int, list[Row[Any]]] = {row.identity: [] for row in page}
        for row in await connection.execute(statements.offers(list(offers))):
            offers[row.identity].append(row)
        cursor = None
        if len(rows) > filters.limit:
            last = page[-1]
            cursor = self._cursors.write(
                filters.fingerprint(), every, last.key, last.identity, total
            )
        hits = [_hit(rows, filters.location) for rows in offers.values() if rows]
        return HitList(items=hits, total=total, next_cursor=cursor)


def _check(filters: SearchFilters) -> None:
    low, high = filters.min_price, filters.max_price
    if low is not None and high is not None and low > high:
        raise InvalidInput("min_price is greater than max_price")
    if filters.location is None:
        if filters.sort in ("distance", "delivery"):
            raise InvalidInput(f"sort={filters.sort} needs a location: send location=lat,lng")
        if filters.radius_km is not None:
            raise InvalidInput("radius_km needs a location: send location=lat,lng")


def _hit(rows: list[Row[Any]], here: Point | None) -> HitAnswer:
    best = rows[0]
    offers = [
        OfferAnswer(
            product_id=row.id,
            supplier=_supplier(row),
            price=row.price,
            stock_quantity=row.stock_quantity,
            **_way(row, here),
        )
        for row in rows
    ]
    return HitAnswer(
        id=best.id,
        name=best.name,
        price=best.price,
        stock_quantity=best.stock_quantity,
        category=best.category,
        tags=best.tags,
        condition=best.condition,
        supplier=_supplier(best),
        **_way(best, here),
        offers=offers,
    )


def _supplier(row: Row[Any]) -> SupplierBrief:
    return SupplierBrief(
        id=row.supplier_id, business_name=row.business_name, lat=row.lat, lng=row.lng
    )


def _way(row: Row[Any], here: Point | None) -> dict[str, Any]:
    if here is None:
        return {}
    distance_km = haversine_km(here, Point(row.lat, row.lng))
    days = delivery_days(distance_km, crosses_sea=row.island != island_of(here))
    return {"distance_km": round(distance_km, 2), "delivery_days": days}
