"""A supplier's list as CSV: each line is a product, and each line is reported on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError
from sqlalchemy import Connection, insert, select, update

from app.db.rows import add_words, search_columns, words_in
from app.db.tables import now, products
from app.schemas.market import ProductBody

COLUMNS = tuple(ProductBody.model_fields)
_NUMBERS = frozenset(("price", "stock_quantity"))
MAX_LINES = 100_000


class NoList(Exception):
    """The file is no list of products."""


def import_file(connection: Connection, path: Path, supplier_id: int) -> Iterator[str]:
    """Add or change a supplier's products; yield a line of report for each line of the file.

    A product of the same SKU is changed. A wrong line is left out, and the others are not.

    Raises:
        NoList: the file cannot be read, or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from _import(connection, file, supplier_id)
    except (OSError, UnicodeDecodeError, csv.Error) as failure:
        raise NoList(f"the file cannot be read as CSV in UTF-8: {failure}") from failure


def _import(connection: Connection, file: TextIO, supplier_id: int) -> Iterator[str]:
    first = file.readline()
    file.seek(0)
    if first.startswith("\ufeff"):
        file.read(1)
    rows = csv.DictReader(file, delimiter=";" if first.count(";") > first.count(",") else ",")
    names = [name.strip().lower().lstrip("\ufeff") for name in rows.fieldnames or ()]
    rows.fieldnames = names
    missing = [
        name for name in ("name", "price", "stock_quantity", "category") if name not in names
    ]
    if missing:
        raise NoList(f"the first line names no column {', '.join(missing)}")
    for count, row in enumerate(rows, 1):
        if count > MAX_LINES:
            raise NoList(f"more than {MAX_LINES} lines; split the file")
        yield f"line {rows.line_num}: {_line(connection, row, supplier_id)}"


def _line(connection: Connection, row: dict[str, Any], supplier_id: int) -> str:
    try:
        product = ProductBody.model_validate(_values(row))
    except (ValidationError, ValueError) as wrong:
        if isinstance(wrong, ValidationError):
            error = wrong.errors()[0]
            return f"left out: {'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
        return f"left out: {wrong}"
    values = product.model_dump()
    columns = search_columns(values)
    add_words(connection, words_in(columns))
    known = None
    if columns["sku_key"]:
        mine = select(products.c.id).where(
            products.c.supplier_id == supplier_id,
            products.c.sku_key == columns["sku_key"],
            products.c.deleted_at.is_(None),
        )
        known = connection.scalar(mine)
    if known is not None:
        changed = {"version": products.c.version + 1, "updated_at": now()}
        connection.execute(
            update(products).where(products.c.id == known).values({**values, **columns, **changed})
        )
        return f"changed product {known}"
    made = connection.execute(
        insert(products)
        .values(**values, **columns, supplier_id=supplier_id, version=1)
        .returning(products.c.id)
    )
    return f"added product {made.scalar_one()}"


def _values(row: dict[str, Any]) -> dict[str, Any]:
    if None in row:
        raise ValueError("more fields than columns; put a text with commas into quotes")
    found: dict[str, Any] = {}
    for name in COLUMNS:
        text = (row.get(name) or "").strip()
        if not text:
            continue
        if name == "tags":
            found[name] = [tag.strip() for tag in text.replace("|", ";").split(";") if tag.strip()]
        elif name in _NUMBERS:
            found[name] = _whole(name, text)
        else:
            found[name] = text.lower() if name == "condition" else text
    return found


def _whole(name: str, text: str) -> int:
    """Return the number of `9850000`, `9.850.000` or `Rp 9.850.000`."""
    plain = text.lower().removeprefix("rp").strip(" .")
    groups = plain.split(".")
    if len(groups) > 1 and groups[0].isdigit() and all(len(g) == 3 for g in groups[1:]):
        plain = "".join(groups)
    if not (plain.isascii() and plain.isdigit()) or len(plain) > 18:
        raise ValueError(f"{name}: write a whole number, as in 9850000")
    return int(plain)
