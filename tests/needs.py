"""Says what a test needs beside light Python packages, by reading its code; no list is kept.

A test needs torch if its function, its fixtures, or whatever of `tests` and `bench` these reach
import it or use a module that has. It needs a program if they reach what starts one. Conftest.py
turns this into marks; `pytest --quick` runs what needs neither, and without torch at that.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.abc import MetaPathFinder
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

HEAVY = frozenset(("torch", "transformers"))
# Whose code is read on: the application imports torch late, where a model is loaded.
READ = ("tests.", "bench.")
# Whoever reaches these starts a process: a program that may be missing, or another Python.
STARTERS = frozenset(("tests.programs", "subprocess", "app.demo"))
TORCH, PROGRAM = frozenset(("torch",)), frozenset(("program",))
NOTHING: frozenset[str] = frozenset()

_known: dict[int, tuple[Any, Reached]] = {}


def needs_of(item: pytest.Function) -> frozenset[str]:
    """Return which of "torch" and "program" a test needs."""
    parameters = list(item.callspec.params.values()) if hasattr(item, "callspec") else []
    fixtures = list(item._fixtureinfo.name2fixturedefs.values())
    todo: list[Any] = [item.function, *parameters, *_functions(fixtures)]
    found: set[str] = set()
    seen: set[int] = set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        reached = _read(value)
        todo += reached.values
        found |= reached.needs
        if reached.names_fixtures:
            # Asked for under a condition, which the test's id shows: redis_url in [redis-1].
            strings = {name for name in reached.strings if name.partition("_")[0] in item.name}
            todo += _asked_for(item, strings | {p for p in parameters if isinstance(p, str)})
    return frozenset(found)


def _asked_for(item: pytest.Function, names: set[str]) -> list[Any]:
    """Return the functions of fixtures and of those that they take."""
    manager, todo, seen = item.session._fixturemanager, list(names), set(names)
    functions = []
    while todo:
        for definition in manager.getfixturedefs(todo.pop(), item) or ():
            functions.append(definition.func)
            todo += set(definition.argnames) - seen
            seen |= set(definition.argnames)
    return functions


def _functions(fixtures: Iterable[Iterable[Any]]) -> list[Any]:
    return [definition.func for definitions in fixtures for definition in definitions]


@dataclass(frozen=True, slots=True)
class Reached:
    """What a value uses, and what it needs by itself."""

    values: tuple[Any, ...] = ()
    needs: frozenset[str] = frozenset()
    strings: frozenset[str] = frozenset()
    # It asks for fixtures by their names, which are strings.
    names_fixtures: bool = False


def _read(value: Any) -> Reached:
    # The value is kept, so that nothing else is ever found at its place.
    known = _known.get(id(value))
    if known is None:
        known = _known[id(value)] = (value, _read_afresh(value))
    return known[1]


def _read_afresh(value: Any) -> Reached:
    if type(value) is ModuleType:
        return Reached(needs=_needs_of_module(value.__name__))
    named = value if isinstance(value, (FunctionType, type)) else type(value)
    module = str(getattr(named, "__module__", ""))
    needs = _needs_of_module(module) | (TORCH if _has_imported_torch(module) else NOTHING)
    if not module.startswith(READ) or "program" in needs:
        return Reached(needs=needs)
    if isinstance(named, type):
        return Reached((*vars(named).values(), *named.__bases__), needs)
    function = inspect.unwrap(named)
    names, strings = _names_and_strings(function.__code__)
    for name in names:
        needs |= _needs_of_module(name)
    used = tuple(function.__globals__[n] for n in names if n in function.__globals__)
    return Reached(used, needs, strings, "getfixturevalue" in names)


def _needs_of_module(name: str) -> frozenset[str]:
    if name.partition(".")[0] in HEAVY:
        return TORCH
    return PROGRAM if name in STARTERS else NOTHING


@cache
def _has_imported_torch(module: str) -> bool:
    held = list(vars(sys.modules[module]).values()) if module in sys.modules else []
    # By type: asking some lazy objects for their class imports what they stand for.
    return any(type(one) is ModuleType and _needs_of_module(one.__name__) == TORCH for one in held)


def _names_and_strings(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    names = set(code.co_names)
    strings = {constant for constant in code.co_consts if isinstance(constant, str)}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            more_names, more_strings = _names_and_strings(constant)
            names |= more_names
            strings |= more_strings
    return frozenset(names), frozenset(strings)


class NoTorch(MetaPathFinder):
    """Makes torch a package that is not there."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in HEAVY:
            raise ModuleNotFoundError(f"a quick run is one without {name}", name=name)
