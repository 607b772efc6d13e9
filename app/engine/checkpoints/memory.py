"""The memory that this process may still take: the kernel's counters, and the cgroups'.

It does not know what the memory is wanted for.
"""

from __future__ import annotations

from pathlib import Path

_UNLIMITED_BYTES = 1 << 60


def available_bytes(*, root: Path = Path("/"), limit_bytes: int | None = None) -> int | None:
    """Return the memory that this process may still take, or None where nothing says.

    The least of the kernel's MemAvailable, the room in every memory cgroup that holds the process
    (v2 and v1; the reclaimable page cache counts as room) and `limit_bytes`. `root` is where /proc
    and /sys are found.
    """
    rooms = [_mem_available(root), _cgroup_room(root), limit_bytes]
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else None


def _mem_available(root: Path) -> int | None:
    try:
        for line in (root / "proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if root != Path("/"):
        return None
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _cgroup_room(root: Path) -> int | None:
    """Return the least room of the process's own memory cgroups and all their ancestors."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return None
    rooms: list[int] = []
    for line in lines:
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            base = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # Inside a container the path is the host's and absent here; the mount point then holds it.
        folder = base / path.strip("/")
        for group in (folder, *folder.parents):
            if group == base or base in group.parents:
                room = _room(group, *names)
                if room is not None:
                    rooms.append(room)
    return min(rooms) if rooms else None


def _room(group: Path, limit_name: str, usage_name: str, cache_name: str) -> int | None:
    try:
        limit_text = (group / limit_name).read_text("ascii").strip()
        if limit_text == "max" or int(limit_text) >= _UNLIMITED_BYTES:
            return None
        usage = int((group / usage_name).read_text("ascii"))
    except (OSError, ValueError):
        return None
    reclaimable = 0
    try:
        for line in (group / "memory.stat").read_text("ascii").splitlines():
            if line.split(" ", 1)[0] == cache_name:
                reclaimable = int(line.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return int(limit_text) - usage + reclaimable
