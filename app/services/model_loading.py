"""One model: checked before it is loaded, loaded once, and why not if not (C10, C12, C19).

Knows files, memory and transformers' loading; nothing of prompts or generation. torch and
transformers are imported when a model is loaded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from app.core.errors import EngineUnavailable
from app.engine.base import Status
from app.engine.weights import Checkpoint, Choice, available_bytes, choose, read_checkpoint
from app.services.load_progress import weights_progress
from app.services.model_files import (
    Download,
    Fetch,
    fetch_from_hub,
    find_model,
    is_path,
    missing_folder,
)

DEFAULT_MODEL_ID = "microsoft/Phi-3-mini-4k-instruct"
FAILED_LOAD_RETRY_S = 60
PROBE_CACHE_S = 5.0
DEFAULT_CONTEXT_TOKENS = 4096

log = structlog.get_logger(__name__)

OnStatus = Callable[[Status], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What to load and how. `clock` counts seconds, `fetch` downloads; both are for tests."""

    model_id: str = DEFAULT_MODEL_ID
    revision: str | None = None
    weights: str = "auto"
    trust_remote_code: bool = False
    hf_token: str | None = field(default=None, repr=False)
    threads: int | None = None
    memory_limit_bytes: int | None = None
    context_tokens: int | None = None
    fetch: Fetch = fetch_from_hub
    clock: Callable[[], float] = time.monotonic


