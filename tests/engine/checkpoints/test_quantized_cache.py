"""What is kept of packed weights: used the second time, and never when it is not whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.config import Settings
from app.engine.checkpoints.quantized_cache import QuantizedCache, Source
from app.engine.local.model_service import ChatModel
from app.engine.quantized.layout import LAYOUT_VERSION
from app.engine.quantized.linear import Int4Linear, Int8Linear
from app.main import create_app
from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import make_checkpoint, packable_checkpoint
from tests.packed_models import (
    LAYOUTS,
    ROOT,
    TORCH,
    error,
    float_logits,
    folders,
    generated,
    kernels_of,
    logits,
    service,
)

__all__ = ["packable_checkpoint"]


def spoil(folder: Path) -> None:
    """Overwrite the numbers of a checkpoint, and nothing by which it is known."""
    file = folder / "model.safetensors"
    about = file.stat()
    content = bytearray(file.read_bytes())
    length = 8 + int.from_bytes(content[:8], "little")
    content[length:] = bytes(len(content) - length)
    file.write_bytes(content)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.fixture
def copied(packable_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packable_checkpoint, tmp_path / "m"))


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_second_load_reads_only_what_was_kept(
    copied: Path, tmp_path: Path, weights: str
) -> None:
    """QUANT_CACHE_DIR: the checkpoint's own numbers are not read again."""
    cache = tmp_path / "c"
    first = logits(service(copied, weights, quant_cache_dir=str(cache)))
    assert len(folders(cache)) == 1
    spoil(copied)
    again = service(copied, weights, quant_cache_dir=str(cache))
    assert torch.equal(logits(again), first)
    assert generated(again)[1].completion_tokens
    # The proof that something was spoilt.
    assert not torch.equal(logits(service(copied, weights)), first)


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_kept_layers_begin_where_the_kernels_like_it(
    copied: Path, tmp_path: Path, layout: str
) -> None:
    """QUANT_CACHE_DIR: memory-mapped, and aligned to 64 bytes for full-width loads."""
    values = {"quant_cache_dir": str(tmp_path / "c"), "kernels": kernels_of(layout)}
    service(copied, "int4", **values).get_model()
    for layer in service(copied, "int4", **values).get_model()[0].modules():
        if isinstance(layer, Int8Linear | Int4Linear):
            assert layer.packed.data_ptr() % 64 == 0


def test_all_kernels_read_what_one_of_them_has_kept(copied: Path, tmp_path: Path) -> None:
    """C32: there is one layout, so that a cache may move to another processor."""
    for layout in LAYOUTS:
        values = {"quant_cache_dir": str(tmp_path / "c"), "kernels": kernels_of(layout)}
        loader = service(copied, "int8", **values)
        assert error(logits(loader), float_logits(copied)) < 0.3
        assert len(folders(tmp_path / "c")) == 1


