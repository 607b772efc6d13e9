"""Tells whether a process of this host is alive, so that another can end the runs of a dead one.

It works by process id, so processes that share a log this way must run on one host and see each
other's ids: not in different containers.
"""

from __future__ import annotations

import os
import secrets

import psutil  # type: ignore[import-untyped, unused-ignore]

# A step of the system clock moves the start times that the system reports.
START_TOLERANCE_S = 10.0

_registered: set[str] = set()


def register() -> str:
    """Return a new identity, alive until it is unregistered or this process ends."""
    identity = f"{os.getpid()}:{psutil.Process().create_time():.2f}:{secrets.token_hex(6)}"
    _registered.add(identity)
    return identity


def unregister(identity: str) -> None:
    """End an identity of this process."""
    _registered.discard(identity)


def is_alive(identity: str) -> bool:
    """Return whether the process of an identity is alive and has not unregistered it.

    A process that got the pid of a dead one has another start time. In a container that was
    restarted even that may be the same, so for its own pid this process trusts only its own list.
    """
    if identity in _registered:
        return True
    pid, start, _ = identity.split(":")
    if int(pid) == os.getpid():
        return False
    try:
        process = psutil.Process(int(pid))
        # A killed process is listed until its parent has read its exit status.
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        started_s: float = process.create_time()
    except psutil.Error:
        return False
    return abs(started_s - float(start)) < START_TOLERANCE_S
