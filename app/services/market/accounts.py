"""Accounts: who somebody is, and the sign-ins that prove it.

A sign-in is a family of refresh tokens of which only the newest works: a used one that comes again
was stolen, by whoever sends it now or before, so the family ends. An access token works while its
sign-in lives.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core.errors import Conflict, InvalidInput, NotFound, Overloaded, Unauthorized
from app.core.passwords import checked_password, hash_password, is_password
from app.core.rates import Rates
from app.db.database import Database
from app.db.tables import now, products, sign_ins, suppliers, users
from app.schemas.market import RegisterBody, UserAnswer
from app.services.market.tokens import Tokens, invalid_token

# A hash takes 19 MiB and a processor: so many at once, and so many that wait.
_HASHES_AT_ONCE, _HASHES_WAITING = 2, 64
# An address may be many people's.
_ADDRESS_FACTOR = 6
Result = TypeVar("Result")
Role = Literal["user", "supplier", "admin"]


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who a request comes from. `sign_in`: by which sign-in."""

    id: int
    email: str
    name: str
    role: Role
    ai_access_enabled: bool
    lat: float | None
    lng: float | None
    sign_in: str = ""

    def answer(self) -> UserAnswer:
        """Return what its owner sees."""
        return UserAnswer(
            id=self.id, email=self.email, name=self.name, role=self.role,
            ai_access_enabled=self.ai_access_enabled, lat=self.lat, lng=self.lng,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a sign-in gives."""

    user: User
    access_token: str
    refresh_token: str


class Accounts:
    """Registers people, signs them in and out. `login_rate`: for one account, such as 10/minute."""

    def __init__(
        self, database: Database, tokens: Tokens, *, refresh_days: int, login_rate: str
    ) -> None:
        self._database = database
        self.tokens = tokens
        self._lives = timedelta(days=refresh_days)
        self.lives_s = int(self._lives.total_seconds())
        amount, _, per = login_rate.partition("/")
        self._by_account = Rates(login_rate)
        self._by_address = Rates(f"{int(amount) * _ADDRESS_FACTOR}/{per}")
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._waiting = 0

    async def register(self, body: RegisterBody, *, address: str) -> SignedIn:
        """Make an account.

        Raises:
            InvalidInput: the password is too weak. Conflict: the e-mail has an account.
        """
        if (body.lat is None) != (body.lng is None):
            raise InvalidInput("send both lat and lng, or none of them")
        try:
            checked_password(body.password, email=body.email)
        except ValueError as weak:
            raise InvalidInput(f"password: {weak}", code="weak_password") from None
        async with self._database.read() as connection:
            taken = await connection.scalar(select(users.c.id).where(users.c.email == body.email))
        if taken is not None:
            # Who has an account here is not to be found out without limit.
            await self._by_address.count(f"taken {address}")
            raise _taken()
        password_hash = await self._hashed(lambda: hash_password(body.password))
        values = {
            "email": body.email, "name": body.name, "password_hash": password_hash,
            "lat": body.lat, "lng": body.lng,
        }  # fmt: skip
        try:
            async with self._database.write() as connection:
                made = await connection.execute(insert(users).values(values).returning(users))
                return await self._sign_in(connection, _user(made.one()))
        except IntegrityError:
            raise _taken() from None

    async def login(self, email: str, password: str, *, address: str) -> SignedIn:
        """Sign somebody in; an unknown e-mail and a wrong password are the same, and as slow.

        Raises:
            Unauthorized: it is not the password. Overloaded: too many tries.
        """
        email = email.strip().lower()
        account = hashlib.sha256(email.encode("utf-8", "replace")).hexdigest()
        await self._by_address.count(address)
        await self._by_account.count(account)
        async with self._database.read() as connection:
            row = (await connection.execute(select(users).where(users.c.email == email))).first()
        known = row.password_hash if row is not None else None
        right = await self._hashed(lambda: is_password(password, known))
        if row is None or not right:
            raise Unauthorized(
                "the e-mail or the password is not right", code="invalid_credentials"
            )
        await self._by_account.forget(account)
        async with self._database.write() as connection:
            return await self._sign_in(connection, _user(row))

    async def refresh(self, refresh_token: str) -> SignedIn:
        """Return new tokens for a refresh token, once.

        Raises:
            Unauthorized: it is unknown, has run out, or was used before: then its family ends.
        """
        family, _, secret = refresh_token.partition(".")
        new = secrets.token_urlsafe(32)
        mine = sign_ins.c.family == family[:43]
        async with self._database.write() as connection:
            renewed = await connection.execute(
                update(sign_ins)
                .where(mine, sign_ins.c.token_hash == _hash(secret), sign_ins.c.expires_at > now())
                .values(token_hash=_hash(new), expires_at=now() + self._lives)
                .returning(sign_ins.c.id, sign_ins.c.user_id)
            )
            row = renewed.first()
            if row is None:
                await connection.execute(delete(sign_ins).where(mine))
            else:
                owner = await connection.execute(select(users).where(users.c.id == row.user_id))
                user = _user(owner.one(), row.id)
                access = self.tokens.access(user.id, row.id)
                return SignedIn(user, access, f"{family}.{new}")
        raise Unauthorized(
            "the refresh token is not valid, has run out or was used before; sign in again",
            code="invalid_refresh_token",
        )

    async def user_of(self, access_token: str) -> User:
        """Return who an access token signs in.

        Raises:
            Unauthorized: nobody.
        """
        claims = self.tokens.read(access_token)
        query = (
            select(users)
            .join(sign_ins, sign_ins.c.user_id == users.c.id)
            .where(users.c.id == claims.user_id, sign_ins.c.id == claims.sign_in)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise invalid_token()
        return _user(row, claims.sign_in)

    async def logout(self, user: User) -> None:
        """End the sign-in that a request came with."""
        async with self._database.write() as connection:
            await connection.execute(delete(sign_ins).where(sign_ins.c.id == user.sign_in))

    async def delete(self, user: User) -> None:
        """Erase an account with its conversations; what it sold is no longer there."""
        async with self._database.write() as connection:
            mine = select(suppliers.c.id).where(suppliers.c.user_id == user.id)
            gone = {"deleted_at": now()}
            await connection.execute(
                update(products).where(products.c.supplier_id.in_(mine)).values(gone)
            )
            await connection.execute(
                update(suppliers)
                .where(suppliers.c.user_id == user.id)
                .values(gone | {"name": "", "contact": "", "address": "", "user_id": None})
            )
            await connection.execute(delete(users).where(users.c.id == user.id))

    async def decide(
        self, user_id: int, *, ai_access_enabled: bool | None, role: Role | None
    ) -> User:
        """Change what somebody may do.

        Raises:
            NotFound: there is no such account.
        """
        given = {"ai_access_enabled": ai_access_enabled, "role": role}
        values = {name: value for name, value in given.items() if value is not None}
        mine = users.c.id == user_id
        async with self._database.write() as connection:
            if values:
                await connection.execute(update(users).where(mine).values(values))
            row = (await connection.execute(select(users).where(mine))).first()
        if row is None:
            raise NotFound("there is no such account")
        return _user(row)

    async def _sign_in(self, connection: AsyncConnection, user: User) -> SignedIn:
        sign_in, family = secrets.token_hex(16), secrets.token_urlsafe(32)
        secret = secrets.token_urlsafe(32)
        await connection.execute(
            delete(sign_ins).where(sign_ins.c.user_id == user.id, sign_ins.c.expires_at <= now())
        )
        await connection.execute(
            insert(sign_ins).values(
                id=sign_in,
                user_id=user.id,
                family=family,
                token_hash=_hash(secret),
                expires_at=now() + self._lives,
            )
        )
        return SignedIn(user, self.tokens.access(user.id, sign_in), f"{family}.{secret}")

    async def _hashed(self, work: Callable[[], Result]) -> Result:
        """Run what costs a processor, in a thread."""
        if self._waiting >= _HASHES_WAITING:
            raise Overloaded("too many sign in at once; try again in a moment", retry_after_s=2)
        self._waiting += 1
        try:
            async with self._hashing:
                running: Awaitable[Result] = asyncio.to_thread(work)
                return await running
        finally:
            self._waiting -= 1


def _user(row: Any, sign_in: str = "") -> User:
    return User(
        id=row.id, email=row.email, name=row.name, role=row.role,
        ai_access_enabled=row.ai_access_enabled, lat=row.lat, lng=row.lng, sign_in=sign_in,
    )  # fmt: skip


def _hash(secret: str) -> str:
    # A secret of 256 random bits needs no slow hash.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _taken() -> Conflict:
    return Conflict("that e-mail has an account; sign in", code="email_taken")
