"""The statements of a search: one for the goods of a page in order, one for their offers."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Select,
    and_,
    case,
    cast,
    column,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.sql.expression import FromClause

from app.db.geography import (
    CITY_KM,
    ROAD_DAYS,
    SEA_DAYS,
    box,
    haversine_of,
    island_of,
)
from app.db.tables import products, suppliers
from app.db.words.identity import category_key
from app.services.market.filters import SearchFilters

MAX_OFFERS = 20
# Weights of a name, of category and tags, of a description.
_FTS5 = "SELECT rowid AS id, bm25(products_fts, 10.0, 4.0, 1.0) AS score FROM products_fts"
_RANK = "ts_rank('{0.1, 0.1, 0.4, 1.0}', products.search, to_tsquery('simple', :match), 1)"


def match_of(asked: list[tuple[str, ...]], *, every: bool, is_sqlite: bool) -> str:
    """Return the full-text expression for words, each one of several terms; empty for none."""
    either, both, quote = (" OR ", " AND ", '"') if is_sqlite else (" | ", " & ", "'")
    words = [
        "(" + either.join(f"{quote}{term}{quote}" for term in dict.fromkeys(terms)) + ")"
        for terms in asked
    ]
    return (both if every else either).join(words)


class Statements:
    """What one search asks a database. `match`, `without`: expressions of its full text."""

    def __init__(
        self, filters: SearchFilters, *, match: str, without: str, is_sqlite: bool
    ) -> None:
        self._filters = filters
        self._match, self._without, self._is_sqlite = match, without, is_sqlite

    def goods(self, after: tuple[Any, int] | None) -> Select[Any]:
        """Return identities in order with their `key`, one more than the page, and the total."""
        source, score = self._source()
        identity = products.c.identity
        key = self._key(score)
        chosen = (
            select(identity, key.label("key"), func.count().over().label("total"))
            .select_from(source)
            .where(*self._conditions())
            .group_by(identity)
            .order_by(key, identity)
            .limit(self._filters.limit + 1)
        )
        if after is not None:
            at, last = after
            chosen = chosen.having(or_(key > at, and_(key == at, identity > last)))
        return chosen

    def offers(self, identities: list[int]) -> Select[Any]:
        """Return the best offers of each good, those of a good in the order of the search."""
        place = func.row_number().over(
            partition_by=products.c.identity, order_by=self._offer_order()
        )
        inner = (
            select(
                products.c.id, products.c.identity, products.c.name, products.c.price,
                products.c.stock_quantity, products.c.category, products.c.tags,
                products.c.condition, products.c.supplier_id, suppliers.c.business_name,
                suppliers.c.lat, suppliers.c.lng, suppliers.c.island, place.label("place"),
            )
            .select_from(products.join(suppliers, suppliers.c.id == products.c.supplier_id))
            .where(products.c.identity.in_(identities), *self._conditions(), *self._matches())
            .subquery()
        )  # fmt: skip
        return (
            select(inner)
            .where(inner.c.place <= MAX_OFFERS)
            .order_by(inner.c.identity, inner.c.place)
        )

    def _source(self) -> tuple[FromClause, ColumnElement[Any] | None]:
        """Return the rows to choose from, and how well each matches: less is better."""
        source: FromClause = products
        score: ColumnElement[Any] | None = None
        if self._match and self._is_sqlite:
            found = (
                text(f"{_FTS5} WHERE products_fts MATCH :match")
                .bindparams(match=self._match)
                .columns(column("id"), column("score", Float))
                .cte("found")
                .prefix_with("MATERIALIZED")
            )
            source = found.join(products, products.c.id == found.c.id)
            score = found.c.score
        elif self._match:
            rank = text(_RANK).bindparams(match=self._match)
            score = -cast(rank, Float(53))
        if self._needs_supplier():
            source = source.join(suppliers, suppliers.c.id == products.c.supplier_id)
        return source, score

    def _needs_supplier(self) -> bool:
        return self._filters.radius_km is not None or self._filters.sort in ("distance", "delivery")

    def _matches(self) -> list[ColumnElement[bool]]:
        if not self._match:
            return []
        if self._is_sqlite:
            rows = text(
                "products.id IN (SELECT rowid FROM products_fts WHERE products_fts MATCH :match)"
            )
        else:
            rows = text("products.search @@ to_tsquery('simple', :match)")
        return [rows.bindparams(match=self._match)]  # type: ignore[list-item]

    def _conditions(self) -> list[ColumnElement[bool]]:
        filters = self._filters
        found: list[ColumnElement[bool]] = [products.c.deleted_at.is_(None)]
        if self._match and not self._is_sqlite:
            found += self._matches()
        if self._without:
            if self._is_sqlite:
                rows = (
                    "products.id NOT IN "
                    "(SELECT rowid FROM products_fts WHERE products_fts MATCH :without)"
                )
            else:
                rows = "NOT products.search @@ to_tsquery('simple', :without)"
            found.append(text(rows).bindparams(without=self._without))  # type: ignore[arg-type]
        if filters.category is not None:
            found.append(products.c.category_key == category_key(filters.category))
        if filters.min_price is not None:
            found.append(products.c.price >= filters.min_price)
        if filters.max_price is not None:
            found.append(products.c.price <= filters.max_price)
        if filters.condition is not None:
            found.append(products.c.condition == filters.condition)
        if filters.in_stock:
            found.append(products.c.stock_quantity > 0)
        return found + self._within()

    def _within(self) -> list[ColumnElement[bool]]:
        here, radius_km = self._filters.location, self._filters.radius_km
        if here is None or radius_km is None:
            return []
        found: list[ColumnElement[bool]] = [self._haversine() <= haversine_of(radius_km)]
        if around := box(here, radius_km):
            south, north, west, east = around
            lng = suppliers.c.lng
            found += [
                suppliers.c.lat.between(south, north),
                lng.between(west, east) if west <= east else or_(lng >= west, lng <= east),
            ]
        return found

    def _key(self, score: ColumnElement[Any] | None) -> ColumnElement[Any]:
        """Return what goods are ordered by, the smallest first."""
        sort = self._filters.sort
        if sort == "price":
            return func.min(products.c.price)
        if sort == "-price":
            return -func.min(products.c.price)
        if sort == "distance":
            return func.min(self._haversine())
        if sort == "delivery":
            return func.min(self._days_and_way())
        # Without words, the newest first.
        return -func.max(products.c.id) if score is None else func.min(score)

    def _offer_order(self) -> list[ColumnElement[Any]]:
        sort, price = self._filters.sort, products.c.price
        if sort == "distance":
            return [self._haversine(), price, products.c.id]
        if sort == "delivery":
            return [self._days_and_way(), price, products.c.id]
        if sort in ("price", "-price"):
            return [price, products.c.id]
        return [case((products.c.stock_quantity > 0, 0), else_=1), price, products.c.id]

    def _haversine(self) -> ColumnElement[Any]:
        """Return sin²(d/2R) of a supplier, see geography.py."""
        assert self._filters.location is not None  # noqa: S101  (checked by the search)
        x, y, z = (literal(value, Float(53)) for value in self._filters.location.vector())
        dx, dy, dz = suppliers.c.x - x, suppliers.c.y - y, suppliers.c.z - z
        return (dx * dx + dy * dy + dz * dz) / 4.0

    def _days_and_way(self) -> ColumnElement[Any]:
        """Return the days of delivery, and the distance as a fraction of a day."""
        assert self._filters.location is not None  # noqa: S101
        way = self._haversine()
        island = island_of(self._filters.location)

        def days(table: tuple[tuple[float, int], ...]) -> ColumnElement[Any]:
            *near, (_, far) = table
            return case(*((way <= haversine_of(km), d) for km, d in near), else_=far)

        whole = case(
            (way <= haversine_of(CITY_KM), 1),
            (suppliers.c.island == island, days(ROAD_DAYS)),
            else_=days(SEA_DAYS),
        )
        return whole + way / math.pi
