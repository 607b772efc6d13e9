"""One model: checked before it is loaded, loaded once, and why not if not (C10, C12, C19).

Knows when to load and when to let go; nothing of prompts or generation, nor how files are read.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from app.core.errors import EngineUnavailable
from app.engine.base import Status
from app.engine.checkpoints.config import PACKED_CLASS, ModelConfig, OnStatus
from app.engine.checkpoints.formats import (
    FLOAT_FORMATS,
    FORMATS,
    Choice,
    Format,
    choose,
    rows_at_once,
)
from app.engine.checkpoints.gguf.config import read_gguf_checkpoint
from app.engine.checkpoints.headers import Checkpoint, is_gguf, read_checkpoint
from app.engine.checkpoints.load import (
    FLOAT16,
    cheap_rows,
    gpu_choice,
    on_gpu,
    read_model,
    read_tokenizer,
)
from app.engine.checkpoints.memory import available_bytes
from app.engine.decoding.limits import ATTRIBUTE, DecodeLimits
from app.engine.local.availability import Availability

DEFAULT_CONTEXT_TOKENS = 4096

log = structlog.get_logger(__name__)


class LazyModel:
    """A model and its tokenizer, loaded by the first `get`."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._use_lock = threading.Lock()
        self._running = 0
        self._last_use_s = config.clock()
        self._tokenizer: Any = None
        self._tokenizer_lock = threading.Lock()
        self._loaded: tuple[Any, Any] | None = None
        self._choice: Choice | None = None
        self._availability = Availability(config)
        self._checkpoint: tuple[Path, Checkpoint] | None = None
        self._listeners: list[OnStatus] = []

    def info(self) -> dict[str, Any]:
        """Return what is loaded, or about to be, and why."""
        choice = self._choice
        loaded = self._loaded is not None
        problem = None if loaded else self._availability.known_problem()
        return {
            "model_id": self.config.model_id,
            "loaded": loaded,
            "error": problem.message if problem else None,
            "weights": choice.format.name if choice else None,
            "reason": choice.reason if choice else None,
            "sequences": choice.sequences if choice else None,
            "need_bytes": choice.need_bytes if choice else None,
            "available_bytes": choice.available_bytes if choice else None,
        }

    def unavailable(self) -> EngineUnavailable | None:
        """Return why the model could not serve now, or None. Loads and downloads nothing."""
        # During a load memory goes down; whether it is enough was settled before.
        if self._loaded is not None or self._choice is not None:
            return None
        return self._availability.probe(self._choose)

    def prepare(self) -> None:
        """Start the download of a missing model, unless one runs or has just failed."""
        if self._loaded is None:
            self._availability.prepare()

    def get(self) -> tuple[Any, Any]:
        """Return (model, tokenizer).

        Raises:
            EngineUnavailable: as `ModelServiceV4.get_model`.
        """
        # Read once: it may be let go at any moment.
        loaded = self._loaded
        if loaded is None:
            with self._lock:
                loaded = self._loaded
                if loaded is None:
                    with self._remembering():
                        loaded = self._loaded = self._load()
                    self._last_use_s = self.config.clock()
        return loaded

    def tokenizer(self) -> Any:
        """Return the tokenizer, loaded alone if it must be; the model's own load takes it over.

        Raises:
            EngineUnavailable: as `get`: the tokenizer is of no use when the model cannot serve.
        """
        loaded = self._loaded
        if loaded is not None:
            return loaded[1]
        with self._remembering():
            folder = self._availability.folder()
            # During a load memory goes down; whether it is enough was settled before.
            if self._choice is None:
                self._choose(folder)
            return self._read_tokenizer(folder)

    def context_tokens(self) -> int:
        """Return the model's own context, or less if so configured; once the tokenizer is there."""
        checkpoint = self._checkpoint
        return self._context_of(checkpoint[1]) if checkpoint else DEFAULT_CONTEXT_TOKENS

    def folder(self) -> Path:
        """Return where the checkpoint is; once the tokenizer is there."""
        return self._checkpoint[0] if self._checkpoint else Path(self.config.model_id)

    def decode_limits(self) -> DecodeLimits:
        """Return how many generations the memory is for, and what is kept of ended ones.

        True once the model is loaded.
        """
        choice = self._choice
        return DecodeLimits(
            sequences=choice.sequences if choice else None,
            max_tokens=choice.kept_tokens if choice else None,
            ttl_s=self.config.keep_s,
            cheap_rows=cheap_rows(self.config, choice),
            clock=self.config.clock,
        )

    def forget_expired(self) -> None:
        """Free what was kept of generations that ended more than `keep_s` ago.

        Giving a gigabyte back takes tenths of a second.
        """
        loaded = self._loaded
        # The first generation gives a model its decoder.
        decoder = getattr(loaded[0], ATTRIBUTE, None) if loaded else None
        if decoder is not None:
            decoder.forget_expired().clear()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the model, once it is loaded, from being let go meanwhile."""
        with self._use_lock:
            self._running += 1
        try:
            yield
        finally:
            with self._use_lock:
                self._running -= 1
                self._last_use_s = self.config.clock()

    def release_if_idle(self, idle_s: float) -> bool:
        """Free the weights if they were not used for so long; True if that happened.

        The tokenizer stays: prompts are measured with it before anything is loaded.
        """
        if not self._lock.acquire(blocking=False):
            return False
        try:
            with self._use_lock:
                unused_s = self.config.clock() - self._last_use_s
                if self._loaded is None or self._running or unused_s < idle_s:
                    return False
                self._loaded = self._choice = None
            gc.collect()
            torch = sys.modules.get("torch")
            if torch is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        finally:
            self._lock.release()
        log.info("model_unloaded", model_id=self.config.model_id, unused_s=round(unused_s))
        return True

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            with self._availability.remembering():
                yield
        except EngineUnavailable as exc:
            if exc.code == "model_load_failed":
                # The files may be mended before the next load, the headers with them.
                self._checkpoint = None
            raise

    @contextmanager
    def listening(self, on_status: OnStatus) -> Iterator[None]:
        """Call `on_status` with the progress of any load that runs during the block."""
        self._listeners.append(on_status)
        try:
            yield
        finally:
            self._listeners.remove(on_status)

    def _report(self, progress: float) -> None:
        log.info("model_loading", model_id=self.config.model_id, progress=progress)
        for on_status in tuple(self._listeners):
            on_status(Status("loading", progress=progress))

    def _choose(self, folder: Path) -> Choice:
        """Compare what the checkpoint needs with what is there (C12)."""
        if self._checkpoint is None or self._checkpoint[0] != folder:
            self._checkpoint = (folder, _read_sizes(folder, self.config))
        checkpoint = self._checkpoint[1]
        config = self.config
        if on_gpu(config.device_map):
            return gpu_choice(config.weights)
        context = self._context_of(checkpoint)
        formats = FORMATS if config.auto_class == PACKED_CLASS else FLOAT_FORMATS
        if config.weights == FLOAT16.name:
            formats = (*formats, FLOAT16)
        return choose(
            checkpoint,
            weights=config.weights,
            available=available_bytes(limit_bytes=config.memory_limit_bytes),
            context_tokens=context,
            prompt_tokens=rows_at_once(
                checkpoint, context_tokens=context, sequences=config.sequences
            ),
            sequences=config.sequences,
            formats=formats,
        )

    def _context_of(self, checkpoint: Checkpoint) -> int:
        own = int(checkpoint.config.get("max_position_embeddings") or DEFAULT_CONTEXT_TOKENS)
        return min(own, self.config.context_tokens or own)

    def _read_tokenizer(self, folder: Path) -> Any:
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = read_tokenizer(folder, self.config)
            return self._tokenizer

    def _load(self) -> tuple[Any, Any]:
        """Check everything that can be checked, then load. The caller holds the lock."""
        config = self.config
        folder = self._availability.folder()
        try:
            choice = self._choice = self._choose(folder)
            self._report(0.0)
            started = time.monotonic()
            tokenizer = self._read_tokenizer(folder)
            model = read_model(folder, config, choice, self._report)
        except EngineUnavailable:
            self._choice = None
            raise
        if choice.format.name == "auto":
            loaded_as = Format(str(model.dtype).removeprefix("torch."), 0.0, 0, True)
            choice = self._choice = replace(choice, format=loaded_as)
        log.info(
            "model_loaded",
            model_id=config.model_id,
            weights=choice.format.name,
            reason=choice.reason,
            seconds=round(time.monotonic() - started, 2),
            weights_bytes=int(model.get_memory_footprint()),
            need_bytes=choice.need_bytes,
            available_bytes=choice.available_bytes,
            sequences=choice.sequences,
            kept_tokens=choice.kept_tokens,
        )
        self._report(1.0)
        return model, tokenizer


def _read_sizes(folder: Path, config: ModelConfig) -> Checkpoint:
    if not is_gguf(folder):
        return read_checkpoint(folder)
    if config.auto_class != PACKED_CLASS:
        raise EngineUnavailable(
            "A GGUF file cannot be the model that reads images: set VISION_MODEL_ID to a "
            "repository or folder with safetensors.",
            code="model_load_failed",
        )
    return read_gguf_checkpoint(folder)
