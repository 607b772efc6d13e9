"""What crosses the wire of the marketplace (contract 7): bodies and answers."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

MAX_ID = 2**63 - 1
MAX_PRICE = 10**13
MAX_STOCK = 10**9
_EMAIL = re.compile(r"[^\s@<>()\[\],;:\\\"]{1,64}@(?:[^\s@<>()\[\],;:\\\".]+\.)+[^\s@.]{2,63}")
# Controls and halves of characters; a database refuses some, a page shows none.
_NO_TEXT = frozenset(("Cc", "Cs", "Zl", "Zp"))


def _text(value: str) -> str:
    if any(unicodedata.category(c) in _NO_TEXT and c not in "\n\t\r" for c in value):
        raise ValueError("leave out control characters")
    return value


def _line(value: str) -> str:
    if any(unicodedata.category(char) in _NO_TEXT for char in value):
        raise ValueError("write one line, without control characters")
    return value


def _email(value: str) -> str:
    value = _line(value).lower()
    if not _EMAIL.fullmatch(value):
        raise ValueError("write an e-mail address, as in sari@example.com")
    return value


def _line_of(most: int, least: int = 1) -> StringConstraints:
    return StringConstraints(strict=True, strip_whitespace=True, min_length=least, max_length=most)


Name = Annotated[str, _line_of(200), AfterValidator(_line)]
Category = Annotated[str, _line_of(60), AfterValidator(_line)]
Tag = Annotated[str, _line_of(40), AfterValidator(_line)]
Sku = Annotated[str, _line_of(64), AfterValidator(_line)]
Description = Annotated[str, _line_of(5000, 0), AfterValidator(_text)]
Email = Annotated[str, _line_of(254, 3), AfterValidator(_email)]
Password = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=256)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False, strict=True)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False, strict=True)]
Price = Annotated[int, Field(ge=1, le=MAX_PRICE, strict=True)]
Stock = Annotated[int, Field(ge=0, le=MAX_STOCK, strict=True)]
Condition = Literal["new", "used"]
Role = Literal["user", "supplier", "admin"]
Sort = Literal["relevance", "price", "-price", "distance", "delivery"]


class Place(BaseModel):
    """A place in degrees."""

    lat: Latitude
    lng: Longitude


class RegisterBody(BaseModel):
    """A new account. `lat`, `lng`: where its owner is, both or none."""

    email: Email
    password: Password
    name: Name
    lat: Latitude | None = None
    lng: Longitude | None = None


class LoginBody(BaseModel):
    """`cookie`: the refresh token goes into a cookie that scripts cannot read."""

    email: Annotated[str, StringConstraints(strict=True, max_length=254)]
    password: Password
    cookie: bool = False


class RefreshBody(BaseModel):
    """The newest refresh token of a sign-in; left out, it is that of the cookie."""

    refresh_token: Annotated[str, StringConstraints(strict=True, max_length=200)] | None = None


class UserAnswer(BaseModel):
    """An account, as its owner sees it."""

    id: int
    email: str
    name: str
    role: Role
    ai_access_enabled: bool
    lat: float | None = None
    lng: float | None = None


class SignedInAnswer(BaseModel):
    """`access_token` goes into `Authorization: Bearer`, for `expires_in` seconds."""

    access_token: str
    refresh_token: str | None
    token_type: Literal["bearer"] = "bearer"  # noqa: S105  (contract 7)
    expires_in: int
    user: UserAnswer


class DoneAnswer(BaseModel):
    """It is done, or was so already."""

    ok: Literal[True] = True


class SupplierBody(BaseModel):
    """A business that sells. `contact`: how buyers reach it."""

    business_name: Name
    address: Annotated[str, _line_of(500), AfterValidator(_text)]
    contact: Name
    lat: Latitude
    lng: Longitude


class SupplierBrief(BaseModel):
    """Who sells, beside a product."""

    id: int
    business_name: str
    lat: float
    lng: float


class SupplierAnswer(SupplierBrief):
    """Who sells, and where."""

    name: str
    address: str
    contact: str
    registration_date: datetime


class ProductBody(BaseModel):
    """Something to sell. `price`: whole rupiah. `sku`: a GTIN, or the maker's own number."""

    name: Name
    description: Description = ""
    price: Price
    stock_quantity: Stock
    category: Category
    tags: Annotated[list[Tag], Field(max_length=20)] = Field(default_factory=list)
    sku: Sku | None = None
    condition: Condition = "new"


class ProductChange(BaseModel):
    """What is to change; what is left out stays. `version`: the one that was seen."""

    version: Annotated[int, Field(ge=1, le=MAX_ID, strict=True)]
    name: Name | None = None
    description: Description | None = None
    price: Price | None = None
    stock_quantity: Stock | None = None
    category: Category | None = None
    tags: Annotated[list[Tag], Field(max_length=20)] | None = None
    sku: Sku | None = None
    condition: Condition | None = None


class ProductAnswer(BaseModel):
    """A product of one supplier; `version` goes back with a change."""

    id: int
    name: str
    description: str
    price: int
    stock_quantity: int
    category: str
    tags: list[str]
    sku: str | None
    condition: Condition
    version: int
    updated_at: datetime
    supplier: SupplierBrief


class OfferAnswer(BaseModel):
    """What one supplier asks for a good."""

    product_id: int
    supplier: SupplierBrief
    price: int
    stock_quantity: int
    distance_km: float | None = None
    delivery_days: int | None = None


class HitAnswer(BaseModel):
    """A good, by the best of its offers in the order that was asked for."""

    id: int
    name: str
    price: int
    stock_quantity: int
    category: str
    tags: list[str]
    condition: Condition
    supplier: SupplierBrief
    distance_km: float | None = None
    delivery_days: int | None = None
    offers: list[OfferAnswer]


class SupplierList(BaseModel):
    """Suppliers, by their id."""

    items: list[SupplierAnswer]
    total: int
    next_cursor: str | None


class ProductList(BaseModel):
    """Products of a supplier, by their id."""

    items: list[ProductAnswer]
    total: int
    next_cursor: str | None


class HitList(BaseModel):
    """Goods that were found."""

    items: list[HitAnswer]
    total: int
    next_cursor: str | None


class ConversationAnswer(BaseModel):
    """A talk with the assistant."""

    id: str
    session_id: str | None
    title: str
    created_at: datetime
    updated_at: datetime


class MessageAnswer(BaseModel):
    """What one side said."""

    role: Literal["user", "assistant", "system"]
    content: str
    timestamp: datetime


class WholeConversation(ConversationAnswer):
    """A talk with all that was said."""

    messages: list[MessageAnswer]


class ConversationList(BaseModel):
    """The caller's talks, newest first."""

    items: list[ConversationAnswer]
    total: int
    next_cursor: str | None


class AccessBody(BaseModel):
    """What an admin decides about an account; what is left out stays."""

    ai_access_enabled: Annotated[bool, Field(strict=True)] | None = None
    role: Role | None = None


class QueryCount(BaseModel):
    """A question, and how often it was asked."""

    query: str
    count: int


class DayCount(BaseModel):
    """How much was asked on a day (UTC), and how much of it found nothing."""

    day: str
    count: int
    without_hits: int


class QueriesAnswer(BaseModel):
    """What people ask for, without who they are."""

    top: list[QueryCount]
    without_hits: list[QueryCount]
    days: list[DayCount]
