"""Which engine serves which role: summaries, chat, images (C6).

Roles that name the same model share one engine, and so one set of weights. Nothing is loaded here:
an engine loads on first use. Which model a role names is not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from app.engine.base import Engine
from app.engine.metered import MeteredEngine

EngineRole = Literal["summary", "chat", "vision"]


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What a role runs on. `key`: two roles with the same key share an engine."""

    key: str
    make: Callable[[], Engine]


class Registry:
    """The engines of one application, by role."""

    def __init__(self, roles: Mapping[EngineRole, EngineSpec]) -> None:
        made: dict[str, Engine] = {}
        self._by_role: dict[EngineRole, Engine] = {}
        for role, spec in roles.items():
            if spec.key not in made:
                made[spec.key] = MeteredEngine(spec.make())
            self._by_role[role] = made[spec.key]
        self._engines = tuple(made.values())

    def __getitem__(self, role: EngineRole) -> Engine:
        """Return the engine of a role that has one."""
        return self._by_role[role]

    def get(self, role: EngineRole) -> Engine | None:
        """Return the engine of a role; None when the role has none."""
        return self._by_role.get(role)

    def roles(self) -> dict[EngineRole, Engine]:
        """Return the engine of every role that has one."""
        return dict(self._by_role)

    async def maintain(self) -> None:
        """Do what the engines need beside the requests, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for engine in self._engines:
                group.create_task(engine.maintain())

    async def aclose(self) -> None:
        """Stop what runs and free what is held."""
        for engine in self._engines:
            await engine.aclose()
