"""What takes a while to make is made once in a run, by the worker that comes first, and copied."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec

Options = ParamSpec("Options")

_kept: Path | None = None


def keep_in(folder: Path) -> None:
    """Keep what is made in a folder that all workers of this run see."""
    global _kept
    _kept = folder
    folder.mkdir(exist_ok=True)


def made_once(
    make: Callable[Concatenate[Path, Options], Path],
) -> Callable[Concatenate[Path, Options], Path]:
    """Give every caller with the same options a copy of the folder that the first call filled."""

    @wraps(make)
    def copied(folder: Path, *plain: Options.args, **options: Options.kwargs) -> Path:
        if _kept is None:
            return make(folder, *plain, **options)
        key = hashlib.sha256(repr((plain, sorted(options.items()))).encode()).hexdigest()[:16]
        made = _kept / f"{make.__name__}-{key}"
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                make(made.with_suffix(".begun"), *plain, **options).rename(made)
        shutil.copytree(made, folder, dirs_exist_ok=True)
        return folder

    return copied
