"""Many article jobs at once, two readers each, one of which keeps losing its connection.

Starts a paced model server and one `python -m app` that writes with it. Starts JOBS jobs together;
the first reader of each stays, the second leaves five times at random points and comes back with
`Last-Event-ID`. Compares what both hold.

    python -m bench.jobs [--jobs 20] [--rate 100] [--words 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.demo import free_port, server
from bench.failover import running

RECONNECTS = 5
GIVE_UP_S = 300.0


@dataclass
class Reader:
    """What one client of a job holds, in order of arrival."""

    job_id: str
    cuts: list[int]
    indexes: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1]["step"] in ("complete", "error")

    @property
    def complete(self) -> bool:
        return bool(self.events) and self.events[-1]["step"] == "complete"

    @property
    def gaps(self) -> int:
        return max(self.indexes, default=-1) + 1 - len(set(self.indexes))

    @property
    def duplicates(self) -> int:
        return len(self.indexes) - len(set(self.indexes))

    @property
    def ordered(self) -> bool:
        return self.indexes == sorted(self.indexes)

    @property
    def monotone(self) -> bool:
        told = [event["progress"] for event in self.events]
        return told == sorted(told)


async def read(http: httpx.AsyncClient, reader: Reader) -> None:
    """Read a job to its end, leaving at each cut and coming back."""
    while not reader.ended:
        reader.connections += 1
        head = {}
        if reader.indexes:
            head["Last-Event-ID"] = f"{reader.job_id}:{reader.indexes[-1]}"
        leave_after = len(reader.events) + reader.cuts.pop(0) if reader.cuts else None
        async with http.stream("GET", f"/progress/{reader.job_id}", headers=head) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    reader.indexes.append(int(line.rpartition(":")[2]))
                elif line.startswith("data: "):
                    reader.events.append(json.loads(line.removeprefix("data: ")))
                    if len(reader.events) == leave_after:
                        break


async def run(base: str, jobs: int) -> tuple[list[Reader], float]:
    """Start all jobs, read them all; return the readers and the seconds it took."""
    chance = random.Random(0)
    limits = httpx.Limits(max_connections=None)
    timeout = httpx.Timeout(30)
    began_s = time.monotonic()
    async with (
        httpx.AsyncClient(base_url=base, timeout=timeout, limits=limits, trust_env=False) as http,
        asyncio.timeout(GIVE_UP_S),
    ):
        topics = [{"topic": f"The harbour, part {number}"} for number in range(jobs)]
        answers = await asyncio.gather(*(http.post("/start-job", json=body) for body in topics))
        readers = []
        for answer in answers:
            answer.raise_for_status()
            job_id = answer.json()["job_id"]
            cuts = [chance.randint(1, 12) for _ in range(RECONNECTS)]
            readers += [Reader(job_id, []), Reader(job_id, cuts)]
        await asyncio.gather(*(read(http, reader) for reader in readers))
    return readers, time.monotonic() - began_s


def report(readers: list[Reader], took_s: float) -> bool:
    """Print the figures; return whether nothing was lost."""
    pairs = list(zip(readers[::2], readers[1::2], strict=True))
    complete = sum(one.complete and two.complete for one, two in pairs)
    same = sum(one.events == two.events for one, two in pairs)
    gaps, doubled = sum(r.gaps for r in readers), sum(r.duplicates for r in readers)
    ordered, monotone = sum(r.ordered for r in readers), sum(r.monotone for r in readers)
    print(f"jobs complete                            {complete} of {len(pairs)}")
    print(f"jobs whose two readers hold the same     {same} of {len(pairs)}")
    print(f"events read / connections                {sum(len(r.events) for r in readers)} / "
          f"{sum(r.connections for r in readers)}")  # fmt: skip
    print(f"gaps / duplicates                        {gaps} / {doubled}")
    print(f"readers with ids in order                {ordered} of {len(readers)}")
    print(f"readers whose progress never went back   {monotone} of {len(readers)}")
    print(f"time from the first topic to the last end  {took_s:.1f} s")
    whole = complete == same == len(pairs) and ordered == monotone == len(readers)
    return whole and gaps == doubled == 0


def main() -> None:
    """Print one table; fail when a reader lost something."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--rate", type=float, default=100.0, help="words a second of the model")
    parser.add_argument("--words", type=int, default=100, help="words of a section")
    options = parser.parse_args()
    model_port = free_port()
    model = [sys.executable, "-m", "bench.upstream", "--port", str(model_port)]
    paced = ["--words-per-second", str(options.rate), "--words", str(options.words)]
    variables = {"ENGINE_URL": f"http://127.0.0.1:{model_port}/v1", "LOG_LEVEL": "error"}
    with (
        running([*model, *paced], model_port),
        server(free_port(), variables=variables) as app,
    ):
        fine = report(*asyncio.run(run(app.base, options.jobs)))
    raise SystemExit(0 if fine else 1)


if __name__ == "__main__":
    main()
