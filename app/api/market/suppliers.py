"""Suppliers: become one, look at them."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.docs.requests import body_examples, example
from app.api.market.deps import (
    Cursor,
    ItemId,
    Limit,
    PartsDep,
    UserDep,
    market_errors,
    signed_in,
)
from app.schemas.market import ProductList, SupplierAnswer, SupplierBody, SupplierList

router = APIRouter(tags=["Suppliers"])


@router.post(
    "/api/suppliers/register",
    operation_id="register_supplier",
    status_code=201,
    response_model=SupplierAnswer,
    responses=market_errors(401, 409),
    openapi_extra=signed_in("user")
    | body_examples(
        {
            "shop": example(
                "A shop in Bandung",
                business_name="Toko Maju Jaya",
                address="Jalan Braga 10, Bandung",
                contact="0812-0000-0000",
                lat=-6.9175,
                lng=107.6191,
            )
        }
    ),
    summary="Become a supplier",
)
async def register_supplier(user: UserDep, parts: PartsDep, body: SupplierBody) -> SupplierAnswer:
    """The caller's role becomes `supplier`; the access token stays the same.

    curl -N http://127.0.0.1:7860/api/suppliers/register -H "Authorization: Bearer $ACCESS_TOKEN" -H 'Content-Type: application/json' -d '{"business_name":"Toko Maju Jaya","address":"Jalan Braga 10, Bandung","contact":"0812-0000-0000","lat":-6.9175,"lng":107.6191}'
    """  # noqa: E501
    return await parts.catalogue.register_supplier(user, body)


@router.get(
    "/api/suppliers",
    operation_id="list_suppliers",
    response_model=SupplierList,
    responses=market_errors(),
    summary="All suppliers",
)
async def list_suppliers(parts: PartsDep, limit: Limit = 20, cursor: Cursor = None) -> SupplierList:
    """The oldest first, page by page."""
    return await parts.catalogue.suppliers(limit=limit, cursor=cursor)


@router.get(
    "/api/suppliers/{supplier_id}",
    operation_id="get_supplier",
    response_model=SupplierAnswer,
    responses=market_errors(404),
    summary="One supplier",
)
async def get_supplier(parts: PartsDep, supplier_id: ItemId) -> SupplierAnswer:
    """Who sells, and where."""
    return await parts.catalogue.supplier(supplier_id)


@router.get(
    "/api/suppliers/{supplier_id}/products",
    operation_id="list_supplier_products",
    response_model=ProductList,
    responses=market_errors(404),
    summary="What a supplier sells",
)
async def list_products(
    parts: PartsDep, supplier_id: ItemId, limit: Limit = 20, cursor: Cursor = None
) -> ProductList:
    """The oldest first, page by page."""
    return await parts.catalogue.products_of(supplier_id, limit=limit, cursor=cursor)
