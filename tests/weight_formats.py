"""The weight format that a run of the tests is for: `pytest --weights int4`, see conftest.py.

Whoever loads a tiny checkpoint without naming a format asks here how. Without the option nothing
is named, and the server chooses as it does for users: float32, since everything fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Formats as V4_WEIGHTS names them, and int4 on torch's kernels, whatever the machine has.
INT4_ON_TORCH = "int4-torch"
NAMES = ("float32", "bfloat16", "int8", "int4", INT4_ON_TORCH)


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """One of `NAMES`; None leaves the choice to the server."""

    name: str | None = None

    @property
    def asked(self) -> str:
        """What V4_WEIGHTS is set to."""
        return (self.name or "auto").partition("-")[0]

    @property
    def held(self) -> str:
        """What the loader says that it holds."""
        return self.asked if self.name else "float32"

    @property
    def packed(self) -> bool:
        """Layers become integers, where their sizes allow it."""
        return self.held in ("int8", "int4")

    @property
    def native(self) -> bool:
        """Kernels of our own may be used, see NATIVE_KERNELS."""
        return self.name != INT4_ON_TORCH

    def loading(
        self, model: Path | str, *, reads_images: bool = False, **named: Any
    ) -> dict[str, Any]:
        """Return what `configure` is to be told of a checkpoint; the test's own `named` wins.

        A model that reads images has no packed formats: the server chooses for it.
        """
        values: dict[str, Any] = {"model_id": str(model), "threads": 1}
        if "weights" not in named and not (reads_images and self.packed):
            values |= {"weights": self.asked, "native_kernels": self.native}
        return values | named

    def settings(self, model: Path | str, **named: Any) -> dict[str, Any]:
        """Return the settings of a server whose summaries and chats come from a checkpoint."""
        values: dict[str, Any] = {"v4_model_id": str(model), "quant_cache_dir": "none"}
        if not named.keys() & {"v4_weights", "torch_dtype"}:
            values |= {"v4_weights": self.asked, "torch_dtype": self.asked}
            values["native_kernels"] = self.native
        return values | named


_this_run = WeightFormat()
_notes: list[str] = []


def choose(name: str | None) -> None:
    """Say what this run is for, before any test begins."""
    global _this_run
    _this_run = WeightFormat(name)


def of_this_run() -> WeightFormat:
    """Return what this run is for."""
    return _this_run


def note(text: str) -> None:
    """Have a line shown at the end of the run."""
    _notes.append(text)


def notes() -> list[str]:
    """Return the lines to be shown."""
    return [f"--weights {_this_run.name or 'not given'}: {text}" for text in _notes]
