"""How far transformers is with reading weights: told to whoever waits, instead of a bar on stderr.

Uses the hook that transformers offers for its progress bars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STEP = 0.05


@contextmanager
def weights_progress(tell: Callable[[float], None]) -> Iterator[None]:
    """Call `tell` with 0 to 1 while a model is loaded inside the block, in steps of 5 %."""
    from transformers.utils import logging as transformers_logging

    class Bar(transformers_logging.EmptyTqdm):  # type: ignore[misc, unused-ignore]
        """The part of a tqdm bar that loading uses."""

        def __init__(self, iterable: Any = None, *args: Any, **kwargs: Any) -> None:
            super().__init__(iterable)  # type: ignore[no-untyped-call, unused-ignore]
            self._steps = iterable if iterable is not None else ()

        def __iter__(self) -> Iterator[Any]:
            total = max(1, len(self._steps)) if hasattr(self._steps, "__len__") else None
            told = 0.0
            for done, step in enumerate(self._steps):
                if total is not None and done / total - told >= STEP:
                    told = done / total
                    tell(round(told, 2))
                yield step

    def hook(factory: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        del factory
        return Bar(*args, **kwargs)

    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)
