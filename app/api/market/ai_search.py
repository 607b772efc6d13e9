"""Search in one's own words: `POST /api/products/ai-search`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from app.api.deps import ServicesDep
from app.api.docs.requests import body_examples, example
from app.api.market.deps import PartsDep, Words, market_errors
from app.api.market.search import answer
from app.db.geography import Point
from app.schemas.market import HitList, Place
from app.services.market.assistant.turns import Found, Wanted, find_goods
from app.services.market.filters import SearchFilters
from app.services.market.interpretation.merge import understand

router = APIRouter(tags=["Products"])


class UnderstoodHitList(HitList):
    """Hits, and how the query was understood."""

    interpretation: dict[str, Any]


class AiSearchBody(BaseModel):
    """A query in somebody's own words."""

    query: Annotated[str, Field(min_length=1, max_length=300), Words]
    location: Place | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


@router.post(
    "/api/products/ai-search",
    operation_id="ai_search_products",
    response_model=UnderstoodHitList,
    responses=market_errors(),
    summary="Find goods in your own words",
    openapi_extra=body_examples(
        {"laptop": example("In Indonesian", query="laptop gaming Jakarta budget 10 juta")}
    ),
)
async def ai_search(parts: PartsDep, services: ServicesDep, body: AiSearchBody) -> Response:
    """The answer has the interpretation that was used; a place that is named goes before yours.

    curl -N http://127.0.0.1:7860/api/products/ai-search -H 'Content-Type: application/json' -d '{"query":"laptop gaming Jakarta budget 10 juta"}'
    """  # noqa: E501
    pages: list[HitList] = []

    async def find(asked: Wanted) -> Found:
        page = await parts.search.search(
            SearchFilters(
                text=asked.text,
                without=asked.without,
                category=asked.category,
                min_price=asked.min_price,
                max_price=asked.max_price,
                condition=asked.condition,
                location=None if asked.here is None else Point(*asked.here),
                radius_km=asked.radius_km,
                sort=asked.sort or "relevance",
                limit=body.limit,
            )
        )
        pages.append(page)
        return Found(page.items, page.total)

    # A model only where one is loaded: a search does not wait for a download.
    engine = services.engines["chat"]
    model = engine if engine.name != "extractive" and engine.info().get("loaded") else None
    asked = await understand(body.query, model)
    here = (body.location.lat, body.location.lng) if body.location else None
    await find_goods(asked, here, find)
    return answer(pages[-1], interpretation=asked.as_dict())
