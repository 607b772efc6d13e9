"""Accounts: register, sign in, stay signed in, sign out, leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Body
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.api.docs.requests import body_examples, example
from app.api.market.deps import PartsDep, UserDep, address_of, market_errors, signed_in
from app.core.errors import Forbidden, Unauthorized
from app.schemas.market import (
    DoneAnswer,
    LoginBody,
    RefreshBody,
    RegisterBody,
    SignedInAnswer,
    UserAnswer,
)

if TYPE_CHECKING:
    from app.services.market.accounts import SignedIn
    from app.services.market.market import Parts

router = APIRouter(tags=["Accounts"])

COOKIE = "precis_refresh"
_COOKIE_PATH = "/api/auth"
_SARI = {"email": "sari@example.com", "password": "ombak pantai selatan"}


@router.post(
    "/api/auth/register",
    operation_id="register",
    status_code=201,
    response_model=SignedInAnswer,
    responses=market_errors(409),
    openapi_extra=body_examples(
        {"buyer": example("A buyer in Jakarta", **_SARI, name="Sari", lat=-6.2, lng=106.82)}
    ),
    summary="Make an account",
)
async def register(request: Request, parts: PartsDep, body: RegisterBody) -> Response:
    """The account is signed in at once. Passwords: 8 to 128 characters, none that all know.

    curl -N http://127.0.0.1:7860/api/auth/register -H 'Content-Type: application/json' -d '{"email":"sari'$RANDOM$RANDOM'@example.com","password":"ombak pantai selatan","name":"Sari"}'
    """  # noqa: E501  (a line to paste)
    made = await parts.accounts.register(body, address=address_of(request))
    return _signed_in(request, parts, made, status=201)


@router.post(
    "/api/auth/login",
    operation_id="login",
    response_model=SignedInAnswer,
    responses=market_errors(401),
    openapi_extra=body_examples({"buyer": example("The account of the first example", **_SARI)}),
    summary="Sign in",
)
async def login(request: Request, parts: PartsDep, body: LoginBody) -> Response:
    """An unknown e-mail and a wrong password are answered alike: 401 `invalid_credentials`.

    With `cookie` the refresh token comes in an HttpOnly cookie instead, for pages.

    curl -s http://127.0.0.1:7860/api/auth/register -o /dev/null -H 'Content-Type: application/json' -d '{"email":"sari@example.com","password":"ombak pantai selatan","name":"Sari"}'; curl -N http://127.0.0.1:7860/api/auth/login -H 'Content-Type: application/json' -d '{"email":"sari@example.com","password":"ombak pantai selatan"}'
    """  # noqa: E501
    made = await parts.accounts.login(body.email, body.password, address=address_of(request))
    return _signed_in(request, parts, made, cookie=body.cookie)


@router.post(
    "/api/auth/refresh",
    operation_id="refresh",
    response_model=SignedInAnswer,
    responses=market_errors(401, 403),
    openapi_extra=body_examples(
        {"token": example("The newest refresh token", refresh_token="that of the sign-in")}  # noqa: S106
    ),
    summary="Get new tokens",
)
async def refresh(
    request: Request, parts: PartsDep, body: Annotated[RefreshBody | None, Body()] = None
) -> Response:
    """Each refresh token works once; a used one ends the whole sign-in.

    Without one in the body it is that of the cookie, and `X-Requested-With` must be there, which
    no page of another site can send.

    curl -N http://127.0.0.1:7860/api/auth/refresh -H 'Content-Type: application/json' -d '{"refresh_token":"'$(curl -s http://127.0.0.1:7860/api/auth/register -H 'Content-Type: application/json' -d '{"email":"sari'$RANDOM$RANDOM'@example.com","password":"ombak pantai selatan","name":"Sari"}' | sed 's/.*"refresh_token":"\\([^"]*\\)".*/\\1/')'"}'
    """  # noqa: E501
    given = body.refresh_token if body is not None else None
    if given is not None:
        return _signed_in(request, parts, await parts.accounts.refresh(given))
    _check_own_page(request)
    kept = request.cookies.get(COOKIE)
    if not kept:
        raise Unauthorized("send the refresh_token, or sign in again", code="unauthorized")
    return _signed_in(request, parts, await parts.accounts.refresh(kept), cookie=True)


@router.get(
    "/api/auth/me",
    operation_id="get_account",
    response_model=UserAnswer,
    responses=market_errors(401),
    openapi_extra=signed_in("user"),
    summary="Who is signed in",
)
async def me(user: UserDep) -> UserAnswer:
    """The caller's own account.

    curl -N http://127.0.0.1:7860/api/auth/me -H "Authorization: Bearer $ACCESS_TOKEN"
    """
    answer: UserAnswer = user.answer()
    return answer


@router.post(
    "/api/auth/logout",
    operation_id="logout",
    response_model=DoneAnswer,
    responses=market_errors(401),
    openapi_extra=signed_in("user"),
    summary="Sign out",
)
async def logout(user: UserDep, parts: PartsDep) -> Response:
    """Ends this sign-in: its access token and its refresh token work no more.

    curl -N -X POST http://127.0.0.1:7860/api/auth/logout -H "Authorization: Bearer $(curl -s http://127.0.0.1:7860/api/auth/register -H 'Content-Type: application/json' -d '{"email":"sari'$RANDOM$RANDOM'@example.com","password":"ombak pantai selatan","name":"Sari"}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')"
    """  # noqa: E501
    await parts.accounts.logout(user)
    return _gone()


@router.delete(
    "/api/auth/me",
    operation_id="delete_account",
    response_model=DoneAnswer,
    responses=market_errors(401),
    openapi_extra=signed_in("user"),
    summary="Delete the account",
)
async def delete_me(user: UserDep, parts: PartsDep) -> Response:
    """Erases the account and its conversations; a supplier's products are no longer sold.

    curl -N -X DELETE http://127.0.0.1:7860/api/auth/me -H "Authorization: Bearer $(curl -s http://127.0.0.1:7860/api/auth/register -H 'Content-Type: application/json' -d '{"email":"sari'$RANDOM$RANDOM'@example.com","password":"ombak pantai selatan","name":"Sari"}' | sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')"
    """  # noqa: E501
    await parts.accounts.delete(user)
    return _gone()


def _signed_in(
    request: Request, parts: Parts, made: SignedIn, *, status: int = 200, cookie: bool = False
) -> Response:
    answer = SignedInAnswer(
        access_token=made.access_token,
        refresh_token=None if cookie else made.refresh_token,
        expires_in=parts.accounts.tokens.lives_s,
        user=made.user.answer(),
    )
    content: dict[str, Any] = answer.model_dump(mode="json")
    response = JSONResponse(content, status, {"Cache-Control": "no-store"})
    if cookie:
        response.set_cookie(
            COOKIE,
            made.refresh_token,
            max_age=parts.accounts.lives_s,
            path=_COOKIE_PATH,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
    return response


def _gone() -> Response:
    response = JSONResponse(DoneAnswer().model_dump())
    response.delete_cookie(COOKIE, path=_COOKIE_PATH, httponly=True, samesite="strict")
    return response


def _check_own_page(request: Request) -> None:
    """Refuse what a page of another site may have sent (OWASP, CSRF: custom request headers)."""
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if foreign or not request.headers.get("x-requested-with"):
        raise Forbidden("send X-Requested-With: precis, from a page of this server")
