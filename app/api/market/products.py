"""Products: a supplier's own ones, added, changed, taken out."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.docs.requests import body_examples, example
from app.api.market.deps import ItemId, PartsDep, UserDep, market_errors, signed_in
from app.schemas.market import DoneAnswer, ProductAnswer, ProductBody, ProductChange

router = APIRouter(tags=["Products"])


@router.post(
    "/api/products",
    operation_id="add_product",
    status_code=201,
    response_model=ProductAnswer,
    responses=market_errors(401, 403, 409),
    openapi_extra=signed_in("supplier")
    | body_examples(
        {
            "laptop": example(
                "A laptop",
                name="Laptop ASUS TUF Gaming F15 16GB",
                description="Untuk bermain dan bekerja, garansi resmi.",
                price=9_850_000,
                stock_quantity=4,
                category="laptop",
                tags=["gaming", "asus"],
            )
        }
    ),
    summary="Sell something",
)
async def add_product(user: UserDep, parts: PartsDep, body: ProductBody) -> ProductAnswer:
    """Adds to the caller's own products. The price is in whole rupiah.

    curl -N http://127.0.0.1:7860/api/products -H "Authorization: Bearer $ACCESS_TOKEN" -H 'Content-Type: application/json' -d '{"name":"Laptop ASUS TUF Gaming F15 16GB","price":9850000,"stock_quantity":4,"category":"laptop","tags":["gaming","asus"]}'
    """  # noqa: E501
    return await parts.catalogue.add(user, body)


@router.put(
    "/api/products/{product_id}",
    operation_id="change_product",
    response_model=ProductAnswer,
    responses=market_errors(401, 403, 404, 409),
    openapi_extra=signed_in("supplier")
    | body_examples({"stock": example("Three are left", stock_quantity=3, version=1)}),
    summary="Change a product",
)
async def change_product(
    user: UserDep, parts: PartsDep, product_id: ItemId, body: ProductChange
) -> ProductAnswer:
    """What is left out stays. Where `version` is not the newest, nothing changes: 409 with what is.

    curl -N -X PUT http://127.0.0.1:7860/api/products/1 -H "Authorization: Bearer $ADMIN_TOKEN" -H 'Content-Type: application/json' -d '{"stock_quantity":3,"version":'$(curl -s http://127.0.0.1:7860/api/products/1 | sed 's/.*"version":\\([0-9]*\\).*/\\1/')'}'
    """  # noqa: E501
    return await parts.catalogue.change(user, product_id, body)


@router.get(
    "/api/products/{product_id}",
    operation_id="get_product",
    response_model=ProductAnswer,
    responses=market_errors(404),
    summary="One product",
)
async def get_product(parts: PartsDep, product_id: ItemId) -> ProductAnswer:
    """Its `version` goes back with a change."""
    return await parts.catalogue.product(product_id)


@router.delete(
    "/api/products/{product_id}",
    operation_id="delete_product",
    response_model=DoneAnswer,
    responses=market_errors(401, 403, 404),
    openapi_extra=signed_in("supplier"),
    summary="Sell it no more",
)
async def delete_product(user: UserDep, parts: PartsDep, product_id: ItemId) -> DoneAnswer:
    """It is found no more.

    curl -N -X DELETE http://127.0.0.1:7860/api/products/2 -H "Authorization: Bearer $ADMIN_TOKEN"
    """
    await parts.catalogue.remove(user, product_id)
    return DoneAnswer()
