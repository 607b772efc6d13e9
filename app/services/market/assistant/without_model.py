"""The answer where no model is there: a template filled with what was found (engine "extractive").

It is in the language of the query, and every number of it is the database's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.services.market.assistant.goods import Hit
from app.services.market.interpretation.interpretation import Interpretation, Language

ENGINE = "extractive"
MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One wish given up. `name`: the field that is dropped."""

    name: str
    interpretation: Interpretation


def relaxations(asked: Interpretation) -> Iterator[Relaxation]:
    """Yield what is nearest to a query that found nothing, one wish given up at a time."""
    if asked.min_price is not None or asked.max_price is not None:
        yield Relaxation("price", replace(asked, min_price=None, max_price=None))
    if asked.place is not None or asked.near_me or asked.radius_km is not None:
        yield Relaxation("place", replace(asked, place=None, near_me=False, radius_km=None))
    if asked.condition is not None:
        yield Relaxation("condition", replace(asked, condition=None))
    if asked.tags or asked.without:
        text = " ".join(w for w in asked.text.split() if w not in " ".join(asked.tags).split())
        yield Relaxation("tags", replace(asked, tags=(), without=(), text=text))
    if asked.brand is not None:
        left = [word for word in asked.text.split() if word != asked.brand.lower()]
        yield Relaxation("brand", replace(asked, brand=None, text=" ".join(left)))


def answer(
    hits: Sequence[Hit], language: Language, *, counts: Sequence[tuple[str, int]] = ()
) -> tuple[str, list[dict[str, Any]]]:
    """Return an answer and its recommendations.

    `counts`: for each wish given up, how many goods there would be; read where nothing was found.
    """
    words = _WORDS[language]
    if not hits:
        offers = [words[name].format(n=count) for name, count in counts if count]
        said = words["none"] + (f" {words['but']} {'; '.join(offers)}." if offers else "")
        return said, []
    named = hits[:MOST_NAMED]
    products = [{"id": hit.id, "reason": _reason(hit, named, words)} for hit in named]
    lines = [
        f"{place}. {hit.name} - {rupiah(hit.price)}, {words['stock']} {hit.stock_quantity}, "
        f"{hit.supplier.business_name}{_way(hit, words)}"
        for place, hit in enumerate(named, 1)
    ]
    return "\n".join([words["found"].format(n=len(hits)), *lines]), products


def rupiah(price: int) -> str:
    """Return a price as it is written in Indonesia."""
    return "Rp " + f"{price:,}".replace(",", ".")


def _way(hit: Hit, words: dict[str, str]) -> str:
    way = f" ({hit.distance_km:g} km)" if hit.distance_km is not None else ""
    if hit.delivery_days is not None:
        way += ", " + words["days"].format(n=hit.delivery_days)
    return way


def _reason(hit: Hit, hits: Sequence[Hit], words: dict[str, str]) -> str:
    if hit.price == min(other.price for other in hits):
        return words["cheapest"].format(price=rupiah(hit.price))
    far = [other.distance_km for other in hits if other.distance_km is not None]
    if far and hit.distance_km == min(far):
        return words["nearest"].format(km=f"{hit.distance_km:g}")
    return words["there"].format(n=hit.stock_quantity)


_WORDS: dict[Language, dict[str, str]] = {
    "id": {
        "found": "Ada {n} produk yang cocok dan tersedia:",
        "none": "Tidak ada produk tersedia yang cocok.",
        "but": "Yang terdekat:",
        "price": "{n} produk dengan harga lain",
        "place": "{n} produk di tempat lain",
        "condition": "{n} produk dengan kondisi lain",
        "tags": "{n} produk tanpa ciri khusus itu",
        "brand": "{n} produk merek lain",
        "stock": "stok",
        "days": "sampai dalam {n} hari",
        "cheapest": "Harga terendah: {price}",
        "nearest": "Terdekat: {km} km",
        "there": "Cocok dengan permintaan, stok {n}",
    },
    "en": {
        "found": "{n} products fit and are in stock:",
        "none": "No product in stock fits.",
        "but": "Nearest to it:",
        "price": "{n} at another price",
        "place": "{n} in other places",
        "condition": "{n} in another condition",
        "tags": "{n} without those features",
        "brand": "{n} of other brands",
        "stock": "stock",
        "days": "delivered in {n} days",
        "cheapest": "Lowest price: {price}",
        "nearest": "Nearest: {km} km",
        "there": "Fits the request, stock {n}",
    },
}
