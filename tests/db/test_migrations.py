"""The tables as the migrations make them, on both databases (S4.28)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from app.core.database_url import database_url
from app.db.database import sync_engine
from app.db.migrate import NotMigrated, migrate
from app.db.tables import metadata
from tests.postgresql_server import postgresql_server, postgresql_url  # noqa: F401


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'market.db'}"
    return database_url(request.getfixturevalue("postgresql_url"))


def tables(url: str) -> set[str]:
    engine = sync_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def test_migrations_make_what_the_code_declares(url: str) -> None:
    """S4.28: no table, column or index differs from `app/db/tables.py`."""
    migrate(url)
    engine = sync_engine(url)
    own = {*metadata.tables}
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_name": lambda name, kind, _: kind != "table" or name in own,
                "include_object": lambda item, name, kind, *_: (
                    name not in ("search", "ix_products_search", "ix_search_words_trgm")
                ),
            },
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_migrations_go_up_down_and_up_again(url: str) -> None:
    migrate(url)
    assert {"users", "suppliers", "products", "conversations", "messages"} <= tables(url)
    migrate(url, "base")
    assert tables(url) <= {"alembic_version"}
    migrate(url)
    assert "products" in tables(url)


def test_processes_that_start_at_once_migrate_once(url: str) -> None:
    """Issue 18: under a lock; whoever comes second finds it done."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            migrate(url)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert "products" in tables(url)


def test_what_may_not_be_changed_is_refused_and_left_alone(url: str) -> None:
    """MIGRATE=false."""
    with pytest.raises(NotMigrated, match="MIGRATE=true"):
        migrate(url, allowed=False)
    assert tables(url) == set()
    migrate(url)
    migrate(url, allowed=False)


@pytest.mark.parametrize(
    "broken",
    [
        {"price": 0},
        {"stock_quantity": -1},
        {"condition": "broken"},
        {"supplier_id": 99},
        {"lat": 90.5},
        {"lng": -181},
        {"email": "A@X.EXAMPLE"},
    ],
    ids=lambda broken: next(iter(broken)),
)
def test_the_schema_itself_refuses_what_is_wrong(url: str, broken: dict[str, object]) -> None:
    """Issue 18: constraints in the schema, not only in the code."""
    migrate(url)
    good = {
        "id": 2, "email": "b@x.example", "supplier_id": 1, "price": 1, "stock_quantity": 0,
        "condition": "new", "lat": 1.0, "lng": 2.0,
    }  # fmt: skip
    user = (
        "INSERT INTO users (id, email, name, password_hash, preferences, created_at, lat, lng) "
        "VALUES (:id, :email, 'n', 'h', '{}', '2026-01-01 00:00:00', :lat, :lng)"
    )
    supplier = (
        "INSERT INTO suppliers (id, name, business_name, address, contact, registration_date, "
        "x, y, z, island, lat, lng) VALUES (:id, 'n', 'n', 'a', 'c', '2026-01-01 00:00:00', "
        "0, 0, 0, '', 0, 0)"
    )
    product = (
        "INSERT INTO products (id, supplier_id, name, price, stock_quantity, category, tags, "
        "condition, created_at, updated_at, category_key, identity, search_name, search_tags, "
        "search_text) VALUES (:id, :supplier_id, 'n', :price, :stock_quantity, 'c', '[]', "
        ":condition, '2026-01-01 00:00:00', '2026-01-01 00:00:00', 'c', 1, 'n', '', '')"
    )
    engine = sync_engine(url)

    def write(values: dict[str, object]) -> None:
        with engine.begin() as connection:
            for statement in (user, supplier, product):
                connection.execute(text(statement), values)

    try:
        write({**good, "id": 1, "email": "a@x.example"})
        with pytest.raises(IntegrityError):
            write({**good, **broken})
        write(good)
    finally:
        engine.dispose()
