"""Finds a model's files on this machine, and fetches them in the background when it has none.

Never blocks on the network: callers are told how far the download is. Knows neither torch nor
what the files hold; huggingface_hub is imported in the functions that need it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import structlog

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.headers import weight_files

DOWNLOADING_RETRY_S = 60
_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt"]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

log = structlog.get_logger(__name__)


class Fetch(Protocol):
    """Downloads a model; reports the share done, 0 to 1; raises when it cannot."""

    def __call__(
        self,
        model_id: str,
        *,
        revision: str | None,
        token: str | None,
        on_progress: Callable[[float], None],
    ) -> None: ...


def find_model(model_id: str, revision: str | None = None) -> Path | None:
    """Return the folder that holds the whole model, or None. Takes a folder's path or a hub name.

    Looks at this machine only: the path itself, or the hub's cache.
    """
    folder = Path(model_id)
    if folder.is_dir():
        return folder if _is_complete(folder) else None
    if is_path(model_id):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    except HFValidationError as exc:
        raise _missing("V4_MODEL_ID is neither a repository's name nor a folder") from exc
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if _is_complete(folder) else None


def is_path(model_id: str) -> bool:
    """Tell whether the id can only be a folder: a hub name is `owner/name` or `name`."""
    named = model_id.startswith((".", "/", "~")) or model_id.count("/") > 1 or "\\" in model_id
    return named or Path(model_id).is_dir()


def _is_complete(folder: Path) -> bool:
    try:
        weights = weight_files(folder)
    except (OSError, ValueError, KeyError):
        return False
    return (
        (folder / "config.json").is_file()
        and any((folder / name).is_file() for name in _TOKENIZER_FILES)
        and all(file.is_file() for file in weights)
    )


def fetch_from_hub(
    model_id: str,
    *,
    revision: str | None,
    token: str | None,
    on_progress: Callable[[float], None],
) -> None:
    """Download weights (safetensors only), configuration and tokenizer into the hub's cache."""
    from huggingface_hub import snapshot_download
    from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

    class Report(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
        """The hub's own progress bar, silent: the one in bytes says how far the download is."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Silent()})

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.unit == "B" and self.total:
                on_progress(min(1.0, self.n / self.total))
            return shown

    snapshot_download(
        model_id,
        revision=revision,
        token=token or None,
        allow_patterns=_PATTERNS,
        tqdm_class=Report,
    )


class _Silent:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        return None


class Download:
    """At most one download of one model at a time, and the memory of the last failure.

    `clock` returns seconds and never goes back.
    """

    def __init__(
        self,
        fetch: Fetch = fetch_from_hub,
        *,
        clock: Callable[[], float] = time.monotonic,
        retry_after_s: float = DOWNLOADING_RETRY_S,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._progress = 0.0
        self._failure: tuple[float, str] | None = None

    def state(self) -> EngineUnavailable | None:
        """Return why the model is missing: it is on its way, or could not be had; None if neither.

        Starts nothing.
        """
        if _offline():
            return _missing("downloads are switched off by HF_HUB_OFFLINE")
        with self._lock:
            return self._state()

    def _state(self) -> EngineUnavailable | None:
        if self._thread is not None:
            return self._downloading()
        if self._failure is not None and self._clock() < self._failure[0]:
            return _missing(self._failure[1], retry_after_s=int(self._retry_after_s))
        return None

    def start(self, model_id: str, *, revision: str | None, token: str | None) -> EngineUnavailable:
        """Start the download unless it runs or has just failed; return the error for the client."""
        if _offline():
            return _missing("downloads are switched off by HF_HUB_OFFLINE")
        with self._lock:
            state = self._state()
            if state is not None:
                return state
            self._progress = 0.0
            self._failure = None
            self._thread = threading.Thread(
                target=self._work,
                args=(model_id, revision, token),
                name="model-download",
                daemon=True,
            )
            try:
                self._thread.start()
            except RuntimeError:
                self._thread = None
                raise
            log.info("model_download_started", model_id=model_id, revision=revision)
            return self._downloading()

    def _downloading(self) -> EngineUnavailable:
        return EngineUnavailable(
            f"The model is being downloaded ({self._progress:.0%}): try again in a minute.",
            code="model_downloading",
            retry_after_s=DOWNLOADING_RETRY_S,
        )

    def _work(self, model_id: str, revision: str | None, token: str | None) -> None:
        failure: tuple[float, str] | None = None
        try:
            self._fetch(model_id, revision=revision, token=token, on_progress=self._report)
            if find_model(model_id, revision) is None:
                failure = (
                    self._clock() + self._retry_after_s,
                    "the repository holds no complete checkpoint (safetensors, tokenizer)",
                )
            log.info("model_download_finished", model_id=model_id, complete=failure is None)
        except Exception as exc:
            reason = _short_reason(exc)
            failure = (self._clock() + self._retry_after_s, reason)
            log.warning(
                "model_download_failed", model_id=model_id, reason=reason, error=type(exc).__name__
            )
        finally:
            with self._lock:
                self._failure = failure
                self._thread = None

    def _report(self, progress: float) -> None:
        self._progress = progress


def missing_folder() -> EngineUnavailable:
    """Return the error for a model id that is a folder without a model; the path stays out."""
    return _missing("the folder named by V4_MODEL_ID holds no complete checkpoint (safetensors)")


def _missing(reason: str, *, retry_after_s: int | None = None) -> EngineUnavailable:
    return EngineUnavailable(
        f"The model is not on this machine: {reason}.",
        code="model_unavailable",
        retry_after_s=retry_after_s,
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def _short_reason(exc: BaseException) -> str:
    """Say in a few words why a download failed, without addresses, paths or tokens."""
    names = {kind.__name__ for kind in type(exc).__mro__}
    if names & {"GatedRepoError"}:
        return "the repository is gated: set HF_TOKEN to a token that was granted access"
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return "the hub has no such repository or revision"
    if names & {"ConnectError", "ConnectTimeout", "ConnectionError", "LocalEntryNotFoundError"}:
        return "no network"
    if names & {"TimeoutException", "TimeoutError", "ReadTimeout", "Timeout"}:
        return "the network timed out"
    if isinstance(exc, OSError) and exc.errno == 28:
        return "the disk is full"
    return "the download failed"
