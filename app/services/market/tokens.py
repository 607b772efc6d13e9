"""Access tokens: JSON Web Tokens, signed by the first of our keys, verified by any of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt

from app.core.errors import Unauthorized
from app.core.signing_keys import SigningKeys

_ALGORITHM = "HS256"
_ISSUER = "precis"
_MAX_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Claims:
    """Who a token names, and by which sign-in."""

    user_id: int
    sign_in: str


class Tokens:
    """Makes and reads access tokens."""

    def __init__(self, keys: SigningKeys, *, lives_s: int) -> None:
        self._keys = keys
        self.lives_s = lives_s

    def access(self, user_id: int, sign_in: str) -> str:
        """Return an access token."""
        kid, secret = self._keys.signing()
        now = int(time.time())
        claims = {
            "iss": _ISSUER,
            "sub": str(user_id),
            "sid": sign_in,
            "typ": "access",
            "iat": now,
            "exp": now + self.lives_s,
        }
        return jwt.encode(claims, secret, algorithm=_ALGORITHM, headers={"kid": kid})

    def read(self, token: str) -> Claims:
        """Return what a token says.

        Raises:
            Unauthorized: it is not ours, has run out, or is no access token.
        """
        try:
            if len(token) > _MAX_CHARS:
                raise jwt.InvalidTokenError
            kid = str(jwt.get_unverified_header(token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                token,
                self._keys.all()[kid],
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"require": ["exp", "iat", "sub", "iss"]},
            )
            if claims.get("typ") != "access":
                raise jwt.InvalidTokenError
            return Claims(int(claims["sub"]), str(claims["sid"]))
        except jwt.ExpiredSignatureError:
            raise Unauthorized(
                "the access token has run out; get another with POST /api/auth/refresh",
                code="token_expired",
            ) from None
        except (jwt.InvalidTokenError, KeyError, ValueError):
            raise invalid_token() from None


def invalid_token() -> Unauthorized:
    """Return the error of a token that signs nobody in."""
    return Unauthorized(
        "the access token is not valid; sign in again with POST /api/auth/login",
        code="invalid_token",
    )
