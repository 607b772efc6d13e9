"""What holds for every test: no setting comes from the shell or from a `.env` of the folder.

`pytest --weights int4` runs the suite with tiny models in that format, see weight_formats.py.
"""

from __future__ import annotations

import os

import pytest

from app.core.config import Settings
from app.core.logging import configure_logging
from tests import weight_formats

for _name in Settings.model_fields:
    os.environ.pop(_name.upper(), None)
Settings.model_config["env_file"] = None

# As every application does, so that a test sees log lines whether or not one was built before it.
configure_logging("info", "console")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--weights",
        choices=weight_formats.NAMES,
        help="hold the tiny models in this format, but for those of tests that name one",
    )


def pytest_configure(config: pytest.Config) -> None:
    weight_formats.choose(config.getoption("--weights"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in weight_formats.notes():
        terminalreporter.write_line(line)
