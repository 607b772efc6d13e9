"""Brings a database to the tables of this version, one process at a time."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from app.db.database import is_sqlite, sync_engine

# Of the advisory lock on PostgreSQL; any number that nobody else takes.
_LOCK = 7_214_860_531


class NotMigrated(Exception):
    """The database has other tables than this version needs, and may not be changed."""


def head() -> str:
    """Return the newest version of the tables."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def migrate(url: str, target: str = "head", *, allowed: bool = True) -> None:
    """Bring the database to a version, or up to date; whoever comes second finds it done.

    Raises:
        NotMigrated: something is to be done, and `allowed` is false.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            connection = connection.execution_options(begin="IMMEDIATE")
            with connection.begin():
                if not is_sqlite(url):
                    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
                _migrate(connection, target, allowed=allowed)
    finally:
        engine.dispose()


def _migrate(connection: Connection, target: str, *, allowed: bool) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    if target == "head" and current == head():
        return
    if not allowed:
        raise NotMigrated(
            "the database has not the tables of this version: run `python -m app.db migrate`, or "
            "set MIGRATE=true"
        )
    config = _config()
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise NotMigrated("the database has tables of a newer version of this server")
    if target == "head":
        command.upgrade(config, target)
    else:
        command.downgrade(config, target)


def _config() -> Config:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%")
    )
    return config
