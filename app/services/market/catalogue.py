"""Suppliers and their products: registered, listed, changed by their owner only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from pydantic import BaseModel
from sqlalchemy import ColumnElement, Row, Select, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import Conflict, Forbidden, NotFound
from app.db.database import Database
from app.db.rows import add_words, place_columns, search_columns, words_in
from app.db.tables import now, products, suppliers, users
from app.schemas.market import (
    ProductAnswer,
    ProductBody,
    ProductChange,
    ProductList,
    SupplierAnswer,
    SupplierBody,
    SupplierBrief,
    SupplierList,
)
from app.services.market.accounts import User
from app.services.market.cursors import Cursors

_SOLD = products.join(suppliers, suppliers.c.id == products.c.supplier_id)
_PRODUCT = select(
    products, suppliers.c.business_name, suppliers.c.user_id, suppliers.c.lat, suppliers.c.lng
).select_from(_SOLD)
_SUPPLIER = select(suppliers).where(suppliers.c.deleted_at.is_(None))


class Catalogue:
    """What is sold, and by whom."""

    def __init__(self, database: Database, cursors: Cursors) -> None:
        self._database = database
        self._cursors = cursors

    async def register_supplier(self, user: User, body: SupplierBody) -> SupplierAnswer:
        """Make somebody a supplier.

        Raises:
            Conflict: they are one.
        """
        values = {
            "user_id": user.id,
            "name": user.name,
            "business_name": body.business_name,
            "address": body.address,
            "contact": body.contact,
            **place_columns(body.lat, body.lng),
        }
        try:
            async with self._database.write() as connection:
                made = await connection.execute(
                    insert(suppliers).values(values).returning(suppliers)
                )
                row = made.one()
                await connection.execute(
                    update(users)
                    .where(users.c.id == user.id, users.c.role == "user")
                    .values(role="supplier")
                )
        except IntegrityError:
            raise Conflict(
                "this account has a business already", code="already_a_supplier"
            ) from None
        return _supplier(row)

    async def suppliers(self, *, limit: int, cursor: str | None) -> SupplierList:
        """Return a page of suppliers, the oldest first."""
        rows, total, next_cursor = await self._page(
            "suppliers", _SUPPLIER, suppliers.c.id, limit=limit, cursor=cursor
        )
        items = [_supplier(row) for row in rows]
        return SupplierList(items=items, total=total, next_cursor=next_cursor)

    async def supplier(self, supplier_id: int) -> SupplierAnswer:
        """Return one supplier.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read() as connection:
            found = await connection.execute(_SUPPLIER.where(suppliers.c.id == supplier_id))
            row = found.first()
        if row is None:
            raise NotFound("there is no such supplier")
        return _supplier(row)

    async def products_of(self, supplier_id: int, *, limit: int, cursor: str | None) -> ProductList:
        """Return a page of a supplier's products, the oldest first.

        Raises:
            NotFound: there is no such supplier.
        """
        await self.supplier(supplier_id)
        query = _PRODUCT.where(
            products.c.supplier_id == supplier_id, products.c.deleted_at.is_(None)
        )
        rows, total, next_cursor = await self._page(
            f"products {supplier_id}", query, products.c.id, limit=limit, cursor=cursor
        )
        return ProductList(
            items=[_product(row) for row in rows], total=total, next_cursor=next_cursor
        )

    async def product(self, product_id: int) -> ProductAnswer:
        """Return one product.

        Raises:
            NotFound: there is none.
        """
        async with self._database.read() as connection:
            return _product(await _find(connection, product_id))

    async def add(self, user: User, body: ProductBody) -> ProductAnswer:
        """Add a product to the caller's own.

        Raises:
            Forbidden: the caller is no supplier. Conflict: they have one of that SKU.
        """
        _check_supplier(user)
        values = body.model_dump()
        columns = search_columns(values)
        try:
            async with self._database.write() as connection:
                mine = _SUPPLIER.where(suppliers.c.user_id == user.id)
                owner = (await connection.execute(mine)).first()
                if owner is None:
                    raise _no_supplier()
                made = await connection.execute(
                    insert(products)
                    .values(**values, **columns, supplier_id=owner.id, version=1)
                    .returning(products.c.id)
                )
                product_id = made.scalar_one()
                await connection.run_sync(add_words, words_in(columns))
                return _product(await _find(connection, product_id))
        except IntegrityError as refused:
            _explain(refused, values)

    async def change(self, user: User, product_id: int, body: ProductChange) -> ProductAnswer:
        """Change a product that is still as the caller saw it.

        Raises:
            NotFound, Forbidden: there is none, or it is another supplier's.
            Conflict: it has changed since, or another has that SKU.
        """
        given = body.model_dump(exclude_unset=True, exclude={"version"})
        given = {k: v for k, v in given.items() if v is not None or k == "sku"}
        try:
            async with self._database.write() as connection:
                row = await _find(connection, product_id)
                _check_owner(user, row)
                if row.version != body.version:
                    raise _stale(row)
                values = given | {"updated_at": now(), "version": row.version + 1}
                if given.keys() - {"price", "stock_quantity"}:
                    whole = {name: getattr(row, name) for name in ProductBody.model_fields}
                    columns = search_columns(whole | given)
                    values |= columns
                    await connection.run_sync(add_words, words_in(columns))
                changed = await connection.execute(
                    update(products)
                    .where(
                        products.c.id == product_id,
                        products.c.version == body.version,
                        products.c.deleted_at.is_(None),
                    )
                    .values(values)
                )
                row = await _find(connection, product_id)
                if changed.rowcount == 0:
                    # On PostgreSQL somebody may have come between.
                    raise _stale(row)
                return _product(row)
        except IntegrityError as refused:
            _explain(refused, given)

    async def remove(self, user: User, product_id: int) -> None:
        """Take a product out of the catalogue.

        Raises:
            NotFound, Forbidden: there is none, or it is another supplier's.
        """
        async with self._database.write() as connection:
            _check_owner(user, await _find(connection, product_id))
            await connection.execute(
                update(products)
                .where(products.c.id == product_id)
                .values(deleted_at=now(), version=products.c.version + 1)
            )

    async def _page(
        self,
        kind: str,
        query: Select[Any],
        key: ColumnElement[int],
        *,
        limit: int,
        cursor: str | None,
    ) -> tuple[list[Row[Any]], int, str | None]:
        async with self._database.read() as connection:
            if cursor is None:
                counted = select(func.count()).select_from(query.subquery())
                total = (await connection.execute(counted)).scalar_one()
            else:
                last, total = self._cursors.read(kind, cursor)
                query = query.where(key > last)
            rows = list((await connection.execute(query.order_by(key).limit(limit + 1))).all())
        if len(rows) <= limit:
            return rows, total, None
        return rows[:limit], total, self._cursors.write(kind, rows[limit - 1].id, total)


