"""How far transformers is with reading weights: reported to a callback, not drawn on stderr.

Uses the hook that transformers offers for its progress bars.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STEP = 0.05
# While transformers makes a model, torch's default type and its own progress hook are changed for
# every thread; two models at once would leave them changed.
MAKING = threading.Lock()


@contextmanager
def weights_progress(report: Callable[[float], None]) -> Iterator[None]:
    """Call `report` with 0 to 1 while a model is loaded inside the block, in steps of 5 %."""
    from transformers.utils import logging as transformers_logging

    class Bar(transformers_logging.EmptyTqdm):  # type: ignore[misc, unused-ignore]
        """The part of a tqdm bar that loading uses."""

        def __init__(self, iterable: Any = None, *args: Any, **kwargs: Any) -> None:
            super().__init__(iterable)  # type: ignore[no-untyped-call, unused-ignore]
            self._steps = iterable if iterable is not None else ()

        def __iter__(self) -> Iterator[Any]:
            total = max(1, len(self._steps)) if hasattr(self._steps, "__len__") else None
            reported = 0.0
            for done, step in enumerate(self._steps):
                if total is not None and done / total - reported >= STEP:
                    reported = done / total
                    report(round(reported, 2))
                yield step

    def hook(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del factory
        return Bar(*args, **kwargs)

    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)
