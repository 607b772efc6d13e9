"""A model's reading of a query, and a follow-up, joined with what was understood before."""

from __future__ import annotations

import json

import pytest

from app.core.errors import GenerationFailed
from app.services.market.interpretation.merge import merged, understand
from app.services.market.interpretation.parser import parse
from app.services.market.interpretation.refine import interpretation_of, nth_shown, refined
from tests.engines import ScriptedEngine

LIAR = {
    "category": "kulkas",
    "brand": "Rolex",
    "tags": ["gaming", "ram 64gb", "emas"],
    "condition": "used",
    "sort": "price",
    "min_price": 1,
    "max_price": 99,
    "place": "Medan",
}


def test_the_parser_wins_on_money_places_and_digits() -> None:
    """Issue 18.4: merged field by field."""
    query = "laptop gaming Jakarta budget 10 juta"
    found = merged(parse(query), LIAR, query)
    assert (found.max_price, found.min_price) == (10_000_000, None)
    assert found.place is not None
    assert found.place.name == "Jakarta"
    assert (found.category, found.brand, found.tags) == ("laptop", None, ("gaming",))
    assert found.by == "model+parser"


def test_the_model_adds_what_the_vocabulary_does_not_know() -> None:
    query = "sepatu merek Ortuseight warna tosca"
    said = {
        "category": "sepatu",
        "brand": "Ortuseight",
        "tags": ["tosca"],
        "condition": "",
        "sort": "",
    }
    found = merged(parse(query), said, query)
    assert (found.brand, found.tags) == ("Ortuseight", ("tosca",))


@pytest.mark.parametrize(
    "said", [{}, {"tags": None}, {"tags": [1, None]}, {"brand": 3, "sort": []}]
)
def test_a_form_of_wrong_types_changes_nothing(said: dict[str, object]) -> None:
    query = "laptop 10 juta"
    parsed = parse(query)
    found = merged(parsed, said, query)
    assert found.as_dict() == parsed.as_dict() | {"by": "model+parser"}


async def test_a_model_fills_the_form_of_the_schema() -> None:
    engine = ScriptedEngine([json.dumps(LIAR)])
    found = await understand("laptop gaming 10 juta", engine)
    assert found.by == "model+parser"
    assert found.max_price == 10_000_000
    assert engine.requests[0].json_schema is not None


@pytest.mark.parametrize("script", [["no JSON"], ["[1]"], [GenerationFailed("broke")], []])
async def test_without_a_usable_model_the_parser_answers(script: list[str | Exception]) -> None:
    for engine in (None, ScriptedEngine(script)):
        assert (await understand("laptop 10 juta", engine)).by == "parser"


def test_a_follow_up_changes_only_what_it_says() -> None:
    """Issue 18.5."""
    last = parse("laptop gaming Jakarta budget 10 juta")
    moved = refined(last, parse("di Bandung saja"), "di Bandung saja")
    assert moved.place is not None
    assert moved.place.name == "Bandung"
    assert (moved.category, moved.max_price, moved.text) == ("laptop", 10_000_000, "laptop gaming")
    query = "yang lebih murah"
    cheaper = refined(moved, parse(query), query, prices=[9_000_000, 8_500_000])
    assert (cheaper.max_price, cheaper.sort, cheaper.category) == (8_499_999, "price", "laptop")


def test_a_follow_up_can_point_at_what_was_shown() -> None:
    query = "yang kedua ada warna hitam?"
    assert nth_shown(query, [7, 9, 11]) == 9
    assert nth_shown("yang ketiga", [7, 9]) is None
    last = parse("tas ransel")
    assert refined(last, parse(query), query).tags == ("ransel", "hitam")


def test_other_goods_begin_afresh() -> None:
    last = parse("laptop gaming Jakarta budget 10 juta")
    for query in ("kulkas 2 pintu", "jual terpal plastik"):
        assert refined(last, parse(query), query) == parse(query)


def test_an_interpretation_survives_being_stored() -> None:
    found = parse("laptop bukan gaming di Bandung maks 5 juta terdekat")
    stored = json.loads(json.dumps(found.as_dict()))
    assert interpretation_of(stored).as_dict() == found.as_dict()
