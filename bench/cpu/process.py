"""Runs one measurement in a process of its own, and sees what else the machine did meanwhile.

Knows how an answer comes back (the last line of stdout, JSON) and how much memory a process has
had, and nothing of what is measured.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

STDERR_LINES = 12
# No downloads, and no threads that a tokenizer would leave behind.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
# In /proc/stat, after user, nice and system: idle and waiting, which are no work.
IDLE_FIELDS = slice(3, 5)


def run(command: list[str], *, timeout_s: float) -> dict[str, Any]:
    """Return the process's answer, and the share of the cores that others used meanwhile.

    One that fails is not available: `message` has the last lines of its stderr.
    """
    failed: dict[str, Any] = {"available": False}
    wall_s, busy_s, own_s = time.monotonic(), _busy_s(), _own_s()
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=os.environ | ENVIRONMENT,
        )
    except subprocess.TimeoutExpired:
        return failed | {"message": f"did not end within {timeout_s:.0f} s"}
    others_s = (_busy_s() - busy_s) - (_own_s() - own_s)
    cores_s = (time.monotonic() - wall_s) * (os.cpu_count() or 1)
    printed = ended.stdout.strip().splitlines()
    if ended.returncode or not printed:
        errors = [line for line in ended.stderr.splitlines() if line.strip(" ^~")]
        last = "\n    ".join(errors[-STDERR_LINES:])
        return failed | {"message": f"ended with status {ended.returncode}\n    {last}"}
    found: dict[str, Any] = json.loads(printed[-1])
    return found | {"others_share": max(0.0, others_s / cores_s)}


def peak_bytes() -> int:
    """Return the largest resident size that this process has had, or has had since `reset_peak`."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the kernel counts no VmHWM")


def reset_peak() -> None:
    """Let `peak_bytes` begin anew; where the kernel refuses, it goes on from what it was."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


def _busy_s() -> float:
    """Return the time that all cores have worked since the machine started; stolen time counts."""
    fields = [
        int(field) for field in Path("/proc/stat").read_text("ascii").split("\n")[0].split()[1:9]
    ]
    return (sum(fields) - sum(fields[IDLE_FIELDS])) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
