"""Compiles the C files of this folder, once in a process, and loads what came of it.

Where something is missing (the processor's instructions, a compiler), there is no library and the
reason is logged; torch's kernels then do the work. It imports no torch: whoever only counts memory
asks too. It does not know what the functions compute.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import structlog

from app.engine.quantized.cpu_flags import cpu_flags

NEEDED_FLAGS = frozenset(("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "fma"))
AMX_FLAGS = frozenset(("amx_tile", "amx_int8"))
COMPILE_TIMEOUT_S = 60
_FOLDER = Path(__file__).parent
_SOURCES = ("gemv.c", "gemm.c")
_OPTIONS = (
    *("-O3", "-fPIC", "-fopenmp", "-mprefer-vector-width=512", "-mfma"),
    *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"),
)

log = structlog.get_logger(__name__)


def build(flags: frozenset[str], compiler: str | None) -> bytes | None:
    """Return the library for a processor of these flags, or None where there can be none."""
    if missing := NEEDED_FLAGS - flags:
        log.info("native_kernels_missing", reason=f"no {', '.join(sorted(missing))}")
        return None
    if compiler is None:
        log.warning("native_kernels_missing", reason="no C compiler: install gcc")
        return None
    try:
        return _compiled(compiler)
    except (OSError, subprocess.SubprocessError) as exc:
        said = str(getattr(exc, "stderr", None) or exc).strip().splitlines()
        log.warning("native_kernels_missing", reason=f"not compiled: {said[:1]}")
        return None


@cache
def image() -> bytes | None:
    """Return the library of this machine, compiled by the first caller in about a second."""
    return build(cpu_flags(), shutil.which("gcc") or shutil.which("cc"))


@cache
def library() -> ctypes.CDLL | None:
    """Return the loaded library, or None where there can be none. torch must be imported before.

    It is linked to no OpenMP, and so finds that of torch, which is open to all: two of them would
    have their threads wait for each other's.
    """
    made = image()
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
    loaded.int4_gemv.argtypes = (*[ctypes.c_void_p] * 4, *[ctypes.c_int64] * 3, ctypes.c_int)
    loaded.gemm.argtypes = (*[ctypes.c_void_p] * 5, *[ctypes.c_int64] * 3, *[ctypes.c_int] * 2)
    return loaded


def _compiled(compiler: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="precis-native-") as folder:
        objects = [str(Path(folder, name).with_suffix(".o")) for name in _SOURCES]
        made = Path(folder, "native.so")
        for name, to in zip(_SOURCES, objects, strict=True):
            _run(compiler, *_OPTIONS, "-c", str(_FOLDER / name), "-o", to)
        _run(compiler, "-shared", *objects, "-o", str(made))
        return made.read_bytes()


def _run(*command: str) -> None:
    subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S
    )
