"""The style of the house, and what importing costs; who may import whom is in pyproject.toml."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
APP = ROOT / "app"
BANNED_NAMES = {"utils", "helpers", "common", "manager", "handler", "misc"}
MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_MODULES = 300, 60, 16

FILES = sorted(APP.rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py"]


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_names_say_what_a_module_is() -> None:
    """Architecture: banned names, of files and of folders."""
    names = {part.removesuffix(".py") for path in FILES for part in path.relative_to(APP).parts}
    assert not names & BANNED_NAMES


def test_no_file_is_longer_than_the_hard_limit() -> None:
    """Architecture: hard limit 300 lines."""
    lines = {place(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: n for path, n in lines.items() if n > MOST_LINES} == {}


def test_a_function_fits_a_screen() -> None:
    """Architecture: 60 lines at most."""
    lines = {
        f"{place(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert {name: n for name, n in lines.items() if n > MOST_LINES_OF_A_FUNCTION} == {}


def test_a_folder_can_be_taken_in_at_once() -> None:
    """Architecture: at most 16 modules in a folder."""
    folders = Counter(place(path.parent) for path in MODULES)
    assert {folder: n for folder, n in folders.items() if n > MOST_MODULES} == {}


def test_a_room_says_what_it_is_and_nothing_else() -> None:
    """Architecture: each `__init__.py` is one docstring, and no folder of modules lacks it."""
    for folder in {path.parent for path in FILES}:
        body = ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body
        said = [ast.unparse(statement) for statement in body]
        assert len(body) == 1, f"{place(folder)}: {said}"
        assert ast.get_docstring(ast.Module(body, [])), f"{place(folder)}: {said}"


def test_imports_are_absolute() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.ImportFrom) or node.level == 0, place(path)


def test_importing_the_application_loads_no_model_library() -> None:
    """S0.11, C10: never at import."""
    program = (
        "import sys, app.main\n"
        "heavy = {'torch', 'transformers', 'scipy', 'trafilatura', 'llguidance', 'pypdf',\n"
        "    'sqlalchemy', 'alembic', 'jwt', 'pwdlib', 'Sastrawi', 'psycopg'}\n"
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
    source = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    modules_of = {
        "pydantic-settings": "pydantic_settings", "sse-starlette": "sse_starlette",
        "fastapi-offline": "fastapi_offline", "PyYAML": "yaml",
        "charset-normalizer": "charset_normalizer", "httpcore": "httpcore",
        "PyJWT": "jwt", "PySastrawi": "Sastrawi", "pwdlib[argon2]": "pwdlib",
        "httpx-sse": "httpx_sse", "pillow": "PIL", "prometheus-client": "prometheus_client",
    }  # fmt: skip
    picked_up = {
        "httptools",
        "uvloop",
        "av",
        "lxml_html_clean",
        "python-multipart",
        "aiosqlite",
        "greenlet",
        "psycopg[binary]",
    }
    for name in names - {"einops", "accelerate"} - picked_up:
        assert re.search(rf"\b(import|from) {modules_of.get(name, name)}\b", source), name
    assert "device_map" in source, "accelerate is what device_map needs"
    text = "\n".join(lines)
    assert "einops" in text.split("# Only the remote code")[1]
