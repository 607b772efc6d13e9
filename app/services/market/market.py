"""The marketplace as one part of the application: opened when it is first needed.

Importing this loads no database library: a server that nobody uses as a marketplace pays nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from app.core.errors import DatabaseUnavailable
from app.core.signing_keys import SigningKeys

if TYPE_CHECKING:
    from app.db.database import Database
    from app.services.market.accounts import Accounts
    from app.services.market.catalogue import Catalogue
    from app.services.market.conversations import Conversations
    from app.services.market.search import Search

log = structlog.get_logger(__name__)

# A database that could not be opened is left alone for a while.
_RETRY_S = 3.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the endpoints call."""

    database: Database
    accounts: Accounts
    catalogue: Catalogue
    search: Search
    conversations: Conversations


class Market:
    """Opens the database once, migrates it where that is allowed, and tells how it is."""

    def __init__(
        self,
        *,
        data_dir: str,
        database_url: str | None,
        migrate: bool,
        jwt_keys: Sequence[str],
        access_token_s: int,
        refresh_days: int,
        login_rate: str,
    ) -> None:
        self._folder = Path(data_dir)
        self._database_url = database_url
        self._migrate = migrate
        self._keys = SigningKeys(jwt_keys, self._folder)
        self._access_token_s = access_token_s
        self._refresh_days = refresh_days
        self._login_rate = login_rate
        self._parts: Parts | None = None
        self._problem: DatabaseUnavailable | None = None
        self._retry_at_s = 0.0
        self._opening = asyncio.Lock()

    async def parts(self) -> Parts:
        """Return the parts.

        Raises:
            DatabaseUnavailable: the database cannot be opened; the next call but a few tries again.
        """
        if self._parts is None:
            async with self._opening:
                if self._parts is None:
                    self._parts = await self._open()
        return self._parts

    def is_there(self) -> bool:
        """Say whether there is a database already, so that it is to be opened at the start."""
        return self._database_url is not None or (self._folder / "market.db").exists()

    def info(self) -> dict[str, Any]:
        """Return how the database is, as far as it is known."""
        if self._parts is not None:
            return {"state": "ready", "error": None}
        if self._problem is not None:
            return {"state": "unavailable", "error": self._problem.message}
        return {"state": "closed", "error": None}

    async def aclose(self) -> None:
        """Close the connections."""
        if self._parts is not None:
            await self._parts.database.aclose()
            self._parts = None

    async def _open(self) -> Parts:
        if self._problem is not None and time.monotonic() < self._retry_at_s:
            raise self._problem.copy()
        try:
            parts = await asyncio.to_thread(self._opened)
        except Exception as failure:
            self._retry_at_s = time.monotonic() + _RETRY_S
            self._problem = _problem_of(failure)
            log.warning("market_unavailable", error=type(failure).__name__)
            raise self._problem.copy() from failure
        self._problem = None
        return parts

    def _opened(self) -> Parts:
        # Here, not above: these import SQLAlchemy.
        from app.db.database import Database, url_of
        from app.db.migrate import migrate
        from app.services.market.accounts import Accounts
        from app.services.market.catalogue import Catalogue
        from app.services.market.conversations import Conversations
        from app.services.market.cursors import Cursors
        from app.services.market.search import Search
        from app.services.market.tokens import Tokens

        url = url_of(self._database_url, str(self._folder))
        migrate(url, allowed=self._migrate)
        _, secret = self._keys.signing()
        database = Database(url)
        cursors = Cursors(lambda: secret)
        return Parts(
            database,
            Accounts(
                database,
                Tokens(self._keys, lives_s=self._access_token_s),
                refresh_days=self._refresh_days,
                login_rate=self._login_rate,
            ),
            Catalogue(database, cursors),
            Search(database, cursors),
            Conversations(database, cursors),
        )


def _problem_of(failure: Exception) -> DatabaseUnavailable:
    from app.db.migrate import NotMigrated

    if isinstance(failure, NotMigrated):
        return DatabaseUnavailable(str(failure), code="database_not_migrated")
    # What a driver says may hold the address, which may hold a password.
    return DatabaseUnavailable(
        "the marketplace's database cannot be opened: check DATABASE_URL, or that DATA_DIR can be "
        "written"
    )
