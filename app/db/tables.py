"""The marketplace's tables (S4.28), on SQLite and on PostgreSQL.

What only one of the two has (full text) is in the migrations; a change here needs a new one there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    func,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers its rows by INTEGER only.
Id = BigInteger().with_variant(Integer, "sqlite")


class Utc(TypeDecorator[datetime]):
    """A time of UTC; SQLite keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def _coordinates(required: bool) -> tuple[Any, ...]:
    return (
        Column("lat", Float(53), nullable=not required),
        Column("lng", Float(53), nullable=not required),
        CheckConstraint("lat >= -90 AND lat <= 90", name="lat"),
        CheckConstraint("lng >= -180 AND lng <= 180", name="lng"),
    )


users = Table(
    "users",
    metadata,
    Column("id", Id, primary_key=True),
    Column("email", String(254), nullable=False),
    Column("name", String(200), nullable=False),
    Column("password_hash", String(255), nullable=False),
    Column("role", String(16), nullable=False, server_default="user"),
    Column("ai_access_enabled", Boolean, nullable=False, server_default="1"),
    Column("preferences", JSON, nullable=False, default=dict),
    Column("created_at", Utc, nullable=False, default=now),
    CheckConstraint("role IN ('user', 'supplier', 'admin')", name="role"),
    *_coordinates(required=False),
)
Index("uq_users_email", func.lower(users.c.email), unique=True)

sign_ins = Table(
    # One row for each time that somebody signed in: the family of its refresh tokens.
    "sign_ins",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("family", String(43), nullable=False, unique=True),
    Column("token_hash", String(64), nullable=False),
    Column("created_at", Utc, nullable=False, default=now),
    Column("expires_at", Utc, nullable=False),
)

suppliers = Table(
    "suppliers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="SET NULL"), unique=True),
    Column("name", String(200), nullable=False),
    Column("business_name", String(200), nullable=False),
    Column("address", String(500), nullable=False),
    Column("contact", String(200), nullable=False),
    Column("registration_date", Utc, nullable=False, default=now),
    Column("deleted_at", Utc),
    # The place on the unit sphere and its island, see geography.py.
    Column("x", Float(53), nullable=False),
    Column("y", Float(53), nullable=False),
    Column("z", Float(53), nullable=False),
    Column("island", String(32), nullable=False),
    *_coordinates(required=True),
)
Index("ix_suppliers_place", suppliers.c.lat, suppliers.c.lng)

products = Table(
    "products",
    metadata,
    Column("id", Id, primary_key=True),
    Column("supplier_id", ForeignKey("suppliers.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("price", BigInteger, nullable=False),
    Column("stock_quantity", BigInteger, nullable=False),
    Column("category", String(100), nullable=False),
    Column("tags", JSON, nullable=False, default=list),
    Column("sku", String(64)),
    Column("condition", String(8), nullable=False, server_default="new"),
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("created_at", Utc, nullable=False, default=now),
    Column("updated_at", Utc, nullable=False, default=now),
    Column("deleted_at", Utc),
    # What is compared and searched, made from the above by rows.py.
    Column("sku_key", String(64)),
    Column("category_key", String(100), nullable=False),
    Column("identity", BigInteger, nullable=False),
    Column("search_name", Text, nullable=False),
    Column("search_tags", Text, nullable=False),
    Column("search_text", Text, nullable=False),
    CheckConstraint("price > 0", name="price"),
    CheckConstraint("stock_quantity >= 0", name="stock_quantity"),
    CheckConstraint("condition IN ('new', 'used')", name="condition"),
)
_there = products.c.deleted_at.is_(None)
Index(
    "uq_products_sku",
    products.c.supplier_id,
    products.c.sku_key,
    unique=True,
    sqlite_where=_there,
    postgresql_where=_there,
)
Index("ix_products_supplier_id", products.c.supplier_id, products.c.id)
Index("ix_products_identity", products.c.identity)
Index("ix_products_category", products.c.category_key, products.c.price)

search_words = Table(
    # Every word that a product ever had: what a mistyped word is compared with.
    "search_words",
    metadata,
    Column("id", Id, primary_key=True),
    Column("word", String(40), nullable=False, unique=True),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("session_id", String(64)),
    Column("title", String(200), nullable=False, server_default=""),
    Column("created_at", Utc, nullable=False, default=now),
    Column("updated_at", Utc, nullable=False, default=now),
)
Index("ix_conversations_user_id", conversations.c.user_id, conversations.c.updated_at)

messages = Table(
    "messages",
    metadata,
    Column("id", Id, primary_key=True),
    Column(
        "conversation_id",
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("role", String(16), nullable=False),
    Column("content", Text, nullable=False),
    # Of a user's message: how it was understood, and how many goods it found.
    Column("interpretation", JSON),
    Column("hits", Integer),
    Column("timestamp", Utc, nullable=False, default=now, index=True),
    CheckConstraint("role IN ('user', 'assistant', 'system')", name="role"),
)
