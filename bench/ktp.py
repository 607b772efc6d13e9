"""How well ID cards are read: exact match per field and level, processor seconds, memory.

python -m bench.ktp --cards 60 --seed report. Cards are drawn (bench.ktp_cards), never real ones.
Fonts: apt install fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-ocr-a.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import time
from collections import Counter
from contextlib import aclosing
from typing import Any

import psutil

from app.core.errors import AppError
from app.schemas.ktp import flat_values
from app.services.ocr.fields import FIELDS
from app.services.ocr.reader import CardReader
from bench.ktp_cards import FONTS, LEVELS, Card, Level, draw, invent
from bench.ktp_others import others
from bench.ktp_photos import photograph

GOALS = {"clean": (0.985, 0.99, 0.0), "mild": (0.975, 0.98, 0.0), "hard": (0.90, 0.93, 0.01)}


async def read(reader: CardReader, data: bytes) -> dict[str, Any]:
    """Return the details of a card, or its error's code."""
    try:
        photo = await reader.check(data)
        async with aclosing(reader.read(photo)) as drafts:
            async for draft in drafts:
                if draft.terminal and isinstance(draft.data, dict):
                    return draft.data
    except AppError as error:
        return {"code": error.code}
    return {"code": "nothing"}


def same(name: str, printed: str, found: str) -> bool:
    """Compare exactly; an address without its dots."""
    if name == "alamat":
        printed, found = (" ".join(text.replace(".", " ").split()) for text in (printed, found))
    return printed == found


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def measure(reader: CardReader, level: Level, count: int, seed: str, *, misses: bool) -> None:
    """Read so many new cards of a level and print what came of it."""
    right: Counter[str] = Counter()
    wrong_nik = refused = 0
    cpu: list[float] = []
    for number in range(count):
        rng = random.Random(f"{seed} {level} {number}")
        card: Card = invent(rng)
        data = photograph(draw(card, rng), level, rng)
        started = time.process_time()
        answer = await read(reader, data)
        cpu.append(time.process_time() - started)
        refused += "code" in answer
        found = dict.fromkeys(FIELDS, "") | flat_values(answer.get("card", {}))
        wrong_nik += found["nik"] not in ("", card.fields["nik"])
        for name, printed in card.fields.items():
            right[name] += same(name, printed, found[name])
            if misses and not same(name, printed, found[name]):
                print(f"  {level} {number} {name}: {printed!r} read as {found[name]!r}")
    mean = sum(right.values()) / (count * len(FIELDS))
    goal = GOALS[level]
    print(
        f"{level:6} {count:3} cards  fields {mean:.3f} (goal {goal[0]})  NIK "
        f"{right['nik'] / count:.3f} (goal {goal[1]})  wrong NIK {wrong_nik / count:.3f}  "
        f"refused {refused}  CPU s p50 {percentile(cpu, 0.5):.1f} p95 {percentile(cpu, 0.95):.1f}"
    )
    print("       " + "  ".join(f"{name} {right[name] / count:.2f}" for name in FIELDS), flush=True)


async def measure_others(reader: CardReader, count: int, seed: str) -> None:
    """Read things that are no card and print how many were taken for one."""
    accepted = []
    for number, (kind, data) in enumerate(others(count, random.Random(f"{seed} others"))):
        answer = await read(reader, data)
        if answer.get("code") != "not_a_ktp":
            accepted.append(f"{kind} {number}: {answer.get('code', 'a card')}")
    print(f"others {count:3} things  taken for a card: {len(accepted)}  {', '.join(accepted)}")


async def run(arguments: argparse.Namespace) -> None:
    """Measure every level, then what is no card."""
    calls: list[Any] = []
    connect = socket.socket.connect

    def watched(self: socket.socket, address: Any) -> None:
        calls.append(address)
        connect(self, address)

    socket.socket.connect = watched  # type: ignore[method-assign, assignment]
    before = psutil.Process().memory_info().rss
    reader = CardReader()
    await reader.require()
    for level in arguments.levels.split(","):
        await measure(reader, level, arguments.cards, arguments.seed, misses=arguments.misses)
    if arguments.others:
        await measure_others(reader, arguments.others, arguments.seed)
    added = psutil.Process().memory_info().rss - before
    print(f"RSS added {added / 1e6:.0f} MB (drawing included)  network calls {len(calls)}")
    await reader.aclose()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cards", type=int, default=60, help="a level")
    parser.add_argument("--others", type=int, default=40, help="things that are no card")
    parser.add_argument("--seed", default="report")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--misses", action="store_true", help="print every value that is wrong")
    if not (FONTS / "liberation").is_dir():
        print("few fonts: apt install fonts-liberation fonts-freefont-ttf fonts-ocr-a")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
