"""Search over HTTP: by words and filters."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.api.market.deps import Cursor, Limit, PartsDep, Words, market_errors
from app.core.errors import InvalidInput
from app.db.geography import Point
from app.schemas.market import MAX_PRICE, Condition, HitList, Sort
from app.services.market.filters import SearchFilters

router = APIRouter(tags=["Products"])

MAX_QUERY_CHARS = 300
# Half way around the earth.
MAX_RADIUS_KM = 20_040
_NUMBER = re.compile(r"\s*[+-]?\d{1,3}(?:\.\d{1,20})?\s*")

Money = Annotated[int | None, Query(ge=0, le=MAX_PRICE, description="Whole rupiah")]


@router.get(
    "/api/products/search",
    operation_id="search_products",
    response_model=HitList,
    responses=market_errors(),
    summary="Find goods",
)
async def search_products(
    parts: PartsDep,
    q: Annotated[str, Query(max_length=MAX_QUERY_CHARS, examples=["laptop gaming"]), Words] = "",
    location: Annotated[
        str | None,
        Query(max_length=60, description="`lat,lng` in degrees", examples=["-6.2,106.8"]),
    ] = None,
    category: Annotated[str | None, Query(max_length=60), Words] = None,
    min_price: Money = None,
    max_price: Money = None,
    radius_km: Annotated[float | None, Query(gt=0, le=MAX_RADIUS_KM, allow_inf_nan=False)] = None,
    condition: Condition | None = None,
    in_stock: bool = False,
    sort: Sort = "relevance",
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """All words of `q` count, in Indonesian or English, mistyped too.

    What several suppliers sell is one item with `offers`. `distance_km` and `delivery_days` (1
    within a city, 2 to 4 on an island, 4 to 8 over the sea) come with a `location`.
    """
    found = await parts.search.search(
        SearchFilters(
            text=q,
            category=category or None,
            min_price=min_price,
            max_price=max_price,
            condition=condition,
            in_stock=in_stock,
            location=None if location is None else point_of(location),
            radius_km=radius_km,
            sort=sort,
            limit=limit,
            cursor=cursor,
        )
    )
    return answer(found)


def answer(found: HitList, **more: Any) -> Response:
    """Return hits as JSON; what is not known of an offer is left out."""
    if not more:
        return Response(found.model_dump_json(exclude_unset=True), media_type="application/json")
    from starlette.responses import JSONResponse

    return JSONResponse(found.model_dump(mode="json", exclude_unset=True) | more)


def point_of(text: str) -> Point:
    """Return the place that `lat,lng` names.

    Raises:
        InvalidInput: it names none.
    """
    parts = text.split(",")
    if len(parts) == 2 and all(_NUMBER.fullmatch(part) for part in parts):
        lat, lng = float(parts[0]), float(parts[1])
        if math.fabs(lat) <= 90 and math.fabs(lng) <= 180:
            return Point(lat, lng)
    raise InvalidInput("location: write lat,lng in degrees, as in -6.2,106.8")
