"""Loads the demonstration: the same suppliers and products each time, those there already left."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import Connection, func, insert, select

from app.db.demonstration.goods import CITIES, GOODS, SHOPS
from app.db.rows import add_rows, add_words, place_columns, search_columns, words_in
from app.db.tables import products, suppliers


def seed(connection: Connection) -> tuple[int, int]:
    """Load it; return how many suppliers and products were new."""
    known = {
        row.business_name: row.id
        for row in connection.execute(
            select(suppliers.c.id, suppliers.c.business_name).where(
                suppliers.c.user_id.is_(None), suppliers.c.deleted_at.is_(None)
            )
        )
    }
    new_suppliers = 0
    rows: list[dict[str, Any]] = []
    words: set[str] = set()
    for row, categories in _shops():
        supplier_id = known.get(row["business_name"])
        if supplier_id is None:
            made = connection.execute(insert(suppliers).values(row).returning(suppliers.c.id))
            supplier_id = made.scalar_one()
            new_suppliers += 1
        there = set(
            connection.scalars(
                select(products.c.sku_key).where(products.c.supplier_id == supplier_id)
            )
        )
        for product in _products(row["business_name"], categories):
            columns = search_columns(product)
            if columns["sku_key"] not in there:
                rows.append({**product, **columns, "supplier_id": supplier_id, "version": 1})
                words |= words_in(columns)
    add_rows(connection, products, rows)
    add_words(connection, words)
    return new_suppliers, len(rows)


def counts(connection: Connection) -> tuple[int, int]:
    """Return how many suppliers and products there are."""
    there = [
        connection.execute(
            select(func.count()).select_from(table).where(table.c.deleted_at.is_(None))
        ).scalar_one()
        for table in (suppliers, products)
    ]
    return there[0], there[1]


def _shops() -> list[tuple[dict[str, Any], tuple[str, ...]]]:
    found: list[tuple[dict[str, Any], tuple[str, ...]]] = []
    for city, lat, lng in CITIES:
        for kind, categories in SHOPS:
            name = f"Toko {kind} {city}"
            # Within some five kilometres of the centre.
            north, east = (_share(f"{name} {way}") - 0.5 for way in ("north", "east"))
            place = place_columns(round(lat + north * 0.09, 5), round(lng + east * 0.09, 5))
            row = {
                "name": f"Pemilik {kind}",
                "business_name": name,
                "address": f"Jalan Demonstrasi {1 + int(_share(name) * 200)}, {city}",
                "contact": f"toko@{kind.split()[0].lower()}-{city.lower()}.example",
                **place,
            }
            found.append((row, categories))
    return found


def _products(shop: str, categories: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    for number, (category, name, thousands, tags, description) in enumerate(GOODS):
        chance = _share(f"{shop} {name}")
        if category not in categories or chance < 0.2:
            continue
        # Prices differ by a tenth from shop to shop; now and then a shelf is empty.
        price = round(thousands * (0.95 + 0.1 * _share(f"{name} {shop}"))) * 1000
        found.append(
            {
                "name": name,
                "description": description,
                "price": price,
                "stock_quantity": 0 if chance > 0.95 else 1 + int(chance * 40),
                "category": category,
                "tags": tags.split(","),
                "sku": f"DEMO-{number:04}",
                "condition": "new",
            }
        )
    return found


def _share(text: str) -> float:
    """Return a number from 0 to 1 that is the same for the same text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32
