"""The tables of S4.28, those of accounts, and full text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UTC = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Go on to this version."""
    _accounts()
    _suppliers()
    _products()
    _conversations()
    if op.get_bind().dialect.name == "sqlite":
        for statement in _FTS5:
            op.execute(statement)
    else:
        for statement in _TSVECTOR:
            op.execute(statement)


def downgrade() -> None:
    """Go back from it."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE products_fts")
    for table in (
        "messages", "conversations", "products", "search_words", "suppliers", "sign_ins", "users",
    ):  # fmt: skip
        op.drop_table(table)


def _accounts() -> None:
    op.create_table(
        "users",
        sa.Column("id", ID, nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), server_default="user", nullable=False),
        sa.Column("ai_access_enabled", sa.Boolean(), server_default="1", nullable=False),
        sa.Column("preferences", sa.JSON(), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("lat", sa.Float(precision=53)),
        sa.Column("lng", sa.Float(precision=53)),
        sa.CheckConstraint("role IN ('user', 'supplier', 'admin')", name="ck_users_role"),
        sa.CheckConstraint("lat >= -90 AND lat <= 90", name="ck_users_lat"),
        sa.CheckConstraint("lng >= -180 AND lng <= 180", name="ck_users_lng"),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
    )
    op.create_index("uq_users_email", "users", [sa.text("lower(email)")], unique=True)
    op.create_table(
        "sign_ins",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("family", sa.String(length=43), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("expires_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_sign_ins_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_sign_ins"),
        sa.UniqueConstraint("family", name="uq_sign_ins_family"),
    )
    op.create_index("ix_sign_ins_user_id", "sign_ins", ["user_id"])


def _suppliers() -> None:
    op.create_table(
        "suppliers",
        sa.Column("id", ID, nullable=False),
        sa.Column("user_id", ID),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("business_name", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=500), nullable=False),
        sa.Column("contact", sa.String(length=200), nullable=False),
        sa.Column("registration_date", UTC, nullable=False),
        sa.Column("deleted_at", UTC),
        sa.Column("x", sa.Float(precision=53), nullable=False),
        sa.Column("y", sa.Float(precision=53), nullable=False),
        sa.Column("z", sa.Float(precision=53), nullable=False),
        sa.Column("island", sa.String(length=32), nullable=False),
        sa.Column("lat", sa.Float(precision=53), nullable=False),
        sa.Column("lng", sa.Float(precision=53), nullable=False),
        sa.CheckConstraint("lat >= -90 AND lat <= 90", name="ck_suppliers_lat"),
        sa.CheckConstraint("lng >= -180 AND lng <= 180", name="ck_suppliers_lng"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_suppliers_user_id", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_suppliers"),
        sa.UniqueConstraint("user_id", name="uq_suppliers_user_id"),
    )
    op.create_index("ix_suppliers_place", "suppliers", ["lat", "lng"])
    op.create_table(
        "search_words",
        sa.Column("id", ID, nullable=False),
        sa.Column("word", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_search_words"),
        sa.UniqueConstraint("word", name="uq_search_words_word"),
    )


def _products() -> None:
    op.create_table(
        "products",
        sa.Column("id", ID, nullable=False),
        sa.Column("supplier_id", ID, nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("price", sa.BigInteger(), nullable=False),
        sa.Column("stock_quantity", sa.BigInteger(), nullable=False),
        sa.Column("category", sa.String(length=100), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("sku", sa.String(length=64)),
        sa.Column("condition", sa.String(length=8), server_default="new", nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.Column("deleted_at", UTC),
        sa.Column("sku_key", sa.String(length=64)),
        sa.Column("category_key", sa.String(length=100), nullable=False),
        sa.Column("identity", sa.BigInteger(), nullable=False),
        sa.Column("search_name", sa.Text(), nullable=False),
        sa.Column("search_tags", sa.Text(), nullable=False),
        sa.Column("search_text", sa.Text(), nullable=False),
        sa.CheckConstraint("condition IN ('new', 'used')", name="ck_products_condition"),
        sa.CheckConstraint("price > 0", name="ck_products_price"),
        sa.CheckConstraint("stock_quantity >= 0", name="ck_products_stock_quantity"),
        sa.ForeignKeyConstraint(["supplier_id"], ["suppliers.id"], name="fk_products_supplier_id"),
        sa.PrimaryKeyConstraint("id", name="pk_products"),
    )
    op.create_index("ix_products_category", "products", ["category_key", "price"])
    op.create_index("ix_products_identity", "products", ["identity"])
    op.create_index("ix_products_supplier_id", "products", ["supplier_id", "id"])
    op.create_index(
        "uq_products_sku",
        "products",
        ["supplier_id", "sku_key"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )


def _conversations() -> None:
    op.create_table(
        "conversations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("session_id", sa.String(length=64)),
        sa.Column("title", sa.String(length=200), server_default="", nullable=False),
        sa.Column("created_at", UTC, nullable=False),
        sa.Column("updated_at", UTC, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_conversations_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
    )
    op.create_index("ix_conversations_user_id", "conversations", ["user_id", "updated_at"])
    op.create_table(
        "messages",
        sa.Column("id", ID, nullable=False),
        sa.Column("conversation_id", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("interpretation", sa.JSON()),
        sa.Column("hits", sa.Integer()),
        sa.Column("timestamp", UTC, nullable=False),
        sa.CheckConstraint("role IN ('user', 'assistant', 'system')", name="ck_messages_role"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_messages_conversation_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
    )
    op.create_index("ix_messages_conversation_id", "messages", ["conversation_id"])
    op.create_index("ix_messages_timestamp", "messages", ["timestamp"])


# The index holds no text of its own; triggers keep it to the rows.
_FTS5 = (
    "CREATE VIRTUAL TABLE products_fts USING fts5(search_name, search_tags, search_text, "
    "content='products', content_rowid='id', tokenize='unicode61')",
    "CREATE TRIGGER products_fts_insert AFTER INSERT ON products BEGIN "
    "INSERT INTO products_fts(rowid, search_name, search_tags, search_text) "
    "VALUES (new.id, new.search_name, new.search_tags, new.search_text); END",
    "CREATE TRIGGER products_fts_delete AFTER DELETE ON products BEGIN "
    "INSERT INTO products_fts(products_fts, rowid, search_name, search_tags, search_text) "
    "VALUES ('delete', old.id, old.search_name, old.search_tags, old.search_text); END",
    "CREATE TRIGGER products_fts_update AFTER UPDATE OF search_name, search_tags, search_text "
    "ON products BEGIN "
    "INSERT INTO products_fts(products_fts, rowid, search_name, search_tags, search_text) "
    "VALUES ('delete', old.id, old.search_name, old.search_tags, old.search_text); "
    "INSERT INTO products_fts(rowid, search_name, search_tags, search_text) "
    "VALUES (new.id, new.search_name, new.search_tags, new.search_text); END",
)
_TSVECTOR = (
    "CREATE EXTENSION IF NOT EXISTS pg_trgm",
    "ALTER TABLE products ADD COLUMN search tsvector GENERATED ALWAYS AS ("
    "setweight(to_tsvector('simple', search_name), 'A') || "
    "setweight(to_tsvector('simple', search_tags), 'B') || "
    "setweight(to_tsvector('simple', search_text), 'D')) STORED",
    "CREATE INDEX ix_products_search ON products USING gin (search)",
    "CREATE INDEX ix_search_words_trgm ON search_words USING gin (word gin_trgm_ops)",
)