class LazyModel:
    """A model and its tokenizer, loaded by the first `get`."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        self._choice: Choice | None = None
        self._download = Download(config.fetch, clock=config.clock)
        self._failure: tuple[float, EngineUnavailable] | None = None
        self._probe: tuple[float, EngineUnavailable] | None = None
        self._checkpoint: tuple[Path, Checkpoint] | None = None
        self._listeners: list[OnStatus] = []

    def info(self) -> dict[str, Any]:
        """Return what is loaded, or about to be, and why."""
        choice = self._choice
        return {
            "model_id": self.config.model_id,
            "loaded": self._loaded is not None,
            "error": self._known_problem(),
            "weights": choice.format.name if choice else None,
            "reason": choice.reason if choice else None,
            "need_bytes": choice.need_bytes if choice else None,
            "available_bytes": choice.available_bytes if choice else None,
        }

    def unavailable(self) -> EngineUnavailable | None:
        """Return why the model could not serve now, or None. Loads and downloads nothing."""
        if self._loaded is not None:
            return None
        # Read once: a load in another thread may change it meanwhile.
        probe = self._probe
        if probe is not None and self.config.clock() < probe[0]:
            return _again(probe[1])
        try:
            self._raise_remembered()
            folder = find_model(self.config.model_id, self.config.revision)
            if folder is None:
                raise self._why_missing()
            self._choose(folder)
        except EngineUnavailable as exc:
            self._keep(exc)
            return _again(exc)
        return None

    def _keep(self, problem: EngineUnavailable) -> None:
        # How far a download is, is worth asking each time; the disk and /proc are not.
        if problem.code != "model_downloading":
            self._probe = (self.config.clock() + PROBE_CACHE_S, problem)

    def _known_problem(self) -> str | None:
        if self._loaded is not None:
            return None
        probe = self._probe
        known = self._download.state() or (probe[1] if probe else None)
        return known.message if known else None

    def prepare(self) -> None:
        """Start the download of a missing model, unless one runs or has just failed."""
        config = self.config
        if self._loaded is not None or is_path(config.model_id):
            return
        if find_model(config.model_id, config.revision) is None:
            self._download.start(config.model_id, revision=config.revision, token=config.hf_token)
            self._probe = None

    def get(self) -> tuple[Any, Any]:
        """Return (model, tokenizer).

        Raises:
            EngineUnavailable: as `ModelServiceV4.get_model`.
        """
        if self._loaded is None:
            with self._lock:
                if self._loaded is None:
                    try:
                        self._loaded = self._load()
                    except EngineUnavailable as exc:
                        self._keep(exc)
                        raise
        return self._loaded

    @contextmanager
    def listening(self, tell: OnStatus) -> Iterator[None]:
        """Tell `tell` about a load that goes on meanwhile, also one that another caller started."""
        self._listeners.append(tell)
        try:
            yield
        finally:
            self._listeners.remove(tell)

    def _report(self, progress: float) -> None:
        log.info("model_loading", model_id=self.config.model_id, progress=progress)
        for tell in tuple(self._listeners):
            tell(Status("loading", progress=progress))

    def _raise_remembered(self) -> None:
        failure = self._failure
        if failure is not None and self.config.clock() < failure[0]:
            raise _again(failure[1])

    def _why_missing(self) -> EngineUnavailable:
        if is_path(self.config.model_id):
            return missing_folder()
        return self._download.state() or EngineUnavailable(
            "The model is not downloaded yet: the first request for it starts the download."
        )

    def _choose(self, folder: Path) -> Choice:
        """Compare what the checkpoint needs with what is there (C12)."""
        if self._checkpoint is None or self._checkpoint[0] != folder:
            self._checkpoint = (folder, read_checkpoint(folder))
        checkpoint = self._checkpoint[1]
        own = int(checkpoint.config.get("max_position_embeddings") or DEFAULT_CONTEXT_TOKENS)
        context = min(own, self.config.context_tokens or own)
        return choose(
            checkpoint,
            weights=self.config.weights,
            available=available_bytes(limit_bytes=self.config.memory_limit_bytes),
            context_tokens=context,
            prompt_tokens=context,
        )

    def _load(self) -> tuple[Any, Any]:
        """Check everything that can be checked, then load. The caller holds the lock."""
        config = self.config
        self._probe = None
        self._raise_remembered()
        folder = find_model(config.model_id, config.revision)
        if folder is None:
            if is_path(config.model_id):
                raise missing_folder()
            raise self._download.start(
                config.model_id, revision=config.revision, token=config.hf_token
            )
        try:
            choice = self._choice = self._choose(folder)
            self._report(0.0)
            started = time.monotonic()
            model, tokenizer = _read_model(folder, config, choice, self._report)
        except EngineUnavailable as exc:
            self._choice = None
            if exc.code == "model_load_failed":
                self._failure = (config.clock() + FAILED_LOAD_RETRY_S, exc)
                self._checkpoint = None
            raise
        log.info(
            "model_loaded",
            model_id=config.model_id,
            weights=choice.format.name,
            reason=choice.reason,
            seconds=round(time.monotonic() - started, 2),
            weights_bytes=model.get_memory_footprint(),
            need_bytes=choice.need_bytes,
            available_bytes=choice.available_bytes,
        )
        self._report(1.0)
        return model, tokenizer


def _again(error: EngineUnavailable) -> EngineUnavailable:
    """Return a copy to raise: raising the kept one again would pile up tracebacks."""
    return EngineUnavailable(error.message, code=error.code, retry_after_s=error.retry_after_s)


def _read_model(
    folder: Path, config: ModelConfig, choice: Choice, report: Callable[[float], None]
) -> tuple[Any, Any]:
    """Load model and tokenizer from a folder, onto the CPU, ready to generate."""
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if config.threads:
            torch.set_num_threads(config.threads)
        options: dict[str, Any] = {
            "trust_remote_code": config.trust_remote_code,
            "local_files_only": True,
        }
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        with weights_progress(report):
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, choice.format.name),
                device_map="cpu",
                use_safetensors=True,
                **options,
            )
        model.eval()  # type: ignore[no-untyped-call, unused-ignore]
    except Exception as exc:
        log.error("model_load_failed", model_id=config.model_id, error=type(exc).__name__)
        raise EngineUnavailable(
            "The model could not be loaded: its files are damaged, or this version of "
            "transformers does not know it. The server's log says more.",
            code="model_load_failed",
            retry_after_s=FAILED_LOAD_RETRY_S,
        ) from exc
    return model, tokenizer
