"""Who asks, and what all endpoints of the marketplace have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, Path, Query
from pydantic import AfterValidator
from starlette.requests import Request

from app.api.deps import ServicesDep
from app.api.docs.openapi import ACCESS_TOKEN, Responses, error_responses
from app.core.errors import Forbidden, Unauthorized
from app.schemas.market import MAX_ID
from app.services.market.market import Parts

if TYPE_CHECKING:
    from app.services.market.accounts import User
else:
    # FastAPI reads annotations; the class itself would load the database's libraries.
    User = Any

NeedsRole = Literal["user", "supplier", "admin"]

_TEXTS = {
    400: "`bad_request`: the body is no JSON",
    401: "`unauthorized`, `invalid_token`, `token_expired`: an access token is needed",
    403: "`forbidden`, `not_a_supplier`, `not_yours`: this account may not do that",
    404: "`not_found`: there is nothing of that id",
    409: "`stale_version` (with `current`, what is there now), `duplicate_sku`, "
    "`already_a_supplier`, `email_taken`",
    422: "`validation_error`, `invalid_input`, `invalid_cursor`: `detail` names the field",
    429: "`rate_limited`, `overloaded`: too often, or too many at once; see Retry-After",
    503: "`database_unavailable`, `database_not_migrated`: see Retry-After",
}


async def parts_of(services: ServicesDep) -> Parts:
    """Return the opened marketplace."""
    return await services.market.parts()


PartsDep = Annotated[Parts, Depends(parts_of)]


async def user_of(request: Request, parts: PartsDep) -> User:
    """Return who is signed in.

    Raises:
        Unauthorized: nobody.
    """
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized(
            "sign in with POST /api/auth/login and send 'Authorization: Bearer <access_token>'"
        )
    return await parts.accounts.user_of(token.strip())


UserDep = Annotated[User, Depends(user_of)]


async def admin_of(user: UserDep) -> User:
    """Return the admin who is signed in.

    Raises:
        Forbidden: somebody else is.
    """
    if user.role != "admin":
        raise Forbidden("only an admin may do that")
    return user


AdminDep = Annotated[User, Depends(admin_of)]


def address_of(request: Request) -> str:
    """Return where a request comes from."""
    return request.client.host if request.client else "unknown"


def market_errors(*statuses: int) -> Responses:
    """Return the described errors of an endpoint, beside those that all have."""
    every = sorted({400, 422, 429, 503, *statuses})
    return error_responses(*every, **{f"status_{status}": _TEXTS[status] for status in every})


def signed_in(role: NeedsRole) -> dict[str, Any]:
    """Return what an operation that needs an access token adds to its description."""
    return {"security": [{ACCESS_TOKEN: []}], "x-role": role}


def _is_sendable(value: str) -> str:
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("leave out control characters")
    return value


Words = AfterValidator(_is_sendable)
ItemId = Annotated[int, Path(ge=1, le=MAX_ID, openapi_examples={"first": {"value": 1}})]
Limit = Annotated[int, Query(ge=1, le=100, description="How many items a page has at most")]
Cursor = Annotated[
    str | None,
    Query(max_length=500, description="`next_cursor` of the page before, with the same filters"),
    Words,
]
