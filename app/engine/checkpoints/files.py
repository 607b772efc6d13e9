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
from app.engine.checkpoints.headers import is_gguf, weight_files

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
    """Return the folder that holds the whole model, or its GGUF file; None if there is none.

    Takes a path, a hub name, or a hub name with a GGUF file of it. Looks at this machine only: the
    path itself, or the hub's cache.
    """
    path = Path(model_id).expanduser()
    if path.is_file() and is_gguf(path):
        return path
    if path.is_dir():
        return path if _is_complete(path) else _only_gguf(path)
    if is_path(model_id):
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name, file = split_name(model_id)
    try:
        found = try_to_load_from_cache(name, file or "config.json", revision=revision)
    except HFValidationError as exc:
        raise _missing("V4_MODEL_ID is neither a repository's name nor a path") from exc
    if not isinstance(found, str):
        return None
    if file is not None:
        return Path(found)
    folder = Path(found).parent
    return folder if _is_complete(folder) else None


def split_name(model_id: str) -> tuple[str, str | None]:
    """Return a repository's name and, where the id names one, the GGUF file in it."""
    parts = model_id.split("/")
    if len(parts) < 3 or not is_gguf(Path(model_id)):
        return model_id, None
    return "/".join(parts[:2]), "/".join(parts[2:])


def is_path(model_id: str) -> bool:
    """Tell whether the id can only be a path: a hub name is `owner/name`, `name`, or a file in one.

    `owner/name/file.gguf` is a path where there is a folder of the owner's name.
    """
    path = Path(model_id).expanduser()
    if model_id.startswith((".", "/", "~")) or "\\" in model_id or path.exists():
        return True
    if is_gguf(path):
        return len(path.parts) < 3 or ".." in path.parts or Path(path.parts[0]).is_dir()
    return model_id.count("/") > 1


def _only_gguf(folder: Path) -> Path | None:
    """Return the one GGUF file of a folder.

    Raises:
        EngineUnavailable: `model_unavailable`, when there are several.
    """
    found = [file for file in sorted(folder.iterdir()) if is_gguf(file) and file.is_file()]
    if len(found) > 1:
        raise _missing(
            f"the folder named by V4_MODEL_ID holds {len(found)} GGUF files: name one of them"
        )
    return found[0] if found else None


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
    from huggingface_hub import hf_hub_download, snapshot_download
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

    name, file = split_name(model_id)
    if file is not None:
        hf_hub_download(name, file, revision=revision, token=token or None, tqdm_class=Report)
        return
    snapshot_download(
        name,
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


def missing_path(model_id: str) -> EngineUnavailable:
    """Return the error for a model id that is a path without a model; the path stays out."""
    path = Path(model_id).expanduser()
    if path.is_dir():
        return _missing(
            "the folder named by V4_MODEL_ID holds no complete checkpoint (safetensors with "
            "config.json and a tokenizer, or one GGUF file)"
        )
    if path.exists():
        return _missing("the file named by V4_MODEL_ID is no GGUF file: its name ends in .gguf")
    kind, name = ("file", "owner/name/file.gguf") if is_gguf(path) else ("folder", "owner/name")
    return _missing(
        f"there is no {kind} where V4_MODEL_ID says: correct the path, or name what the hub has as "
        f"{name}"
    )


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
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError"}:
        return "the hub has no such repository, revision or file"
    if names & {"ConnectError", "ConnectTimeout", "ConnectionError", "LocalEntryNotFoundError"}:
        return "no network"
    if names & {"TimeoutException", "TimeoutError", "ReadTimeout", "Timeout"}:
        return "the network timed out"
    if isinstance(exc, OSError) and exc.errno == 28:
        return "the disk is full"
    return "the download failed"
