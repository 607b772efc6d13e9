"""A GGUF file of the Phi-3 shape with random Q4_0 blocks, as llama.cpp's quantizer lays it out.

Runs where `gguf` and numpy are installed. Linear maps and the embedding are Q4_0, the head is Q6_K,
norms are float32; the vocabulary is made up, since nothing is tokenized.

    python -m bench.cpu.gguf_file FILE LAYERS HIDDEN INTERMEDIATE HEADS VOCABULARY
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cpu.checkpoint import Shape, require_disk

if TYPE_CHECKING:
    import numpy as np

# Blocks of llama.cpp: (weights, bytes, where in the block its scale is).
Q4_0 = (32, 18, 0)
Q6_K = (256, 210, 208)
WEIGHT_STD = 0.02
Q4_0_STD = 4.6
Q6_K_STD = 18.5
Q6_K_SCALE = 12
UNKNOWN, NORMAL, CONTROL, BYTE = 2, 1, 3, 6


def file_bytes(shape: Shape) -> int:
    """Return about how large the file is: without norms and the vocabulary's text."""
    in_q4 = shape.layers * shape.layer_elements + shape.head_elements
    return in_q4 * Q4_0[1] // Q4_0[0] + shape.head_elements * Q6_K[1] // Q6_K[0]


def blocks(rows: int, columns: int, block: tuple[int, int, int], random: Any) -> np.ndarray:
    """Return random blocks: (rows, columns / weights a block x bytes a block) uint8.

    Raises:
        ValueError: the columns are no whole number of blocks.
    """
    import numpy as np

    weights, size, offset = block
    if columns % weights:
        raise ValueError(f"{columns} columns are no whole number of blocks of {weights}")
    made = random.integers(0, 256, (rows, columns // weights, size), dtype=np.uint8)
    scale = WEIGHT_STD / Q4_0_STD if block == Q4_0 else WEIGHT_STD / Q6_K_STD / Q6_K_SCALE
    made[:, :, offset : offset + 2] = np.array([scale], dtype="<f2").view(np.uint8)
    if block == Q6_K:
        made[:, :, 192:208] = Q6_K_SCALE
    return made.reshape(rows, -1)


def write(shape: Shape, file: Path) -> None:
    """Write the file, one tensor at a time; it has its name when it is whole."""
    import gguf
    import numpy as np

    require_disk(file.parent, file_bytes(shape))
    unfinished = file.with_suffix(".unfinished")
    writer = gguf.GGUFWriter(unfinished, "phi3")
    _describe(writer, shape)
    plan = _tensors(shape)
    for name, rows, columns, block in plan:
        if block is None:
            writer.add_tensor_info(name, (columns,), np.dtype(np.float32), columns * 4)
        else:
            width = columns // block[0] * block[1]
            kinds = gguf.GGMLQuantizationType
            kind = kinds.Q4_0 if block == Q4_0 else kinds.Q6_K
            writer.add_tensor_info(name, (rows, width), np.dtype(np.uint8), rows * width, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    random = np.random.default_rng(0)
    for _, rows, columns, block in plan:
        if block is None:
            writer.write_tensor_data(np.ones(columns, dtype=np.float32))
        else:
            writer.write_tensor_data(blocks(rows, columns, block, random))
    writer.close()
    unfinished.rename(file)


def _tensors(shape: Shape) -> list[tuple[str, int, int, tuple[int, int, int] | None]]:
    """Return name, rows, columns and block of every tensor; None for float32."""
    hidden, wide = shape.hidden, shape.intermediate
    found: list[tuple[str, int, int, tuple[int, int, int] | None]] = [
        ("token_embd.weight", shape.vocabulary, hidden, Q4_0)
    ]
    for layer in range(shape.layers):
        at = f"blk.{layer}"
        found += [
            (f"{at}.attn_norm.weight", 1, hidden, None),
            (f"{at}.attn_qkv.weight", 3 * hidden, hidden, Q4_0),
            (f"{at}.attn_output.weight", hidden, hidden, Q4_0),
            (f"{at}.ffn_norm.weight", 1, hidden, None),
            (f"{at}.ffn_up.weight", 2 * wide, hidden, Q4_0),
            (f"{at}.ffn_down.weight", hidden, wide, Q4_0),
        ]
    found.append(("output_norm.weight", 1, hidden, None))
    found.append(("output.weight", shape.vocabulary, hidden, Q6_K))
    return found


def _describe(writer: Any, shape: Shape) -> None:
    import gguf

    writer.add_name(shape.name)
    writer.add_context_length(shape.positions)
    writer.add_rope_scaling_orig_ctx_len(shape.positions)
    writer.add_embedding_length(shape.hidden)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_block_count(shape.layers)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.hidden // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_sliding_window(shape.window)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    # llama.cpp looks these up when a model's name has phi3 in it.
    marks = [b"<unk>", b"<s>", b"</s>", b"<|endoftext|>"]
    marks += [f"<0x{byte:02X}>".encode() for byte in range(256)]
    words = [f"w{place}".encode() for place in range(shape.vocabulary - len(marks))]
    kinds = [UNKNOWN, CONTROL, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(marks + words)
    writer.add_token_scores([0.0] * shape.vocabulary)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def main() -> None:
    file, *sizes = sys.argv[1:]
    layers, hidden, intermediate, heads, vocabulary = (int(size) for size in sizes)
    shape = Shape(layers, hidden, intermediate, heads, vocabulary)
    write(shape, Path(file))


if __name__ == "__main__":
    main()
