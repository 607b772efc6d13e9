"""Says what a test needs beside light Python packages, by reading its code; no list is kept.

A test needs torch if its function, its fixtures, or whatever of `tests` and `bench` these reach
import it or use a module that has. It needs a program if they reach `tests.programs`. Conftest.py
turns this into marks; `pytest --quick` runs what needs neither, and without torch at that.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from functools import cache
from importlib.abc import MetaPathFinder
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

HEAVY = frozenset(("torch", "transformers"))
# Whose code is read on: the application imports torch late, where a model is loaded.
READ = ("tests.", "bench.")


def needs_of(item: pytest.Function) -> frozenset[str]:
    """Return which of "torch" and "program" a test needs."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    todo: list[Any] = [item.function, *parameters]
    todo += [definition.func for definitions in fixtures for definition in definitions]
    found: set[str] = set()
    seen: set[int] = set()
    while todo:
        value = todo.pop()
        if id(value) not in seen:
            seen.add(id(value))
            reached, needed = _reached(value)
            todo += reached
            found |= needed
    return frozenset(found)


def _reached(value: Any) -> tuple[list[Any], set[str]]:
    """Return what a value uses, and what it needs by itself."""
    if type(value) is ModuleType:
        return [], {"torch"} if value.__name__.partition(".")[0] in HEAVY else set()
    named = value if isinstance(value, (FunctionType, type)) else type(value)
    module = str(getattr(named, "__module__", ""))
    needed = {"torch"} if _imported_torch(module) else set()
    if module == "tests.programs":
        return [], {"program"}
    if not module.startswith(READ):
        return [], needed
    if isinstance(named, type):
        return [*vars(named).values(), *named.__bases__], needed
    function = inspect.unwrap(named)
    names = set(_names(function.__code__))
    if names & HEAVY:
        needed.add("torch")
    return [function.__globals__[n] for n in names if n in function.__globals__], needed


@cache
def _imported_torch(module: str) -> bool:
    held = list(vars(sys.modules[module]).values()) if module in sys.modules else []
    # By type: asking some lazy objects for their class imports what they stand for.
    names = {value.__name__.partition(".")[0] for value in held if type(value) is ModuleType}
    return bool(names & HEAVY)


def _names(code: CodeType) -> Iterator[str]:
    yield from (name.partition(".")[0] for name in code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class NoTorch(MetaPathFinder):
    """Makes torch a package that is not there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in HEAVY:
            raise ModuleNotFoundError(f"a quick run is one without {name}", name=name)
