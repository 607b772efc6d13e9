"""One turn of a conversation: understood, searched for, and put to a model or into a template.

What searches is handed in, so that nothing here knows a database.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.errors import AppError
from app.engine.base import Engine, GenerateRequest, Message
from app.services.call_llm import call_llm
from app.services.market.assistant import without_model
from app.services.market.assistant.goods import (
    Hit,
    in_stock,
    recommendation_schema,
    recommended,
    system_message,
)
from app.services.market.interpretation.interpretation import Condition, Interpretation, Sort
from app.services.market.interpretation.merge import understand
from app.services.market.interpretation.refine import nth_shown, refined

# Who names a city means it and what lies around it; a province's or an island's goods are anywhere.
PLACE_RADIUS_KM = 50.0
WIDE_RADIUS_KM = 200.0
_WIDE = frozenset(
    {"Bali", "Lombok", "Aceh", "Riau", "Banten", "Maluku", "Papua", "Flores"}
    | {"Jawa Barat", "Jawa Tengah", "Jawa Timur"}
)
_WIDE_BEGINNINGS = ("Sumatera ", "Kalimantan ", "Sulawesi ", "Nusa Tenggara ", "Kepulauan ")
# Older messages than these are only in the line that sums up what was asked for.
MOST_MESSAGES = 12
MAX_REASONS_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a search is asked for, in its own terms. `here`: latitude and longitude in degrees."""

    text: str
    category: str | None
    without: tuple[str, ...]
    min_price: int | None
    max_price: int | None
    condition: Condition | None
    here: tuple[float, float] | None
    radius_km: float | None
    sort: Sort | None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of goods, and how many there are in all."""

    hits: Sequence[Hit]
    total: int


Find = Callable[[Wanted], Awaitable[Found]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a turn is about. `hits`: in stock only. `about`: the one good it speaks of, by id."""

    query: str
    interpretation: Interpretation
    hits: Sequence[Hit]
    counts: Sequence[tuple[str, int]] = ()
    about: int | None = None


def wanted(asked: Interpretation, here: tuple[float, float] | None) -> Wanted:
    """Return what to search for; a place that is named goes before the caller's own."""
    radius_km, place = asked.radius_km, asked.place
    if place is not None:
        here = (place.lat, place.lng)
        wide = place.name in _WIDE or place.name.startswith(_WIDE_BEGINNINGS)
        radius_km = radius_km or (WIDE_RADIUS_KM if wide else PLACE_RADIUS_KM)
    near = here is not None
    return Wanted(
        text=asked.text,
        category=asked.category,
        without=asked.without,
        min_price=asked.min_price,
        max_price=asked.max_price,
        condition=asked.condition,
        here=here,
        radius_km=radius_km if near else None,
        # Without a place nothing is near.
        sort=asked.sort if near or asked.sort in ("price", "-price") else None,
    )


async def find_goods(asked: Interpretation, here: tuple[float, float] | None, find: Find) -> Found:
    """Return what is asked for; a category that no supplier uses is left to the words."""
    first = wanted(asked, here)
    found = await find(first)
    if not found.total and first.category is not None and first.text:
        found = await find(replace(first, category=None))
    return found


async def take_turn(
    query: str,
    *,
    find: Find,
    engine: Engine | None,
    last: Interpretation | None = None,
    shown: Sequence[Hit] = (),
    here: tuple[float, float] | None = None,
) -> Turn:
    """Understand a query in its conversation and find what fits.

    `engine`: a model that helps to understand; None for none. `last`, `shown`: how the message
    before was understood, and the goods that answered it.
    """
    new = await understand(query, engine)
    asked = refined(last, new, query, prices=[hit.price for hit in shown])
    about = nth_shown(query, [hit.id for hit in shown])
    if about is not None:
        return Turn(
            query=query,
            interpretation=asked,
            hits=in_stock([hit for hit in shown if hit.id == about]),
            about=about,
        )
    hits = in_stock((await find_goods(asked, here, find)).hits)
    counts = []
    if not hits:
        for less in without_model.relaxations(asked):
            found = await find_goods(less.interpretation, here, find)
            counts.append((less.name, found.total))
    return Turn(query=query, interpretation=asked, hits=hits, counts=counts)


def request_of(
    turn: Turn, history: Sequence[Message], *, max_tokens: int, temperature: float
) -> GenerateRequest:
    """Return what a model is asked: the goods, the conversation so far, and the query.

    The oldest messages go first where all are too many; a line that says what is asked for by now
    stays with the goods.
    """
    asked = json.dumps(turn.interpretation.as_dict(), ensure_ascii=False, separators=(",", ":"))
    told = system_message(turn.hits)
    system = Message("system", f"{told.content}\nThe customer asks by now for: {asked}")
    return GenerateRequest(
        messages=(system, *history[-MOST_MESSAGES:], Message("user", turn.query)),
        max_tokens=max_tokens,
        temperature=temperature,
        thinking=False,
    )


async def recommend(turn: Turn, engine: Engine | None) -> list[dict[str, Any]]:
    """Return the recommendations: a model's under the grammar, else those of the template."""
    _, products = without_model.answer(turn.hits, turn.interpretation.language)
    if engine is None or not turn.hits:
        return products
    told = system_message(turn.hits)
    try:
        said = await call_llm(
            engine,
            turn.query,
            max_tokens=MAX_REASONS_TOKENS,
            system=told.content,
            temperature=0.0,
            json_schema=recommendation_schema(turn.hits),
        )
        chosen = recommended(json.loads(said), turn.hits)
    except (AppError, ValueError):
        return products
    return chosen or products
