"""The table of who may import whom, and what importing costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
APP = ROOT / "app"

# DecodeLimits -> what of app/ it may import, besides core.errors and its own room.
MAY_IMPORT = {
    "app/core": r"app\.core\..*",
    "app/stream": r"app\.core\.log_url",
    "app/engine": r"",
    "app/schemas": r"",
    "app/services": r"app\.engine\.(base|compact_json|sentences)|app\.stream\..*|app\.schemas\..*",
    "app/api": r"app\.(services|schemas|stream)\..*|app\.engine\.(base|registry)",
}
# The model's loader is the door to what runs it: the only service that sees an engine's parts.
LOADER = re.compile(r"app/services/(model_\w+|\w+_model)\.py")
FASTAPI = {"app/core", "app/api"}
BANNED_NAMES = {"utils", "helpers", "common", "manager", "handler", "misc"}


def modules() -> list[Path]:
    return sorted(p for p in APP.rglob("*.py") if p.name != "__init__.py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().rsplit("/", 1)[0]


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    """Architecture: who may import whom."""
    where = path.relative_to(ROOT).as_posix()
    room = next((r for r in MAY_IMPORT if where.startswith(f"{r}/")), None)
    if room is None:
        top = {"main", "__main__", "wiring", "background", "demo"}
        assert where in {f"app/{name}.py" for name in top}
        return
    own = room.replace("/", ".")
    for name in imports(path):
        if name.split(".")[0] == "app":
            allowed = (
                name == "app.core.errors"
                or name.startswith(f"{own}.")
                or re.fullmatch(MAY_IMPORT[room], name)
                or (LOADER.fullmatch(where) and name.startswith("app.engine."))
            )
            assert allowed, f"{where} imports {name}"
            assert name != "app.core.config", f"{where} sees Settings"
        if name.split(".")[0] == "fastapi":
            assert room in FASTAPI, f"{where} imports FastAPI"


def test_names_say_what_a_module_is() -> None:
    """Architecture: banned names."""
    assert not {p.stem for p in modules()} & BANNED_NAMES


def test_no_file_is_longer_than_the_hard_limit() -> None:
    """Architecture: hard limit 400 lines."""
    for path in modules():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def test_importing_the_application_loads_no_model_library() -> None:
    """S0.11, C10: never at import."""
    program = (
        "import sys, app.main\n"
        "heavy = {'torch', 'transformers', 'scipy', 'trafilatura', 'llguidance', 'pypdf'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert printed.stdout.strip() == "[]", printed.stdout + printed.stderr


def test_every_required_package_is_used_or_says_why_not() -> None:
    """Every package of the stack is used; what uvicorn picks up by itself says so there."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {re.split(r"[<>=~]", line)[0] for line in lines if line and not line.startswith("#")}
    source = "\n".join(p.read_text(encoding="utf-8") for p in modules())
    modules_of = {
        "pydantic-settings": "pydantic_settings", "sse-starlette": "sse_starlette",
        "fastapi-offline": "fastapi_offline", "PyYAML": "yaml",
        "charset-normalizer": "charset_normalizer", "httpcore": "httpcore",
        "httpx-sse": "httpx_sse", "pillow": "PIL",
    }  # fmt: skip
    picked_up = {"httptools", "uvloop", "av", "lxml_html_clean", "python-multipart"}
    for name in names - {"einops", "accelerate"} - picked_up:
        assert re.search(rf"\b(import|from) {modules_of.get(name, name)}\b", source), name
    assert "device_map" in source, "accelerate is what device_map needs"
    text = "\n".join(lines)
    assert "einops" in text.split("# Only the remote code")[1]