def test_what_an_earlier_layout_kept_is_made_anew(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C32: the same bytes would be other weights."""
    values = {"quant_cache_dir": str(tmp_path / "c")}
    with monkeypatch.context() as earlier:
        earlier.setattr("app.engine.checkpoints.load_quantized.LAYOUT_VERSION", 0)
        first = logits(service(copied, "int8", **values))
    (old,) = folders(tmp_path / "c")
    assert torch.equal(logits(service(copied, "int8", **values)), first)
    assert len(folders(tmp_path / "c")) == 2
    assert old in folders(tmp_path / "c")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def other_header(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)


def swapped_layers(file: Path) -> None:
    content = file.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    header = content[8:length]
    for one, other in ((b".0.", b".~."), (b".1.", b".0."), (b".~.", b".1.")):
        header = header.replace(b"layers" + one, b"layers" + other)
    file.write_bytes(content[:8] + header + content[length:])


def gone(file: Path) -> None:
    file.unlink()


def foreign_manifest(file: Path) -> None:
    (file.parent / "manifest.json").write_text('{"files": ["../../x"]}')


def empty_manifest(file: Path) -> None:
    (file.parent / "manifest.json").write_text('{"files": {}}')


def no_manifest(file: Path) -> None:
    (file.parent / "manifest.json").unlink()


@pytest.mark.parametrize(
    "damage",
    [cut, other_header, swapped_layers, gone, foreign_manifest, empty_manifest, no_manifest],
)
def test_what_was_kept_and_is_damaged_is_made_anew(
    copied: Path, tmp_path: Path, damage: Any
) -> None:
    """QUANT_CACHE_DIR: a broken disk or a stranger's file costs time, not the answer."""
    cache = tmp_path / "c"
    first = logits(service(copied, "int8", quant_cache_dir=str(cache)))
    file = next(folders(cache)[0].glob("*.safetensors"))
    damage(file)
    assert torch.equal(logits(service(copied, "int8", quant_cache_dir=str(cache))), first)
    assert len(folders(cache)) == 1
    spoil(copied)
    assert torch.equal(logits(service(copied, "int8", quant_cache_dir=str(cache))), first)


def test_another_checkpoint_in_the_same_folder_is_packed_anew(copied: Path, tmp_path: Path) -> None:
    """QUANT_CACHE_DIR: what was made of other weights is never used."""
    cache = tmp_path / "c"
    first = logits(service(copied, "int8", quant_cache_dir=str(cache)))
    shutil.rmtree(copied)
    make_checkpoint(copied, hidden=128, seed=9)
    second = logits(service(copied, "int8", quant_cache_dir=str(cache)))
    assert not torch.equal(first, second)
    assert torch.equal(second, logits(service(copied, "int8")))
    assert len(folders(cache)) == 2


def test_files_of_the_hubs_cache_are_known_by_their_content(copied: Path, tmp_path: Path) -> None:
    """QUANT_CACHE_DIR: a link to the same blob is the same checkpoint, whenever it was made."""
    cache, blobs = tmp_path / "c", tmp_path / "blobs"
    blobs.mkdir()
    blob = blobs / "0a1b2c"
    (copied / "model.safetensors").rename(blob)
    (copied / "model.safetensors").symlink_to(blob)
    service(copied, "int8", quant_cache_dir=str(cache)).get_model()
    os.utime(blob, (1, 1))
    service(copied, "int8", quant_cache_dir=str(cache)).get_model()
    assert len(folders(cache)) == 1


def test_int8_copies_that_an_earlier_version_kept_beside_int4_do_no_harm(
    copied: Path, tmp_path: Path
) -> None:
    """QUANT_CACHE_DIR: a cache outlives the version that made it."""
    cache = tmp_path / "c"
    source = Source(copied, "int4", f"squares-{LAYOUT_VERSION}")
    first = service(copied, "int4", kernels=TORCH)
    tensors = first.get_model()[0].state_dict()
    layer = next(name for name in tensors if name.endswith(".packed"))
    tensors[layer.replace("packed", "twin.packed")] = torch.zeros(4, 4, dtype=torch.int8)
    with QuantizedCache.keeping(QuantizedCache(cache, source), 0) as keep:
        for name, tensor in tensors.items():
            keep(name, tensor)
    (folder,) = folders(cache)
    written_ns = folder.stat().st_mtime_ns
    second = service(copied, "int4", quant_cache_dir=str(cache), kernels=TORCH)
    assert torch.equal(logits(second), logits(first))
    assert [one.stat().st_mtime_ns for one in folders(cache)] == [written_ns]


@pytest.mark.parametrize("setting", [None, "", "none"])
def test_nothing_is_kept_when_that_is_switched_off(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None
) -> None:
    """QUANT_CACHE_DIR=none."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    service(copied, "int8", quant_cache_dir=setting).get_model()
    assert set(tmp_path.iterdir()) == before


def test_the_default_place_is_beside_the_hubs_cache(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QUANT_CACHE_DIR=auto."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hub"))
    service(copied, "int8", quant_cache_dir="auto").get_model()
    assert len(folders(tmp_path / "hub" / "precis-quantized")) == 1


def test_a_place_that_cannot_be_written_is_only_a_warning(
    copied: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """QUANT_CACHE_DIR: the server goes on."""
    (tmp_path / "file").write_text("in the way")
    loader = service(copied, "int8", quant_cache_dir=str(tmp_path / "file" / "c"))
    assert generated(loader)[1].completion_tokens
    assert "packed_weights_not_kept" in caplog.text


def test_a_disk_without_room_is_only_a_warning(
    copied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """QUANT_CACHE_DIR: seen before anything is written."""
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    loader = service(copied, "int8", quant_cache_dir=str(tmp_path / "c"))
    assert generated(loader)[1].completion_tokens
    assert "packed_weights_not_kept" in caplog.text
    assert folders(tmp_path / "c") == []


def test_the_setting_reaches_the_models(copied: Path, tmp_path: Path) -> None:
    """QUANT_CACHE_DIR, V4_WEIGHTS, TORCH_DTYPE; pitfall: documented variables did nothing."""
    create_app(
        Settings(
            _env_file=None,
            v4_model_id=str(copied),
            v4_weights="int8",
            device_map="cpu",
            torch_dtype="int4",
            quant_cache_dir=str(tmp_path / "c"),
        )
    ).state.services()
    try:
        for loader, weights, kept in ((ModelServiceV4, "int8", 1), (ChatModel, "int4", 2)):
            loader.get_model()
            assert loader.info()["weights"] == weights
            assert len(folders(tmp_path / "c")) == kept
    finally:
        ModelServiceV4.unload()
        ChatModel.unload()


PROGRAM = """
import os, resource, signal, sys
from app.core.logging import configure_logging
from app.services.model_loader_v4 import ModelServiceV4
folder, cache, what = sys.argv[1:]
configure_logging("warning", "console")
ModelServiceV4.configure(model_id=folder, weights="int4", threads=1, quant_cache_dir=cache)
def tell(status):
    if what == "kill" and status.progress and status.progress > 0.3:
        os.kill(os.getpid(), signal.SIGKILL)
if what == "small files":
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
list(ModelServiceV4.stream_generation("Hello", max_tokens=3, on_status=tell))
print("served", ModelServiceV4.info()["weights"])
"""


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_whole(
    copied: Path, tmp_path: Path
) -> None:
    """QUANT_CACHE_DIR: written beside its place, then renamed; leftovers go after a day."""
    cache = tmp_path / "c"
    assert program(copied, cache, "kill").returncode == -signal.SIGKILL
    (half,) = folders(cache)
    assert half.name.startswith(".making-")
    loader = service(copied, "int4", quant_cache_dir=str(cache))
    assert error(logits(loader), float_logits(copied)) < 0.8
    assert len(folders(cache)) == 2
    os.utime(half, (1, 1))
    service(copied, "int8", quant_cache_dir=str(cache)).get_model()
    assert not half.exists()
    assert all(not folder.name.startswith(".") for folder in folders(cache))


def test_a_write_that_fails_is_only_a_warning_and_leaves_nothing(
    copied: Path, tmp_path: Path
) -> None:
    """QUANT_CACHE_DIR: the disk fills up while files are written."""
    done = program(copied, tmp_path / "c", "small files")
    assert "served int4" in done.stdout, done.stderr
    assert "packed_weights_not_kept" in done.stderr
    assert folders(tmp_path / "c") == []


def test_two_that_pack_at_once_both_serve_and_leave_one_copy(copied: Path, tmp_path: Path) -> None:
    """QUANT_CACHE_DIR: several processes share it."""
    cache = tmp_path / "c"
    loaders = [service(copied, "int4", quant_cache_dir=str(cache)) for _ in range(4)]
    start = threading.Barrier(len(loaders))

    def load(loader: type[ModelServiceV4]) -> None:
        start.wait(10)
        loader.get_model()

    threads = [threading.Thread(target=load, args=(loader,)) for loader in loaders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(folders(cache)) == 1
    # Making a model changes it, for all threads, and must change it back.
    assert torch.get_default_dtype() == torch.float32
    found = [logits(loader) for loader in loaders]
    assert all(torch.equal(one, found[0]) for one in found)
    spoil(copied)
    assert torch.equal(logits(service(copied, "int4", quant_cache_dir=str(cache))), found[0])
