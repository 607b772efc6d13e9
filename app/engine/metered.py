"""Any engine, counted: what it was asked for, how long it took, how it ended."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from app.core.errors import AppError, EngineUnavailable
from app.core.metrics import FIRST_TOKEN, GENERATIONS, QUEUED, TOKENS, TOKENS_PER_SECOND
from app.engine.base import Engine, Finish, Fitted, GenerateRequest, Item, Status


class MeteredEngine:
    """An engine as its `inner` one is, and nothing added but the counting."""

    def __init__(self, engine: Engine) -> None:
        self.inner = engine

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def model(self) -> str:
        return self.inner.model

    def facts(self) -> dict[str, str]:
        return self.inner.facts()

    def info(self) -> dict[str, Any]:
        return self.inner.info()

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        return await self.inner.fit(request, may_drop=may_drop)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield what the engine yields, and count it."""
        outcome, started_s = "cancelled", time.monotonic()
        queued_until_s = first_s = 0.0
        try:
            async with aclosing(self.inner.generate(request)) as items:
                async for item in items:
                    now_s = time.monotonic()
                    if isinstance(item, Status):
                        if item.stage == "queued":
                            queued_until_s = now_s
                        elif queued_until_s:
                            QUEUED.labels(self.name).observe(now_s - started_s)
                            queued_until_s = 0.0
                    elif isinstance(item, Finish):
                        outcome = item.reason
                        self._count(item, first_s, now_s)
                    elif not first_s:
                        first_s = now_s
                        FIRST_TOKEN.labels(self.name).observe(first_s - started_s)
                    yield item
        except AppError as error:
            outcome = error.code
            raise
        except Exception:
            outcome = "internal_error"
            raise
        finally:
            GENERATIONS.labels(self.name, outcome).inc()

    def _count(self, finish: Finish, first_s: float, now_s: float) -> None:
        TOKENS.labels(self.name, "prompt").inc(finish.prompt_tokens)
        TOKENS.labels(self.name, "completion").inc(finish.completion_tokens)
        if first_s and now_s > first_s and finish.completion_tokens > 1:
            rate = (finish.completion_tokens - 1) / (now_s - first_s)
            TOKENS_PER_SECOND.labels(self.name).observe(rate)

    async def unavailable(self) -> EngineUnavailable | None:
        return await self.inner.unavailable()

    async def prepare(self) -> None:
        await self.inner.prepare()

    async def load(self) -> None:
        await self.inner.load()

    async def maintain(self) -> None:
        await self.inner.maintain()

    async def aclose(self) -> None:
        await self.inner.aclose()
