"""A JSON schema as the grammar that llguidance works with, and the names that it requires.

It knows neither tokens nor models; llguidance is imported when the first grammar is compiled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.core.errors import Unsupported

# \b, \f, \r and \uXXXX spell control characters: allowed only where the schema's own texts hold
# some. Lone surrogates llguidance never writes.
_ESCAPES = '"\\nt'
_RARE_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\([bfru])")


def compile_grammar(schema: Mapping[str, Any]) -> str:
    """Return the llguidance grammar of compact JSON of that schema, without control characters.

    Raises:
        Unsupported: `unsupported_schema`, with what the grammar compiler says.
    """
    from llguidance import LLMatcher

    # A schema may carry its own compiler options; a client's must not undo these.
    clean = {key: value for key, value in schema.items() if key != "x-guidance"}
    try:
        text = json.dumps(clean, ensure_ascii=False)
        options: Any = {
            "whitespace_flexible": False,
            "item_separator": ",",
            "key_separator": ":",
            "json_allowed_escapes": _ESCAPES + "".join(sorted(set(_RARE_ESCAPE.findall(text)))),
        }
        grammar = LLMatcher.grammar_from_json_schema(text, overrides=options)
        problem = LLMatcher.validate_grammar(grammar)
    except (ValueError, TypeError, RecursionError) as exc:
        grammar, problem = "", str(exc)
    if not grammar or (problem and not problem.startswith("WARNING")):
        raise Unsupported(
            f"The JSON schema cannot be honoured: {problem.strip()[:300]}",
            code="unsupported_schema",
        )
    return str(grammar)


def required_names(schema: object) -> tuple[str, ...]:
    """Return every name that any object of the schema requires, each once, in their order."""
    names: dict[str, None] = {}
    for node in _nodes(schema):
        required = node.get("required")
        if isinstance(required, list):
            names.update((name, None) for name in required if isinstance(name, str))
    return tuple(names)


def _nodes(schema: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(schema, Mapping):
        yield schema
        for value in schema.values():
            yield from _nodes(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            yield from _nodes(value)
