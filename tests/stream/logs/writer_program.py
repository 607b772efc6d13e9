"""A process that writes and follows one session until it is killed: `URL SEED`, or `URL idle`.

It prints each event that its follower was given: its index, and its text as bytes in hexadecimal.
"""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import structlog

from app.core.errors import AppError
from app.stream.event import Draft, Event
from app.stream.logs.open import open_log
from app.stream.sessions import Sessions

ALPHABETS = (
    "abc xyz.,",
    "äöüßéñ",
    "مرحبا",
    "日本語の文",
    "😀👩‍👩‍👧🇮🇩",
    "\n\r\t\u2028\u2029\x85\x00",
    "\ud800\udfff",
)


def pieces(seed: int) -> Iterator[str]:
    """Yield texts of every script, for ever; the same for the same seed."""
    rng = random.Random(seed)
    while True:
        yield "".join(rng.choices(rng.choice(ALPHABETS), k=rng.randint(1, 12)))


def exact(text: str) -> bytes:
    """Return a text as bytes that no other text has, lone surrogates included."""
    return text.encode("utf-8", "surrogatepass")


def failure(error: AppError, last: Event | None = None) -> Draft:
    return Draft("error", {"code": error.code}, terminal=True)


async def main(url: str, seed: str) -> None:
    # Standard output is for the events.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sessions = Sessions(open_log(url), endings={"k": failure})

    async def drafts() -> AsyncGenerator[Draft, None]:
        if seed == "idle":
            yield Draft("", "a")
            await asyncio.Event().wait()
        for piece in pieces(int(seed)):
            yield Draft("", piece)

    async with asyncio.TaskGroup() as group:
        group.create_task(sessions.maintain())
        header = await sessions.start("k", drafts, session_id="mine", fingerprint="f")
        async with aclosing(sessions.follow(header)) as events:
            async for event in events:
                print(event.index, exact(str(event.data)).hex(), flush=True)


def started(url: str, seed: str) -> subprocess.Popen[str]:
    """Start this program; its lines can be read."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.stream.logs.writer_program", url, seed],
        stdout=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
