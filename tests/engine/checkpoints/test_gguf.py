"""GGUF files as checkpoints (C31): what they compute, and what is refused before any work."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from app.core.errors import EngineUnavailable
from app.engine.checkpoints.gguf.header import read_header
from app.engine.checkpoints.gguf.tensors import GgufTensors
from tests.checkpoints import make_checkpoint
from tests.gguf_files import write_gguf
from tests.packed_models import IDS, folders, generated, logits, service

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"attention_bias": False},
    "Qwen2": {},
    "Qwen3": {"head_dim": 32},
    "Phi3": {},
    "Gemma3Text": {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
}


def random_model(family: str, **more: Any) -> Any:
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**SIZES | FAMILIES[family] | more)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        # What is all ones or zeros would hide that it went elsewhere.
        if name.endswith(("norm.weight", "layernorm.weight", "bias")):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    return make_checkpoint(folder, architecture="llama", hidden=128)


@pytest.fixture(scope="module")
def llama_file(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    return write_gguf(model, file, tokenizer=llama)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_computes_what_the_model_that_it_was_made_of_does(
    family: str, tied: bool, tmp_path: Path
) -> None:
    """C31, every family: names, order of rows, shifted norms, fused and tied layers."""
    from app.engine.checkpoints.gguf.model import gguf_config
    from app.engine.checkpoints.tensors import Tensors

    model = random_model(family, tie_word_embeddings=tied)
    file = write_gguf(model, tmp_path / "model.gguf")
    made = transformers.AutoModelForCausalLM.from_config(gguf_config(file)).eval()
    tensors = Tensors(file, made)
    made.load_state_dict({name: tensors.read(name) for name in made.state_dict()})

    with torch.no_grad():
        assert torch.allclose(made(IDS).logits, model(IDS).logits, atol=1e-4)


def test_a_file_is_loaded_with_its_tokenizer_template_and_ends(
    llama: Path, llama_file: Path
) -> None:
    """C31: text, ids and logits are those of the same model in safetensors."""
    other, own = service(llama, "float32"), service(llama_file, "float32")
    messages = [{"role": "user", "content": "Rates 2019 gained 4,000."}]
    texts = [
        one.get_model()[1].apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        for one in (other, own)
    ]

    assert texts[0] == texts[1]
    assert torch.allclose(logits(own), logits(other), atol=1e-4)
    assert generated(own) == generated(other)
    assert own.info()["need_bytes"] == pytest.approx(other.info()["need_bytes"], rel=0.01)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_blocks_are_taken_unrounded(kind: str, tmp_path: Path) -> None:
    """C31: codes, scales and minima give bit for bit what the file's numbers are."""
    file = write_gguf(random_model("Llama"), tmp_path / "model.gguf", kind=kind)
    tensors = GgufTensors(read_header(file))
    for name in ("model.layers.1.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"):
        blocks, whole = tensors.tensor(name).blocks(), tensors.tensor(name).dequantize()

        assert blocks is not None
        made = blocks.codes.float().view(*blocks.scale.shape, 32)
        made = made * blocks.scale.float().unsqueeze(2)
        if blocks.minimum is not None:
            made = made + blocks.minimum.float().unsqueeze(2)
        assert torch.equal(made.view(whole.shape), whole)


@pytest.mark.parametrize(
    ("kind", "weights"), [("Q4_0", "int4"), ("Q4_0", "int8"), ("Q4_1", "int4"), ("Q8_0", "int8")]
)
def test_packed_layers_hold_the_file_s_own_numbers(
    kind: str, weights: str, llama: Path, tmp_path: Path
) -> None:
    """C31: blocks go into the layers of int4 and int8 bit for bit."""
    from app.engine.quantized.layout import unpack_int4, unpack_int8

    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    file = write_gguf(model, tmp_path / "model.gguf", tokenizer=llama, kind=kind)
    true, made = (service(file, one).get_model()[0] for one in ("float32", weights))

    for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"):
        layer = made.model.layers[0].get_submodule(part)
        held = (unpack_int4 if weights == "int4" else unpack_int8)(layer.packed)
        assert torch.equal(held, true.model.layers[0].get_submodule(part).weight)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q5_0", "Q5_1", "Q8_0", "Q4_1"])
def test_other_formats_are_made_into_floats(kind: str, tmp_path: Path) -> None:
    model = random_model("Llama")
    tensors = GgufTensors(read_header(write_gguf(model, tmp_path / "model.gguf", kind=kind)))
    name = "model.layers.1.self_attn.k_proj.weight"
    true = model.state_dict()[name]

    error = (tensors.tensor(name).dequantize() - true).square().mean() / true.square().mean()

    assert error.sqrt() < (0.1 if kind.startswith("Q") else 0.01)


@pytest.mark.parametrize("weights", ["bfloat16", "int8", "int4"])
def test_a_file_is_loaded_in_every_format(weights: str, llama: Path, llama_file: Path) -> None:
    assert torch.equal(logits(service(llama_file, weights)), logits(service(llama, weights)))


def test_what_was_packed_of_a_file_is_packed_once(llama_file: Path, tmp_path: Path) -> None:
    """The second load reads what the first kept; another file of the same name is packed anew."""
    file = tmp_path / "models" / "model.gguf"
    file.parent.mkdir()
    file.write_bytes(llama_file.read_bytes())
    cache = tmp_path / "cache"
    options: dict[str, Any] = {"quant_cache_dir": str(cache)}

    first = logits(service(file, "int8", **options))
    assert len(folders(cache)) == 1
    kept = folders(cache)[0].stat().st_mtime_ns
    assert torch.equal(logits(service(file, "int8", **options)), first)
    assert [one.stat().st_mtime_ns for one in folders(cache)] == [kept]
    data = bytearray(file.read_bytes())
    data[-64:] = bytes(64)
    file.write_bytes(data)
    logits(service(file, "int8", **options))
    assert len(folders(cache)) == 2


