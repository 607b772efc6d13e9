"""How many queries are understood exactly: `python -m bench.queries [--show tuned]`.

The queries of queries.tsv are split in half by a hash. The rules were tuned on one half only; the
other half says what to expect of queries that nobody has seen. Every field counts but `text`.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.services.market.interpretation.interpretation import Interpretation
from app.services.market.interpretation.parser import parse

QUERIES = Path(__file__).with_name("queries.tsv")
NAMES = {"min": "min_price", "max": "max_price"}
NUMBERS = {"min", "max", "quantity"}
LISTS = {"tags", "without"}


@dataclass(frozen=True, slots=True)
class Expected:
    """A query and the fields that it should give."""

    language: str
    query: str
    fields: dict[str, Any]

    @property
    def half(self) -> str:
        """Say which half a query belongs to, by nothing but its text."""
        return "tuned" if hashlib.sha256(self.query.encode()).digest()[0] % 2 else "unseen"


def expectations() -> Iterator[Expected]:
    """Yield the lines of the file."""
    for line in QUERIES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            language, query, said = line.split("\t")
            yield Expected(language, query, dict(map(_field, said.split("; "))))


def _field(said: str) -> tuple[str, Any]:
    name, _, value = said.partition("=")
    if name == "near":
        return "near_me", True
    if name in LISTS:
        return name, sorted(value.split(","))
    return NAMES.get(name, name), int(value) if name in NUMBERS else value


def fields_of(found: Interpretation) -> dict[str, Any]:
    """Return what counts of an interpretation."""
    fields = found.as_dict()
    del fields["text"], fields["by"]
    if not fields["near_me"]:
        del fields["near_me"]
    for name in LISTS & fields.keys():
        fields[name] = sorted(fields[name])
    if "place" in fields:
        fields["place"] = fields["place"]["name"]
    return {name: value for name, value in fields.items() if value != []}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--show", choices=["tuned", "unseen"], help="print what was missed")
    show = arguments.parse_args().show
    rows = list(expectations())
    parse("laptop")
    began = time.process_time()
    found = [fields_of(parse(row.query)) for row in rows]
    took_ms = (time.process_time() - began) * 1000 / len(rows)
    print(f"{'half':8} {'language':8} {'queries':>7} {'exact':>6} {'share':>6}")
    for half in ("tuned", "unseen"):
        for language in ("id", "en", "both"):
            pairs = [
                (row, fields)
                for row, fields in zip(rows, found, strict=True)
                if row.half == half and language in (row.language, "both")
            ]
            exact = sum(row.fields == fields for row, fields in pairs)
            print(f"{half:8} {language:8} {len(pairs):7} {exact:6} {exact / len(pairs):6.3f}")
    print(f"{took_ms:.2f} ms of CPU a query on average")
    for row, fields in zip(rows, found, strict=True):
        if row.half == show and row.fields != fields:
            print(f"\n{row.query}\n  expected {row.fields}\n  found    {fields}")


if __name__ == "__main__":
    main()
