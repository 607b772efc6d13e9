"""What a search is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from app.db.geography import Point
from app.schemas.market import Condition, Sort


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFilters:
    """What to look for. `without`: words that must not be there. `cursor`: of the page before."""

    text: str = ""
    without: tuple[str, ...] = ()
    category: str | None = None
    min_price: int | None = None
    max_price: int | None = None
    condition: Condition | None = None
    in_stock: bool = False
    location: Point | None = None
    radius_km: float | None = None
    sort: Sort = "relevance"
    limit: int = 20
    cursor: str | None = None

    def fingerprint(self) -> str:
        """Return what all pages of one search have in common."""
        same = repr(replace(self, limit=1, cursor=None)).encode("utf-8", "replace")
        return hashlib.blake2b(same, digest_size=12).hexdigest()
