"""Who a log object is among the processes of one host, and whether another one still lives.

It sees neither containers nor other hosts: processes that share a log this way share their pids.
"""

from __future__ import annotations

import os
import secrets

import psutil  # type: ignore[import-untyped, unused-ignore]

# A step of the system clock moves the start times that the system tells.
START_TOLERANCE_S = 10.0

_open_here: set[str] = set()


def enter() -> str:
    """Return a new identity, alive until `leave` or the end of this process."""
    identity = f"{os.getpid()}:{psutil.Process().create_time():.2f}:{secrets.token_hex(6)}"
    _open_here.add(identity)
    return identity


def leave(identity: str) -> None:
    """End an identity of this process."""
    _open_here.discard(identity)


def alive(identity: str) -> bool:
    """Say whether an identity lives.

    A process that got the pid of a dead one is told from it by its start time; after a restart in
    a container, where pids come again within seconds, by what this process knows of itself.
    """
    if identity in _open_here:
        return True
    pid, start, _ = identity.split(":")
    if int(pid) == os.getpid():
        return False
    try:
        process = psutil.Process(int(pid))
        # A killed process whose parent has not asked for its status is still listed.
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        started_s: float = process.create_time()
    except psutil.Error:
        return False
    return abs(started_s - float(start)) < START_TOLERANCE_S
