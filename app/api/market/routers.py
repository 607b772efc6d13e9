"""The routers of the marketplace, in the order of their paths: the fixed ones first."""

from __future__ import annotations

from app.api.market import (
    accounts,
    admin,
    ai_search,
    conversations,
    products,
    search,
    suppliers,
)

ROUTERS = (
    accounts.router,
    suppliers.router,
    search.router,
    ai_search.router,
    products.router,
    conversations.router,
    admin.router,
)
