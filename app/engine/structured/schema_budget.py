"""Shares a token budget among the strings of a JSON schema, so that none takes the others' room.

Plain arithmetic on the schema: knows neither tokens nor grammars.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

CHARS_PER_TOKEN = 3.5
# Names, brackets and quotes come in short tokens.
FRAME_CHARS_PER_TOKEN = 2.0
MIN_STRING_CHARS = 8
MIN_ITEM_CHARS = 24
_DEPTH = 12


def fit_schema(
    schema: Mapping[str, Any], max_tokens: int, *, chars_per_token: float = CHARS_PER_TOKEN
) -> dict[str, Any]:
    """Return the schema with the bounds of its strings lowered to what `max_tokens` can hold.

    When all bounded strings at their full length fit, the schema comes back as it is. Otherwise
    each gets a share in proportion to the square root of its `maxLength`, so that a long field
    gives up more than a short one; and a list whose items would become too short loses optional
    items. Strings without a `maxLength`, and everything that is not a string, stay as they are.
    `chars_per_token` belongs to the language: 3 to 4 for English, under 1 for Chinese.
    """
    fitted: dict[str, Any] = copy.deepcopy(dict(schema))
    strings = _strings(fitted, fitted, count=1)
    wanted = sum(int(node["maxLength"]) * count for node, count in strings)
    frame_chars = len(_frame(fitted, fitted))
    room = (max_tokens - frame_chars / FRAME_CHARS_PER_TOKEN) * chars_per_token
    if not strings or wanted <= room:
        return fitted
    for node, _ in strings:
        node.setdefault("minLength", 0)
    _shrink(fitted, room)
    return fitted


def _shrink(fitted: dict[str, Any], room: float) -> None:
    """Set new bounds: fewest items first if the items would be too short with all of them."""
    shares = _shares(_strings(fitted, fitted, count=1), room)
    for node in _arrays(fitted, fitted):
        items = _resolve(node["items"], fitted)
        share = shares.get(id(items))
        if (
            isinstance(items, dict)
            and share is not None
            and share < max(MIN_ITEM_CHARS, int(items["maxLength"]) // 2)
        ):
            node["maxItems"] = max(1, int(node.get("minItems", 0)))
    strings = _strings(fitted, fitted, count=1)
    shares = _shares(strings, room)
    for node, _ in strings:
        floor = max(MIN_STRING_CHARS, int(node["minLength"]))
        node["maxLength"] = min(int(node["maxLength"]), max(floor, int(shares[id(node)])))


def _shares(strings: list[tuple[dict[str, Any], int]], room: float) -> dict[int, float]:
    """Share `room` characters by square roots; what a short field cannot use goes to the others."""
    shares: dict[int, float] = {}
    left = list(strings)
    while left:
        total = sum(math.sqrt(int(node["maxLength"])) * count for node, count in left) or 1.0
        unit = max(0.0, room) / total
        full = [
            item
            for item in left
            if unit * math.sqrt(int(item[0]["maxLength"])) >= int(item[0]["maxLength"])
        ]
        if not full:
            shares.update((id(n), unit * math.sqrt(int(n["maxLength"]))) for n, _ in left)
            break
        for node, count in full:
            shares[id(node)] = float(node["maxLength"])
            room -= float(node["maxLength"]) * count
        left = [item for item in left if id(item[0]) not in shares]
    return shares


def _strings(
    node: object, root: Mapping[str, Any], *, count: int, depth: int = 0
) -> list[tuple[dict[str, Any], int]]:
    """Return the bounded strings below `node`, each with how often it may occur."""
    node = _resolve(node, root)
    if not isinstance(node, dict) or depth > _DEPTH:
        return []
    if node.get("type") == "string" and not {"enum", "const", "pattern", "format"} & node.keys():
        return [(node, count)] if isinstance(node.get("maxLength"), int) else []
    found: dict[int, tuple[dict[str, Any], int]] = {}
    below = [(child, count) for child in _members(node)]
    if "items" in node:
        most = node.get("maxItems")
        below.append((node["items"], count * max(1, int(most or node.get("minItems") or 1))))
    for child, times in below:
        for string, occurs in _strings(child, root, count=times, depth=depth + 1):
            before = found.get(id(string), (string, 0))[1]
            found[id(string)] = (string, before + occurs)
    return list(found.values())


def _arrays(node: object, root: Mapping[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    node = _resolve(node, root)
    if not isinstance(node, dict) or depth > _DEPTH:
        return []
    below = _members(node) + ([node["items"]] if isinstance(node.get("items"), dict) else [])
    found = [item for child in below for item in _arrays(child, root, depth + 1)]
    return [node, *found] if "maxItems" in node and "items" in node else found


def _members(node: dict[str, Any]) -> list[Any]:
    members = list(node.get("properties", {}).values())
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        members += node.get(key, [])
    return members


def _resolve(node: object, root: Mapping[str, Any]) -> object:
    """Follow a local `$ref`; anything that cannot be followed is left to the grammar compiler."""
    for _ in range(_DEPTH):
        if not isinstance(node, dict) or not str(node.get("$ref", "")).startswith("#/"):
            break
        target: object = root
        for part in str(node["$ref"])[2:].split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        node = target
    return node


def _frame(node: object, root: Mapping[str, Any], depth: int = 0) -> str:
    """Return roughly the text around the strings: names, brackets, quotes, the fixed values."""
    node = _resolve(node, root)
    if not isinstance(node, dict) or depth > _DEPTH:
        return "null"
    if "const" in node:
        return json.dumps(node["const"])
    if "enum" in node:
        return max((json.dumps(value) for value in node["enum"]), key=len, default="")
    if "properties" in node:
        pairs = (f'"{k}":{_frame(v, root, depth + 1)}' for k, v in node["properties"].items())
        return "{" + ",".join(pairs) + "}"
    if "items" in node:
        most = max(1, int(node.get("maxItems") or node.get("minItems") or 1))
        return "[" + ",".join([_frame(node["items"], root, depth + 1)] * min(most, 50)) + "]"
    return '""' if node.get("type") == "string" else "null"
