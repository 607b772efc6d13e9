"""`python -m app.db`: what an operator does to the marketplace's database."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from app.core.config import Settings
from app.core.passwords import hash_password
from app.core.signing_keys import rotate
from app.db.database import sync_engine, url_of
from app.db.demonstration.seed import counts, seed
from app.db.migrate import NotMigrated, migrate
from app.db.rows import add_words, search_columns, words_in
from app.db.supplier_list import NoList, import_file
from app.db.tables import products, suppliers, users
from app.schemas.market import RegisterBody


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the status of the process."""
    given = _parser().parse_args(arguments)
    try:
        settings = Settings()
    except ValidationError as wrong:
        problem = wrong.errors()[0]
        return _failed(f"{str(problem['loc'][0]).upper()}: {problem['msg']}")
    if given.command == "rotate-key":
        _say(f"new key {rotate(Path(settings.data_dir))}; the two before it still verify")
        return 0
    url = url_of(settings.database_url, settings.data_dir)
    try:
        migrate(url)
        if given.command == "migrate":
            _say("the tables are those of this version")
            return 0
        engine = sync_engine(url)
        try:
            with engine.connect() as connection:
                connection = connection.execution_options(begin="IMMEDIATE")
                with connection.begin():
                    return _run(connection, given)
        finally:
            engine.dispose()
    except (NotMigrated, NoList) as problem:
        return _failed(str(problem))
    except SQLAlchemyError as failure:
        # Its text may hold the address, which may hold a password.
        return _failed(f"the database did not answer as it should ({type(failure).__name__})")


def _run(connection: Connection, given: argparse.Namespace) -> int:
    if given.command == "seed":
        new_suppliers, new_products = seed(connection)
        all_suppliers, all_products = counts(connection)
        _say(
            f"{new_suppliers} suppliers and {new_products} products added; "
            f"there are {all_suppliers} and {all_products}"
        )
        return 0
    if given.command == "admin":
        return _admin(connection, given.email)
    if given.command == "reindex":
        return _reindex(connection)
    supplier_id = _supplier(connection, given.supplier)
    if supplier_id is None:
        return _failed("--supplier: no supplier of that id or e-mail; register it first")
    wrong = 0
    for line in import_file(connection, given.file, supplier_id):
        wrong += ": left out: " in line
        _say(line)
    return 1 if wrong else 0


def _admin(connection: Connection, email: str) -> int:
    mine = func.lower(users.c.email) == email.strip().lower()
    if connection.execute(update(users).where(mine).values(role="admin")).rowcount:
        _say(f"{email} is an admin now")
        return 0
    password = secrets.token_urlsafe(12)
    try:
        body = RegisterBody(email=email, password=password, name=email.partition("@")[0])
    except ValidationError as wrong:
        return _failed(f"EMAIL: {wrong.errors()[0]['msg']}")
    connection.execute(
        insert(users).values(
            email=body.email, name=body.name, password_hash=hash_password(password), role="admin"
        )
    )
    _say(f"{body.email} is a new account and an admin; its password is {password}")
    return 0


def _reindex(connection: Connection) -> int:
    """Make anew what is searched: after a change of the synonyms or of the stemmer."""
    rows = connection.execute(select(products).order_by(products.c.id)).all()
    words: set[str] = set()
    for row in rows:
        columns = search_columns(row._asdict())
        words |= words_in(columns)
        connection.execute(update(products).where(products.c.id == row.id).values(columns))
    add_words(connection, words)
    _say(f"{len(rows)} products indexed")
    return 0


def _supplier(connection: Connection, named: str | None) -> int | None:
    """Return a supplier by its id or its owner's e-mail; without a name, the only one there is."""
    there = select(suppliers.c.id).where(suppliers.c.deleted_at.is_(None))
    if named is None:
        found = connection.scalars(there.limit(2)).all()
        return found[0] if len(found) == 1 else None
    if named.isdigit():
        return connection.scalar(there.where(suppliers.c.id == int(named)))
    owner = there.join(users, users.c.id == suppliers.c.user_id)
    return connection.scalar(owner.where(func.lower(users.c.email) == named.strip().lower()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.db", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("migrate", help="bring the tables to those of this version")
    commands.add_parser("seed", help="load a demonstration: 48 suppliers in 8 cities")
    admin = commands.add_parser("admin", help="make an account an admin, or a new one")
    admin.add_argument("email", metavar="EMAIL")
    listed = commands.add_parser("import", help="load a supplier's list, with a report")
    listed.add_argument("file", metavar="FILE.csv", type=Path)
    listed.add_argument("--supplier", help="its id, or its owner's e-mail")
    commands.add_parser("reindex", help="make anew what is searched")
    commands.add_parser("rotate-key", help="sign access tokens with a new key from now on")
    return parser


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _failed(problem: str) -> int:
    sys.stderr.write(f"{problem}\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
