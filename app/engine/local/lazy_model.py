"""One model: checked before it is loaded, loaded once, and why not if not (C10, C12, C19).

Knows when to load and when to let go; nothing of prompts or generation, nor how files are read.
"""

from __future__ import annotations

import gc
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from app.core.errors import EngineUnavailable
from app.engine.base import Status
from app.engine.checkpoints.files import (
    Download,
    Fetch,
    fetch_from_hub,
    find_model,
    is_path,
    missing_folder,
)
from app.engine.checkpoints.formats import (
    FLOAT_FORMATS,
    FORMATS,
    Choice,
    Format,
    choose,
    rows_at_once,
)
from app.engine.checkpoints.headers import Checkpoint, read_checkpoint
from app.engine.checkpoints.load import (
    FAILED_LOAD_RETRY_S,
    FLOAT16,
    cheap_rows,
    gpu_choice,
    on_gpu,
    read_model,
    read_tokenizer,
)
from app.engine.checkpoints.memory import available_bytes
from app.engine.decoding.limits import ATTRIBUTE, DecodeLimits

if TYPE_CHECKING:
    from app.engine.quantized.kernels import Kernels

DEFAULT_MODEL_ID = "microsoft/Phi-3-mini-4k-instruct"
# Of the models that are loaded through other classes, no layers are made into integers.
PACKED_CLASS = "AutoModelForCausalLM"
PROBE_CACHE_S = 5.0
DEFAULT_CONTEXT_TOKENS = 4096

log = structlog.get_logger(__name__)

OnStatus = Callable[[Status], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """What to load and how. `clock` counts seconds, `fetch` downloads; both are for tests.

    `auto_class`: the class of transformers that loads the weights. `weights`: a format's name, or
    "auto". `device_map`: as transformers takes it, where there is a GPU. `setting`: the variable
    that messages name for the model. `quant_cache_dir`: where int8 and int4 weights are kept for
    the next start, a folder or "auto"; None for nowhere. `native_kernels`: int8 and int4 by kernels
    of our own, where the machine can have them. `kernels`: what the machine does fast, where that
    should not be found out. `sequences`: how many generations may run at once. `keep_s`: how long
    what was read for one is kept after its end, for those that begin alike.
    """

    model_id: str = DEFAULT_MODEL_ID
    auto_class: str = PACKED_CLASS
    revision: str | None = None
    weights: str = "auto"
    device_map: str = "cpu"
    setting: str = "V4_MODEL_ID"
    trust_remote_code: bool = False
    hf_token: str | None = field(default=None, repr=False)
    threads: int | None = None
    memory_limit_bytes: int | None = None
    context_tokens: int | None = None
    sequences: int = 1
    keep_s: float = math.inf
    quant_cache_dir: str | None = None
    native_kernels: bool = True
    kernels: Kernels | None = None
    fetch: Fetch = fetch_from_hub
    clock: Callable[[], float] = time.monotonic


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
            "sequences": choice.sequences if choice else None,
            "need_bytes": choice.need_bytes if choice else None,
            "available_bytes": choice.available_bytes if choice else None,
        }

    def unavailable(self) -> EngineUnavailable | None:
        """Return why the model could not serve now, or None. Loads and downloads nothing."""
        # During a load memory goes down; whether it is enough was settled before.
        if self._loaded is not None or self._choice is not None:
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
            named = self._named(exc)
            self._keep(named)
            return _again(named)
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
        # Read once: it may be let go at any moment.
        loaded = self._loaded
        if loaded is None:
            with self._lock:
                loaded = self._loaded
                if loaded is None:
                    with self._failures_kept():
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
        with self._failures_kept():
            folder = self._folder()
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

    def room(self) -> DecodeLimits:
        """Return how many generations the memory is for, and what is kept of ended ones.

        To be asked once the model is loaded.
        """
        choice = self._choice
        return DecodeLimits(
            sequences=choice.sequences if choice else None,
            max_tokens=choice.kept_tokens if choice else None,
            ttl_s=self.config.keep_s,
            cheap_rows=cheap_rows(self.config, choice),
            clock=self.config.clock,
        )

    def forget_expired(self) -> list[Any]:
        """Return what was kept of generations that ended more than `keep_s` ago, to be freed."""
        loaded = self._loaded
        decoder = getattr(loaded[0], ATTRIBUTE, None) if loaded else None
        return decoder.forget_expired() if decoder else []

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
        """Let the weights go if nobody used them for so long; True if that happened.

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
    def _failures_kept(self) -> Iterator[None]:
        """Remember a failure for the next ones who ask, and name the right settings in it."""
        try:
            yield
        except EngineUnavailable as exc:
            named = self._named(exc)
            if named.code == "model_load_failed" and not self._remembers():
                self._failure = (self.config.clock() + FAILED_LOAD_RETRY_S, named)
                self._checkpoint = None
            self._keep(named)
            raise named from exc.__cause__

    def _named(self, error: EngineUnavailable) -> EngineUnavailable:
        """Return the error in terms of this model's own variables."""
        if self.config.setting == "V4_MODEL_ID":
            return error
        message = error.message.replace("V4_MODEL_ID", self.config.setting)
        message = message.replace("V4_WEIGHTS", "TORCH_DTYPE")
        return EngineUnavailable(message, code=error.code, retry_after_s=error.retry_after_s)

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

    def _remembers(self) -> bool:
        return self._failure is not None and self.config.clock() < self._failure[0]

    def _raise_remembered(self) -> None:
        failure = self._failure
        if failure is not None and self._remembers():
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

    def _folder(self) -> Path:
        """Return the checkpoint's folder; a missing one begins to be downloaded."""
        config = self.config
        self._probe = None
        self._raise_remembered()
        folder = find_model(config.model_id, config.revision)
        if folder is not None:
            return folder
        if is_path(config.model_id):
            raise missing_folder()
        raise self._download.start(config.model_id, revision=config.revision, token=config.hf_token)

    def _read_tokenizer(self, folder: Path) -> Any:
        with self._tokenizer_lock:
            if self._tokenizer is None:
                self._tokenizer = read_tokenizer(folder, self.config)
            return self._tokenizer

    def _load(self) -> tuple[Any, Any]:
        """Check everything that can be checked, then load. The caller holds the lock."""
        config = self.config
        folder = self._folder()
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


def _again(error: EngineUnavailable) -> EngineUnavailable:
    """Return a copy to raise: raising the kept one again would pile up tracebacks."""
    return EngineUnavailable(error.message, code=error.code, retry_after_s=error.retry_after_s)