async def _find(connection: AsyncConnection, product_id: int) -> Row[Any]:
    found = await connection.execute(
        _PRODUCT.where(products.c.id == product_id, products.c.deleted_at.is_(None))
    )
    row = found.first()
    if row is None:
        raise NotFound("there is no such product")
    return row


def _check_supplier(user: User) -> None:
    if user.role not in ("supplier", "admin"):
        raise _no_supplier()


def _no_supplier() -> Forbidden:
    return Forbidden(
        "only a supplier sells; register with POST /api/suppliers/register",
        code="not_a_supplier",
    )


def _check_owner(user: User, row: Row[Any]) -> None:
    _check_supplier(user)
    if user.role != "admin" and row.user_id != user.id:
        raise Forbidden("that product is another supplier's", code="not_yours")


def _stale(row: Row[Any]) -> Conflict:
    return Conflict(
        f"the product has changed: it is now version {row.version}, with a stock of "
        f"{row.stock_quantity} at a price of {row.price}; look at it again and send that version",
        code="stale_version",
        current=_product(row).model_dump(mode="json"),
    )


def _explain(refused: IntegrityError, values: Mapping[str, Any]) -> NoReturn:
    if values.get("sku") and "sku" in str(refused.orig):
        raise Conflict(
            "sku: another of your products has it; change that one", code="duplicate_sku"
        ) from None
    raise refused


def _supplier(row: Any) -> SupplierAnswer:
    return SupplierAnswer(**_fields(SupplierAnswer, row))


def _product(row: Any) -> ProductAnswer:
    brief = SupplierBrief(
        id=row.supplier_id, business_name=row.business_name, lat=row.lat, lng=row.lng
    )
    return ProductAnswer(**_fields(ProductAnswer, row), supplier=brief)


def _fields(kind: type[BaseModel], row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in kind.model_fields if hasattr(row, name)}
