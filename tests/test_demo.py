"""The demo is the first thing that a stranger sees, so it is tested as a stranger runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_demo_streams_two_styles_and_exits_well() -> None:
    """Must hold: no network, no model, real HTTP, the events printed, exit 0."""
    environment = {**os.environ, "API_KEYS": "k", "ENABLE_V4_STRUCTURED": "false"}
    environment.pop("SUMMARY_ENGINE", None)
    shown = subprocess.run(
        [sys.executable, "-m", "app.demo"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.count("event: result") == 2
    assert shown.stdout.count("event: metadata") == 2
    for style in ("executive", "eli5"):
        assert f'"style":"{style}"' in shown.stdout


def test_the_demo_says_when_it_failed() -> None:
    """A demo that cannot fail shows nothing."""
    shown = subprocess.run(
        [sys.executable, "-m", "app.demo"],
        cwd=ROOT,
        env={**os.environ, "SUMMARY_ENGINE": "no such engine"},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert shown.returncode == 1
