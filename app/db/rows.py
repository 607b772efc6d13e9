"""Rows of goods and suppliers: what a person said, and beside it what is made to be searched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from app.db.geography import Point, island_of
from app.db.tables import search_words
from app.db.words.identity import category_key, identity_of
from app.db.words.terms import terms_of

# Of a word in the table; SQLite takes 32,766 values a statement.
_WORDS_AT_ONCE = 5000


def place_columns(lat: float, lng: float) -> dict[str, Any]:
    """Return what a supplier's row holds of its place."""
    place = Point(lat, lng)
    x, y, z = place.vector()
    return {"lat": lat, "lng": lng, "x": x, "y": y, "z": z, "island": island_of(place)}


def search_columns(product: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a product's row holds to be compared and searched."""
    name, category, sku = product["name"], product["category"], product["sku"]
    tags = f"{category} {' '.join(product['tags'])} {product['condition']}"
    return {
        "sku_key": re.sub(r"\s+", "", sku).casefold()[:64] if sku else None,
        "category_key": category_key(category)[:100],
        "identity": identity_of(
            name=name, category=category, condition=product["condition"], sku=sku
        ),
        "search_name": terms_of(name),
        "search_tags": terms_of(tags),
        "search_text": terms_of(product["description"]),
    }


def words_in(columns: Mapping[str, Any]) -> set[str]:
    """Return the words of a product that a mistyped one may have meant."""
    text = f"{columns['search_name']} {columns['search_tags']}"
    return {word for word in text.split() if len(word) > 2 and not word[0].isdigit()}


def add_words(connection: Connection, words: set[str]) -> None:
    """Keep the words that are not there yet."""
    ordered = sorted(words)
    # Another transaction may be adding the same ones; the order keeps the two from a deadlock.
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    for start in range(0, len(ordered), _WORDS_AT_ONCE):
        part = ordered[start : start + _WORDS_AT_ONCE]
        known = set(
            connection.scalars(select(search_words.c.word).where(search_words.c.word.in_(part)))
        )
        if missing := [word for word in part if word not in known]:
            statement = dialect.insert(search_words).on_conflict_do_nothing()
            connection.execute(statement, [{"word": word} for word in missing])


def add_rows(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Insert many rows."""
    if rows:
        connection.execute(insert(table), rows)
