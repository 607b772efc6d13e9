"""A turn of a conversation: what is searched for, what a model is asked, what is recommended."""

from __future__ import annotations

import json

from app.engine.base import Message
from app.services.market.assistant.turns import (
    MOST_MESSAGES,
    Found,
    Wanted,
    find_goods,
    recommend,
    request_of,
    take_turn,
    wanted,
)
from app.services.market.interpretation.parser import parse
from tests.engines import ScriptedEngine
from tests.services.market.assistant.test_goods import INJECTION, Good

JAKARTA = (-6.2, 106.8)


class Shelf:
    """Goods that are found where the price allows; keeps what it was asked."""

    def __init__(self, *goods: Good, category: str | None = "laptop") -> None:
        self.goods = goods
        self.category = category
        self.asked: list[Wanted] = []

    async def find(self, asked: Wanted) -> Found:
        self.asked.append(asked)
        hits = [good for good in self.goods if good.price <= (asked.max_price or good.price)]
        if asked.category not in (None, self.category):
            hits = []
        return Found(hits, len(hits))


def test_a_named_place_goes_before_the_callers_own() -> None:
    asked = wanted(parse("laptop di Bandung"), JAKARTA)
    assert asked.here is not None
    assert round(asked.here[0], 1) == -6.9
    assert asked.radius_km == 50
    assert wanted(parse("laptop di bali"), None).radius_km == 200


def test_nearest_without_a_location_is_no_error() -> None:
    assert wanted(parse("laptop terdekat"), None).sort is None
    assert wanted(parse("laptop terdekat"), JAKARTA).sort == "distance"
    assert wanted(parse("laptop termurah terdekat"), None).sort == "price"


async def test_a_category_that_no_supplier_uses_is_left_to_the_words() -> None:
    shelf = Shelf(Good(1), category="elektronik")
    found = await find_goods(parse("laptop gaming"), None, shelf.find)
    assert found.total == 1
    assert [asked.category for asked in shelf.asked] == ["laptop", None]


async def test_nothing_found_counts_what_fewer_wishes_would_find() -> None:
    turn = await take_turn("laptop 5 juta", find=Shelf(Good(1)).find, engine=None)
    assert list(turn.hits) == []
    assert turn.counts == [("price", 1)]


async def test_a_follow_up_refines_and_can_point() -> None:
    shelf = Shelf(Good(1), Good(2, price=8_000_000))
    first = await take_turn("laptop gaming Jakarta budget 10 juta", find=shelf.find, engine=None)
    assert len(first.hits) == 2
    second = await take_turn(
        "yang lebih murah", find=shelf.find, engine=None, last=first.interpretation,
        shown=[Good(1)],
    )  # fmt: skip
    assert [hit.id for hit in second.hits] == [2]
    third = await take_turn(
        "yang kedua ada warna hitam?", find=shelf.find, engine=None, last=first.interpretation,
        shown=list(first.hits),
    )  # fmt: skip
    assert third.about == 2


async def test_a_listing_cannot_add_a_message_or_an_id() -> None:
    """Issue 18.5: tested by what is sent and by the id grammar."""
    turn = await take_turn("laptop", find=Shelf(Good(1, name=INJECTION)).find, engine=None)
    history = [Message("user", f"{n}") for n in range(40)]
    request = request_of(turn, history, max_tokens=64, temperature=0.5)
    assert [message.role for message in request.messages].count("system") == 1
    assert len(request.messages) == MOST_MESSAGES + 2
    assert request.messages[-1] == Message("user", "laptop")
    engine = ScriptedEngine([json.dumps([{"id": 999, "reason": "best"}])])
    assert [one["id"] for one in await recommend(turn, engine)] == [1]
    schema = engine.requests[0].json_schema
    assert schema is not None
    assert schema["items"]["properties"]["id"] == {"enum": [1]}


async def test_a_models_recommendation_is_taken_with_its_reason() -> None:
    turn = await take_turn("laptop", find=Shelf(Good(1), Good(2)).find, engine=None)
    engine = ScriptedEngine([json.dumps([{"id": 2, "reason": "paling ringan"}])])
    assert await recommend(turn, engine) == [{"id": 2, "reason": "paling ringan"}]
