"""Compiles the C files of this folder, once in a process, and loads what came of it.

There is a library for each level of instructions. Where something is missing (the processor's
instructions, a compiler), there is none and the reason is logged; the layers then compute without.
It imports no torch: whoever only counts memory asks too. It does not know what the functions
compute.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal

import structlog

from app.engine.quantized.cpu_flags import cpu_flags

Level = Literal["amx", "vnni", "avx512", "avx2"]
# Best first. Each level's flags are those of /proc/cpuinfo.
_AVX2 = frozenset(("avx2", "fma", "f16c"))
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512vl"}
_VNNI = _AVX512 | {"avx512_vnni"}
LEVEL_FLAGS: dict[Level, frozenset[str]] = {
    "amx": _VNNI | {"amx_tile", "amx_bf16"},
    "vnni": _VNNI,
    "avx512": _AVX512,
    "avx2": _AVX2,
}
COMPILE_TIMEOUT_S = 60
_FOLDER = Path(__file__).parent
# The kernels round rows in plain loops, which become vectors only where sums may be reordered.
_OPTIONS = (
    *("-O3", "-fPIC", "-fopenmp", "-mprefer-vector-width=512", "-fno-math-errno"),
    *("-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-ffinite-math-only"),
)

log = structlog.get_logger(__name__)


def levels(flags: frozenset[str]) -> list[Level]:
    """Return the levels that a processor of these flags has, the best one first."""
    return [level for level, needed in LEVEL_FLAGS.items() if needed <= flags]


def build(flags: frozenset[str], compiler: str | None, level: Level | None = None) -> bytes | None:
    """Return the library for a processor of these flags, or None where there can be none.

    `level`: another than the best one.
    """
    level = level or next(iter(levels(flags)), None)
    if level is None or LEVEL_FLAGS[level] - flags:
        missing = LEVEL_FLAGS[level or "avx2"] - flags
        log.info("native_kernels_missing", reason=f"no {', '.join(sorted(missing))}")
        return None
    if compiler is None:
        log.warning("native_kernels_missing", reason="no C compiler: install gcc")
        return None
    try:
        return _compiled(compiler, level)
    except (OSError, subprocess.SubprocessError) as exc:
        said = str(getattr(exc, "stderr", None) or exc).strip().splitlines()
        log.warning("native_kernels_missing", reason=f"not compiled: {said[:1]}")
        return None


@cache
def image(level: Level | None) -> bytes | None:
    """Return the library of a level (None: there is no level), compiled by the first caller."""
    return build(cpu_flags(), shutil.which("gcc") or shutil.which("cc"), level)


@cache
def library(level: Level) -> ctypes.CDLL | None:
    """Return the loaded library, or None where there can be none. torch must be imported before.

    It is linked to no OpenMP, and so finds that of torch, which is open to all: two of them would
    have their threads wait for each other's.
    """
    made = image(level)
    if made is None:
        return None
    with tempfile.TemporaryDirectory(prefix="precis-native-") as folder:
        file = Path(folder, "native.so")
        file.write_bytes(made)
        try:
            loaded = ctypes.CDLL(str(file))
        except OSError as exc:
            log.warning("native_kernels_missing", reason=f"not loaded: {exc}")
            return None
    arguments: list[Any] = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 3 + [ctypes.c_int] * 2
    loaded.matmul.argtypes = arguments
    loaded.pack.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 2 + [ctypes.c_int]
    if level == "amx":
        loaded.amx_matmul.argtypes = arguments
    return loaded


def can_compile() -> bool:
    """Tell whether this machine has kernels of our own, without loading them."""
    return image(next(iter(levels(cpu_flags())), None)) is not None


@cache
def best_level() -> Level | None:
    """Return the best level that can be compiled and loaded here, and that the kernel allows."""
    for level in levels(cpu_flags()):
        loaded = library(level)
        if loaded is None:
            break
        if level != "amx" or loaded.allow_amx() == 0:
            return level
    return None


def _compiled(compiler: str, level: Level) -> bytes:
    sources = ("matmul.c", "pack.c", *(["amx.c"] if level == "amx" else []))
    machine = [f"-m{flag.replace('_', '-')}" for flag in sorted(LEVEL_FLAGS[level])]
    machine = [flag.replace("avx512-vnni", "avx512vnni") for flag in machine]
    with tempfile.TemporaryDirectory(prefix="precis-native-") as folder:
        objects = [str(Path(folder, name).with_suffix(".o")) for name in sources]
        made = Path(folder, "native.so")
        for name, to in zip(sources, objects, strict=True):
            _run(compiler, *_OPTIONS, *machine, "-c", str(_FOLDER / name), "-o", to)
        _run(compiler, "-shared", *objects, "-o", str(made))
        return made.read_bytes()


def _run(*command: str) -> None:
    subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S
    )
