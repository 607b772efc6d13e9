"""Whether a model can be had, and why not: found out cheaply, remembered for a while (C19).

Knows where a checkpoint is, its download, and the last failure; reads no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.config import ModelConfig
from app.engine.checkpoints.files import Download, find_model, is_path, missing_path
from app.engine.checkpoints.load import FAILED_LOAD_RETRY_S

PROBE_CACHE_S = 5.0


class Availability:
    """What is known of a model that is not loaded; its errors name the model's own settings."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._download = Download(config.fetch, clock=config.clock)
        # Each with the time until which it holds.
        self._failure: tuple[float, EngineUnavailable] | None = None
        self._probe: tuple[float, EngineUnavailable] | None = None

    def known_problem(self) -> EngineUnavailable | None:
        """Return what is known of why the model cannot be had, without looking."""
        # Read once: a load in another thread may change it meanwhile.
        probe = self._probe
        return self._download.state() or (probe[1] if probe else None)

    def probe(self, check: Callable[[Path], object]) -> EngineUnavailable | None:
        """Return why the model could not be loaded now, or None; downloads nothing.

        `check` is called with the checkpoint's folder, and raises what speaks against a load.
        """
        probe = self._probe
        if probe is not None and self._config.clock() < probe[0]:
            return probe[1].copy()
        try:
            self._raise_remembered()
            folder = find_model(self._config.model_id, self._config.revision)
            if folder is None:
                raise self._why_missing()
            check(folder)
        except EngineUnavailable as exc:
            named = self._named(exc)
            self._keep(named)
            return named.copy()
        return None

    def prepare(self) -> None:
        """Start the download of a missing model, unless one runs or has just failed."""
        config = self._config
        if is_path(config.model_id) or find_model(config.model_id, config.revision) is not None:
            return
        self._start_download()
        self._probe = None

    def folder(self) -> Path:
        """Return the checkpoint's folder; a missing one begins to be downloaded.

        Raises:
            EngineUnavailable: `model_downloading`, `model_unavailable`, or a remembered failure.
        """
        config = self._config
        self._probe = None
        self._raise_remembered()
        folder = find_model(config.model_id, config.revision)
        if folder is not None:
            return folder
        if is_path(config.model_id):
            raise missing_path(config.model_id)
        raise self._start_download()

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Remember a failure inside the block for later callers, and name the right settings."""
        try:
            yield
        except EngineUnavailable as exc:
            named = self._named(exc)
            if named.code == "model_load_failed" and not self._remembers():
                self._failure = (self._config.clock() + FAILED_LOAD_RETRY_S, named)
            self._keep(named)
            raise named from exc.__cause__

    def _start_download(self) -> EngineUnavailable:
        config = self._config
        return self._download.start(
            config.model_id, revision=config.revision, token=config.hf_token
        )

    def _keep(self, problem: EngineUnavailable) -> None:
        # How far a download is, is worth reading each time; the disk and /proc are not.
        if problem.code != "model_downloading":
            self._probe = (self._config.clock() + PROBE_CACHE_S, problem)

    def _named(self, error: EngineUnavailable) -> EngineUnavailable:
        """Return the error in terms of this model's own variables."""
        if self._config.setting == "V4_MODEL_ID":
            return error
        message = error.message.replace("V4_MODEL_ID", self._config.setting)
        message = message.replace("V4_WEIGHTS", "TORCH_DTYPE")
        return error.copy(message)

    def _remembers(self) -> bool:
        return self._failure is not None and self._config.clock() < self._failure[0]

    def _raise_remembered(self) -> None:
        failure = self._failure
        if failure is not None and self._remembers():
            # Raising the kept one again would pile up tracebacks.
            raise failure[1].copy()

    def _why_missing(self) -> EngineUnavailable:
        if is_path(self._config.model_id):
            return missing_path(self._config.model_id)
        return self._download.state() or EngineUnavailable(
            "The model is not downloaded yet: the first request for it starts the download."
        )
