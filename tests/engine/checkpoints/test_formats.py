"""Formats, need and room, without torch."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.formats import (
    FLOAT_FORMATS,
    FORMATS,
    RUNTIME_BYTES,
    Choice,
    choose,
    layer_format,
    need_bytes,
    rows_at_once,
)
from app.engine.checkpoints.headers import Checkpoint, read_checkpoint
from app.engine.checkpoints.memory import available_bytes

PHI3 = {
    "num_hidden_layers": 32,
    "hidden_size": 3072,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
}
PHI3_ELEMENTS = 3_821_079_552
GB = 1_000_000_000


def write_checkpoint(folder: Path, shapes: dict[str, list[int]], config: dict[str, object]) -> Path:
    header = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        entry = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        header[name] = entry  # type: ignore[assignment]
        end += size
    data = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(data).to_bytes(8, "little") + data + bytes(end))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# Of one of the 32 layers: (out, in).
PHI3_LAYER = ((9216, 3072), (3072, 3072), (16384, 3072), (3072, 8192))


def phi3(**changes: object) -> Checkpoint:
    return Checkpoint(
        PHI3_ELEMENTS,
        100_000_000,
        {**PHI3, **changes},
        layers=PHI3_LAYER * 32,
        head=(32064, 3072),
    )


def test_the_sizes_come_from_the_headers_and_a_tied_head_counts_once(tmp_path: Path) -> None:
    """C12: the need is computed from the checkpoint's own sizes."""
    shapes = {"model.embed_tokens.weight": [10, 4], "lm_head.weight": [10, 4], "model.w": [4, 4]}
    tied = write_checkpoint(tmp_path, shapes, {"tie_word_embeddings": True})
    assert read_checkpoint(tied).elements == 56
    untied = write_checkpoint(tmp_path, shapes, {"tie_word_embeddings": False})
    assert read_checkpoint(untied).elements == 96
    del shapes["lm_head.weight"]
    created = write_checkpoint(tmp_path, shapes, {"tie_word_embeddings": False})
    assert read_checkpoint(created).elements == 96


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, (9).to_bytes(8, "little") + b"not json!"])
def test_a_damaged_file_is_refused_before_anything_is_loaded(
    tmp_path: Path, content: bytes
) -> None:
    """C12, C19."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(EngineUnavailable) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.code == "model_load_failed"


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    """C19: a download that stopped half-way is not a model."""
    folder = write_checkpoint(tmp_path, {"model.w": [64, 64]}, {})
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(EngineUnavailable) as caught:
        read_checkpoint(folder)
    assert caught.value.code == "model_load_failed"


def test_the_need_of_phi3_agrees_with_the_measurement() -> None:
    """C12: measured 16.4 GB peak in float32 and 8.4 in bfloat16 with a 1,024-token prompt."""
    need = [need_bytes(phi3(), f, context_tokens=1024, prompt_tokens=1024) for f in FORMATS[:2]]
    assert 16.4 * GB <= need[0] <= 17.2 * GB
    assert 8.2 * GB <= need[1] <= 9.0 * GB


@pytest.mark.parametrize(
    ("room", "chosen"),
    [
        (24 * GB, "float32"),
        (16 * GB, "bfloat16"),
        (9 * GB, "int8"),
        (int(5.3 * GB), "int4"),
        (None, "float32"),
    ],
)
def test_auto_takes_the_largest_format_that_fits(room: int | None, chosen: str) -> None:
    """C12: float32 if it fits, else the next one; and it says why."""
    choice = choose(phi3(), available=room, context_tokens=4096, prompt_tokens=3072)
    assert choice.format.name == chosen
    assert chosen in choice.reason or "float32 needs" in choice.reason
    assert choice.available_bytes is None or choice.need_bytes <= choice.available_bytes


@pytest.mark.parametrize(
    ("room", "chosen"),
    [(24 * GB, "float32"), (16 * GB, "int8"), (9 * GB, "int8"), (int(5.3 * GB), "int4")],
)
def test_where_packed_layers_are_fast_auto_takes_the_fastest_true_format(
    room: int, chosen: str
) -> None:
    """C37: int8 before bfloat16; int4, not known to be within 1 %, only where nothing else fits."""
    sizes = {"context_tokens": 4096, "prompt_tokens": 3072}
    choice = choose(phi3(), available=room, packed_is_fast=True, **sizes)
    assert choice.format.name == chosen


def chosen(room: int | None, sequences: int = 1, model_type: str = "phi3", **values: str) -> Choice:
    """Choose for Phi-3-mini with its whole context, as the loader does."""
    checkpoint = phi3(model_type=model_type)
    rows = rows_at_once(checkpoint, context_tokens=4096, sequences=sequences)
    return choose(
        checkpoint,
        available=room,
        context_tokens=4096,
        prompt_tokens=rows,
        sequences=sequences,
        **values,
    )


# Keys and values of one token in bfloat16, and those of the whole context.
PHI3_TOKEN_BYTES = 2 * 32 * 3072 * 2
PHI3_CONTEXT_BYTES = 4096 * PHI3_TOKEN_BYTES


def test_the_need_grows_with_each_sequence_that_may_run() -> None:
    """C12, C25: MAX_CONCURRENT_GENERATIONS whole contexts, not one."""
    needs = [chosen(None, sequences, weights="bfloat16").need_bytes for sequences in (1, 2, 4)]
    for more, (before, after) in zip((1, 2), pairwise(needs), strict=True):
        assert after - before == pytest.approx(more * PHI3_CONTEXT_BYTES, rel=0.04)


def test_the_loop_reads_in_chunks_and_generate_whole_prompts() -> None:
    """C12: 512 rows and a row for each who writes, or all prompts at once."""
    ours, other = phi3(model_type="phi3"), phi3(model_type="gemma2")
    assert rows_at_once(ours, context_tokens=4096, sequences=4) == 512 + 4
    assert rows_at_once(ours, context_tokens=200, sequences=1) == 201
    assert rows_at_once(other, context_tokens=4096, sequences=4) == 4096


@pytest.mark.parametrize(
    ("room_gb", "asked", "weights", "sequences", "kept_tokens"),
    [
        # What /proc says is free on machines of 16 and of 8 GB with nothing else on them.
        (15.0, 1, "bfloat16", 1, 4096),
        (15.0, 2, "bfloat16", 2, 4096),
        (15.0, 4, "bfloat16", 4, 256),
        (7.4, 1, "int8", 1, 2400),
        (7.4, 4, "int8", 1, 2400),
        (5.0, 1, "int4", 1, 300),
        (19.3, 1, "float32", 1, 0),
        (24.0, 1, "float32", 1, 4096),
        (24.0, 4, "float32", 2, 1700),
    ],
)
def test_what_auto_picks_and_what_it_leaves_for_earlier_prompts(
    room_gb: float, asked: int, weights: str, sequences: int, kept_tokens: int
) -> None:
    """S0.6, C12, C25: where memory is short, fewer run and less is kept; the format stays."""
    choice = chosen(int(room_gb * GB), asked)
    assert (choice.format.name, choice.sequences) == (weights, sequences)
    assert choice.kept_tokens is not None
    assert kept_tokens <= choice.kept_tokens <= min(4096, kept_tokens + 140)
    token_bytes = PHI3_TOKEN_BYTES * choice.format.compute_bytes // 2
    assert choice.need_bytes + choice.kept_tokens * token_bytes <= room_gb * GB


def test_without_a_known_limit_the_context_is_the_bound() -> None:
    """C12."""
    assert chosen(None).kept_tokens is None


def test_models_that_generate_runs_need_room_for_one() -> None:
    """C12: they run one after the other."""
    four, one = (chosen(24 * GB, count, model_type="gemma2") for count in (4, 1))
    assert four.sequences == 1
    assert four == one


@pytest.mark.parametrize(("weights", "gigabytes"), [("int8", 4.15), ("int4", 2.57)])
def test_the_need_of_packed_weights_is_what_phi3_holds(weights: str, gigabytes: float) -> None:
    """C12: embedding bfloat16, head int8, layers as the format says."""
    need = need_bytes(
        phi3(num_hidden_layers=0, hidden_size=1, intermediate_size=1, num_attention_heads=1),
        next(one for one in FORMATS if one.name == weights),
        context_tokens=1,
        prompt_tokens=1,
    )
    # While loading, one tensor more than what is held: the largest has 0.1 billion elements.
    assert need == pytest.approx(gigabytes * GB + RUNTIME_BYTES + 0.4 * GB, abs=0.06 * GB)


def test_layers_that_no_kernel_takes_are_counted_in_bfloat16() -> None:
    """C12: honest also for sizes that the kernels do not know."""
    assert layer_format("int4", (64, 128)) == "int4"
    assert layer_format("int4", (64, 128), head=True) == "int8"
    assert layer_format("int4", (48, 96)) == "bfloat16"
    assert layer_format("int8", (20, 128)) == layer_format("int8", (64, 48)) == "bfloat16"
    assert layer_format("bfloat16", (64, 128)) == "bfloat16"
    odd = replace(phi3(), layers=((20, 24),) * 9, head=(99, 24))
    need = [need_bytes(odd, f, context_tokens=1, prompt_tokens=1) for f in FORMATS[1:]]
    assert need[1] >= need[0]
    assert need[1] == need[2]


def test_a_tied_head_becomes_one_beside_the_embedding() -> None:
    """C12: int8 for the scores, bfloat16 for the look-up."""
    untied, tied = phi3(), replace(phi3(), tied=True)
    need = [need_bytes(c, FORMATS[2], context_tokens=1, prompt_tokens=1) for c in (untied, tied)]
    assert need[1] - need[0] == pytest.approx(2 * 32064 * 3072, rel=0.01)


def test_a_model_that_reads_images_is_not_offered_packed_weights() -> None:
    """C7, C12."""
    with pytest.raises(EngineUnavailable) as caught:
        choose(
            phi3(),
            weights="int8",
            available=None,
            context_tokens=1,
            prompt_tokens=1,
            formats=FLOAT_FORMATS,
        )
    assert caught.value.code == "weights_unsupported"
    assert "int4" not in caught.value.message.partition(":")[2]


@pytest.mark.parametrize("weights", ["float32", "auto"])
def test_what_cannot_fit_is_refused_with_numbers_and_the_fix(weights: str) -> None:
    """C12: a clear error, never an out-of-memory kill."""
    with pytest.raises(EngineUnavailable) as caught:
        choose(phi3(), weights=weights, available=GB, context_tokens=4096, prompt_tokens=3072)
    assert caught.value.code == "not_enough_memory"
    assert "1.0 GB" in caught.value.message
    assert "float32 needs" in caught.value.message


@pytest.mark.parametrize("weights", ["int2", "float8"])
def test_a_format_that_cannot_be_loaded_is_refused(weights: str) -> None:
    """C12."""
    with pytest.raises(EngineUnavailable) as caught:
        choose(phi3(), weights=weights, available=None, context_tokens=4096, prompt_tokens=1)
    assert caught.value.code == "weights_unsupported"


def fake_machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 8000 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_without_a_cgroup_the_kernels_number_counts(tmp_path: Path) -> None:
    """C12."""
    assert available_bytes(root=fake_machine(tmp_path, {})) == 8_192_000
    assert available_bytes(root=tmp_path, limit_bytes=5) == 5
    assert available_bytes(root=tmp_path / "nowhere") is None


def test_a_cgroup_v2_limit_counts_with_its_reclaimable_cache(tmp_path: Path) -> None:
    """C12: cgroup limit included, of every ancestor."""
    root = fake_machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "sys/fs/cgroup/pod/memory.max": "5000000\n",
            "sys/fs/cgroup/pod/memory.current": "3000000\n",
            "sys/fs/cgroup/pod/memory.stat": "anon 1\ninactive_file 1000000\n",
            "sys/fs/cgroup/pod/app/memory.max": "max\n",
            "sys/fs/cgroup/pod/app/memory.current": "3000000\n",
        },
    )
    assert available_bytes(root=root) == 3_000_000


def test_a_cgroup_v1_limit_counts_and_an_unlimited_one_does_not(tmp_path: Path) -> None:
    """C12: inside a container the host's path is absent and the mount point holds the limit."""
    base = "sys/fs/cgroup/memory/"
    root = fake_machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n",
            f"{base}memory.limit_in_bytes": "4000000\n",
            f"{base}memory.usage_in_bytes": "1000000\n",
            f"{base}memory.stat": "total_inactive_file 500000\n",
        },
    )
    assert available_bytes(root=root) == 3_500_000
    (root / base / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert available_bytes(root=root) == 8_192_000
