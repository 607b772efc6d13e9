"""What holds for every test: no setting comes from the shell or from a `.env` of the folder.

`pytest --weights int4` runs the suite with tiny models in that format, see weight_formats.py.
`pytest --quick` runs the tests that need no torch and no program, see needs.py.
`pytest -n 2 --dist worksteal` runs it on two workers: each has ports, a Redis and models of its
own, and the tiny checkpoints are made once for all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import Any

import pytest

from app.core.config import Settings
from app.core.logging import configure_logging
from tests import made_once, weight_formats
from tests.needs import HEAVY, NoTorch, needs_of

if "PYTEST_XDIST_WORKER" in os.environ:
    # Nothing has loaded torch yet. Workers with a thread for every core would wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"

for _name in Settings.model_fields:
    os.environ.pop(_name.upper(), None)
Settings.model_config["env_file"] = None

# As every application does, so that a test sees log lines whether or not one was built before it.
configure_logging("info", "console")

_notes: list[str] = []


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of several; what it starts sees the same environment."""
    return hasattr(config, "workerinput")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--weights",
        choices=weight_formats.NAMES,
        help="hold the tiny models in this format, but for those of tests that name one",
    )
    parser.addoption(
        "--quick",
        action="store_true",
        help="run the tests that need no torch, browser, Redis or other program",
    )


def pytest_configure(config: pytest.Config) -> None:
    weight_formats.choose(config.getoption("--weights"))
    if config.getoption("--quick"):
        sys.meta_path.insert(0, NoTorch())


@pytest.fixture(scope="session", autouse=True)
def _made_once(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let all workers of a run find what one has made."""
    own = tmp_path_factory.getbasetemp()
    made_once.keep_in((own.parent if is_worker(pytestconfig) else own) / "made-once")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Leave out of a quick run what cannot be imported without torch."""
    report = yield
    if report.failed and collector.config.getoption("--quick"):
        cause = report.call.excinfo.value.__cause__  # type: ignore[attr-defined]
        if isinstance(cause, ModuleNotFoundError) and cause.name in HEAVY:
            report.outcome, report.longrepr, report.result = "passed", None, []
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Mark what tests need, and put those first that take long: the last one ends a run."""
    needs = {item: needs_of(item) for item in items}
    for item, needed in needs.items():
        for name in sorted(needed):
            item.add_marker(name)
    if config.getoption("--quick"):
        config.hook.pytest_deselected(items=[item for item in items if needs[item]])
        items[:] = [item for item in items if not needs[item]]
    items.sort(key=lambda item: (-_allowed_s(item), not needs[item]))


def _allowed_s(item: pytest.Item) -> float:
    """Return how long a test says that it may take, 0 if it says nothing."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session.config):
        session.config.workeroutput["notes"] = weight_formats.notes()  # type: ignore[attr-defined]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the notes of a worker that has ended."""
    _notes.extend(getattr(node, "workeroutput", {}).get("notes", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in (*weight_formats.notes(), *_notes):
        terminalreporter.write_line(line)
