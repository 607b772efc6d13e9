"""What a query asks for: the fields that contract 7 calls "interpretation"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Condition = Literal["new", "used"]
Sort = Literal["price", "-price", "distance", "delivery"]
Language = Literal["id", "en"]


@dataclass(frozen=True, slots=True)
class Place:
    """A place with coordinates in degrees."""

    name: str
    lat: float
    lng: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpretation:
    """A query as the search understands it.

    `text`: the words to search for, without budget, place and wishes. `min_price`, `max_price`:
    rupiah, both included. `near_me`: at the caller's own place. `without`: what must not be.
    `language`: that of the query, for answers; no field of the contract.
    """

    text: str = ""
    category: str | None = None
    tags: tuple[str, ...] = ()
    brand: str | None = None
    min_price: int | None = None
    max_price: int | None = None
    place: Place | None = None
    near_me: bool = False
    radius_km: float | None = None
    condition: Condition | None = None
    sort: Sort | None = None
    quantity: int | None = None
    without: tuple[str, ...] = ()
    language: Language = "id"
    by: Literal["parser", "model+parser"] = "parser"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields of the wire; what is not known is left out."""
        place = self.place and {
            "name": self.place.name,
            "lat": self.place.lat,
            "lng": self.place.lng,
        }
        maybe = {
            "category": self.category,
            "brand": self.brand,
            "min_price": self.min_price,
            "max_price": self.max_price,
            "place": place,
            "radius_km": self.radius_km,
            "condition": self.condition,
            "sort": self.sort,
            "quantity": self.quantity,
            "without": list(self.without) or None,
        }
        return {
            "text": self.text,
            "tags": list(self.tags),
            "near_me": self.near_me,
            **{name: value for name, value in maybe.items() if value is not None},
            "by": self.by,
        }