def test_a_folder_with_one_file_is_that_file_and_several_must_be_named(
    llama_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.gguf").write_bytes(llama_file.read_bytes())
    assert service(tmp_path, "float32").unavailable() is None

    (tmp_path / "two.gguf").write_bytes(llama_file.read_bytes())
    problem = service(tmp_path, "float32").unavailable()
    assert problem is not None
    assert "2 GGUF files" in problem.message


@pytest.mark.parametrize("name", ["missing.gguf", "folder/missing.gguf", "", "empty", "notes.txt"])
def test_a_path_without_a_model_says_what_to_correct(name: str, tmp_path: Path) -> None:
    """A 503 that names the setting, and not the path."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no model")

    problem = service(tmp_path / name, "float32").unavailable()

    assert problem is not None
    assert (problem.code, problem.status) == ("model_unavailable", 503)
    assert "V4_MODEL_ID" in problem.message
    assert str(tmp_path) not in problem.message


def _field(data: bytes, name: bytes) -> int:
    """Return where the type of a field's value stands."""
    at = data.index(struct.pack("<Q", len(name)) + name)
    return at + 8 + len(name)


def _put(form: str, at: int, *values: Any) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        struct.pack_into(form, data, at, *values)

    return change


def _set(name: bytes, form: str, value: Any, skip: int = 4) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        struct.pack_into(form, data, _field(data, name) + skip, value)

    return change


def _cut(to: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        del data[to:]

    return change


def _rename(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        at = data.index(old)
        data[at : at + len(old)] = new

    return change


HUGE = 2**63
FIRST = b"token_embd.weight"
CHANGES: dict[str, Callable[[bytearray], None]] = {
    "empty": _cut(0),
    "cut in the magic": _cut(3),
    "cut in the counts": _cut(20),
    "cut in the metadata": _cut(300),
    "cut in the tensors": _cut(-1000),
    "another magic": _put("4s", 0, b"GGML"),
    "a later version": _put("<I", 4, 99),
    "another byte order": _put(">I", 4, 3),
    "many tensors": _put("<Q", 8, HUGE),
    "some tensors too many": _put("<Q", 8, 5000),
    "many fields": _put("<Q", 16, HUGE),
    "a long name": _put("<Q", 24, HUGE),
    "an unknown kind of value": _set(b"llama.block_count", "<I", 77, 0),
    "no layers": _set(b"llama.block_count", "<I", 0),
    "a billion layers": _set(b"llama.block_count", "<I", 10**9),
    "no heads": _set(b"llama.attention.head_count", "<I", 0),
    "heads that do not divide": _set(b"llama.attention.head_count", "<I", 7),
    "a norm that is no number": _set(b"llama.attention.layer_norm_rms_epsilon", "<f", float("nan")),
    "a context without end": _set(b"llama.context_length", "<I", 2**32 - 1),
    "a list without end": _set(b"tokenizer.ggml.tokens", "<Q", HUGE, 8),
    "a list of lists": _set(b"tokenizer.ggml.tokens", "<I", 9, 4),
    "many dimensions": _set(FIRST, "<I", 2**31, 0),
    "a width without end": _set(FIRST, "<Q", HUGE),
    "no width": _set(FIRST, "<Q", 0),
    "tensors outside": _set(FIRST, "<Q", 2**40, 4 + 16 + 4),
    "tensors over each other": _set(b"output_norm.weight", "<Q", 0, 4 + 8 + 4),
    "an unknown tensor": _rename(b"output_norm.weight", b"output_nirm.weight"),
    "a name that is no text": _rename(b"output_norm.weight", b"output_n\xff\xffm.weight"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_file_is_refused_before_any_work(
    change: str, llama_file: Path, tmp_path: Path
) -> None:
    data = bytearray(llama_file.read_bytes())
    CHANGES[change](data)
    file = tmp_path / "model.gguf"
    file.write_bytes(data)

    problem = service(file, "float32").unavailable()

    assert problem is not None
    assert (problem.code, problem.status) == ("model_load_failed", 503)
    assert "V4_MODEL_ID" in problem.message


@pytest.mark.parametrize(("name", "code"), [(b"llamb", "model_load_failed")])
def test_an_unknown_family_is_named_with_those_that_run(
    name: bytes, code: str, llama_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(llama_file.read_bytes().replace(b"llama", name))

    problem = service(file, "float32").unavailable()

    assert problem is not None
    assert problem.code == code
    assert all(word in problem.message for word in (name.decode(), "llama", "qwen2", "gemma3"))


def test_an_unknown_type_of_tensors_is_named_with_those_that_are_read(
    llama_file: Path, tmp_path: Path
) -> None:
    data = bytearray(llama_file.read_bytes())
    _set(FIRST, "<I", 34, 4 + 16)(data)
    file = tmp_path / "model.gguf"
    file.write_bytes(data)

    problem = service(file, "float32").unavailable()

    assert problem is not None
    assert problem.code == "weights_unsupported"
    assert "34" in problem.message
    assert "Q4_1" in problem.message


def test_weights_that_are_no_numbers_are_not_loaded(llama_file: Path, tmp_path: Path) -> None:
    data = bytearray(llama_file.read_bytes())
    data[-4:] = struct.pack("<f", float("nan"))
    file = tmp_path / "model.gguf"
    file.write_bytes(data)

    with pytest.raises(EngineUnavailable) as refused:
        service(file, "float32").get_model()

    assert refused.value.code == "model_load_failed"
