"""A small Phi-3 trained here, on text that every machine with Python has: its standard library.

Quantization is judged on trained weights, because random ones have neither outliers nor meaning.
It knows nothing of formats or of the server; torch and transformers are imported when it trains.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.cpu.checkpoint import MARKERS, TEMPLATE

# Tests repeat themselves; what is under `encodings` is tables; topics are read as the prose they
# hold.
LEFT_OUT = frozenset(("test", "tests", "idle_test", "site-packages", "dist-packages", "encodings"))
TOPICS = Path("pydoc_data/topics.py")
# One document in so many is kept from training.
HELD_OUT_SHARE = 16
# Rows of the vocabulary that no token has, as in Phi-3.
UNUSED_ROWS = 64
WARM_UP_SHARE = 0.05
LEAST_RATE_SHARE = 0.1
REPORTS = 20


@dataclass(frozen=True, slots=True)
class Training:
    """What is trained and for how long: `steps`, or `minutes` where that is given.

    All sizes are those that the kernels of packed weights take. `window`: how far attention looks,
    less than `length`, the tokens of a training sequence, so that it is learnt with it; nothing
    is farther away than that, so that longer texts up to `positions` are read as well.
    `text_bytes`: how much text is used at most.
    """

    layers: int = 4
    hidden: int = 384
    intermediate: int = 1024
    heads: int = 6
    entries: int = 4096
    window: int = 255
    positions: int = 1024
    length: int = 512
    batch: int = 4
    steps: int = 800
    minutes: float | None = None
    rate: float = 2e-3
    seed: int = 1
    text_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents to train on and documents held out."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Return how much there is."""
        return {
            "train_documents": len(self.train),
            "train_chars": sum(map(len, self.train)),
            "held_out_documents": len(self.held_out),
            "held_out_chars": sum(map(len, self.held_out)),
        }

    def key(self) -> str:
        """Return a name of the content."""
        digest = hashlib.sha256()
        for document in (*self.train, "\0", *self.held_out):
            digest.update(document.encode())
        return digest.hexdigest()


def read_corpus(text_bytes: int | None = None) -> Corpus:
    """Read the standard library's sources and the texts of its `help`, always in the same order.

    A document is held out for the hash of its name, so that the same ones are on every machine.
    """
    train: list[str] = []
    held_out: list[str] = []
    left = text_bytes if text_bytes is not None else sys.maxsize
    for name, text in _documents():
        if left <= 0:
            break
        left -= len(text)
        first = hashlib.sha256(name.encode()).digest()[0]
        (held_out if first % HELD_OUT_SHARE == 0 else train).append(text)
    return Corpus(tuple(train), tuple(held_out))


def _documents() -> Iterator[tuple[str, str]]:
    """Yield names and texts: topics and sources in turns, so that a small share has both."""
    from pydoc_data.topics import topics

    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(
        file
        for file in root.rglob("*.py")
        if not LEFT_OUT & set(file.relative_to(root).parts) and file.relative_to(root) != TOPICS
    )
    prose = iter(sorted(topics.items()))
    for file in files:
        if topic := next(prose, None):
            yield f"topic {topic[0]}", topic[1]
        try:
            yield file.relative_to(root).as_posix(), file.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def trained(
    training: Training, corpus: Corpus, folder: Path, *, threads: int, again: bool = False
) -> Path:
    """Return the folder of the trained checkpoint, which is made unless it is there.

    `training.json` in it says how it was made.
    """
    marks = json.dumps([asdict(training), corpus.key()])
    made = folder / hashlib.sha256(marks.encode()).hexdigest()[:16]
    if again or not (made / "training.json").is_file():
        unfinished = folder / f"{made.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        _make(training, corpus, unfinished, threads)
        shutil.rmtree(made, ignore_errors=True)
        unfinished.rename(made)
    return made


def _make(training: Training, corpus: Corpus, folder: Path, threads: int) -> None:
    """Train tokenizer and model, and write both with `training.json`, the last file of all."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(training.seed)
    make_tokenizer: Any = transformers.PreTrainedTokenizerFast
    tokenizer = make_tokenizer(
        tokenizer_object=_byte_pairs(training.entries, corpus.train),
        eos_token=MARKERS[0],
        pad_token=MARKERS[0],
        extra_special_tokens=list(MARKERS[1:]),
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")]
    model = _new_model(training, end=ends[0])
    ids = torch.tensor(joined_ids(tokenizer, corpus.train))
    told = _train(model, ids, training)
    model.generation_config.eos_token_id = ends
    model.eval().save_pretrained(folder)
    told |= {"parameters": sum(one.numel() for one in model.parameters())}
    about = {"settings": asdict(training), "text": corpus.sizes, **told}
    (folder / "training.json").write_text(json.dumps(about, indent=1))


def joined_ids(tokenizer: Any, documents: tuple[str, ...]) -> list[int]:
    """Return the tokens of all documents, an end after each."""
    encoded = tokenizer.backend_tokenizer.encode_batch(list(documents), add_special_tokens=False)
    return [token for one in encoded for token in (*one.ids, tokenizer.eos_token_id)]


def _byte_pairs(entries: int, documents: tuple[str, ...]) -> Any:
    """Return a byte-level BPE of so many entries, trained on the documents."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=entries,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(MARKERS),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def _new_model(training: Training, *, end: int) -> Any:
    import transformers

    config = transformers.Phi3Config(
        vocab_size=training.entries + UNUSED_ROWS,
        hidden_size=training.hidden,
        intermediate_size=training.intermediate,
        num_hidden_layers=training.layers,
        num_attention_heads=training.heads,
        num_key_value_heads=training.heads,
        max_position_embeddings=training.positions,
        original_max_position_embeddings=training.positions,
        sliding_window=training.window,
        tie_word_embeddings=False,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    return transformers.Phi3ForCausalLM(config)


def _train(model: Any, ids: Any, training: Training) -> dict[str, Any]:
    """Train the model on parts of `ids` (tokens,), and return what came of it.

    Weights, gradients' sums and loss are float32; products are bfloat16 where the processor has an
    instruction for them, which trains three times as fast.
    """
    import torch

    from app.engine.quantized.kernels import find_kernels

    fast = find_kernels().dense == "bfloat16"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    model.train()
    parts = _parts(ids, training)
    started_s = time.perf_counter()
    step, share, told, smooth = 0, 0.0, 0.0, math.nan
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = training.rate * _rate_share(share)
        batch = next(parts)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            hidden = model.get_decoder()(input_ids=batch, use_cache=False).last_hidden_state
            logits = model.get_output_embeddings()(hidden[:, :-1])
        loss = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), batch[:, 1:].flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        value = loss.item()
        smooth = value if math.isnan(smooth) else 0.95 * smooth + 0.05 * value
        seconds = time.perf_counter() - started_s
        share = seconds / 60 / training.minutes if training.minutes else step / training.steps
        if share >= told + 1 / REPORTS:
            told = share
            print(f"step {step}, {seconds:.0f} s: loss {smooth:.3f}", file=sys.stderr)
    return {
        "steps": step,
        "tokens": step * training.batch * training.length,
        "loss": smooth,
        "seconds": time.perf_counter() - started_s,
        "bfloat16_products": fast,
    }


def _parts(ids: Any, training: Training) -> Iterator[Any]:
    """Yield batches of parts that do not overlap, in an order of chance, for ever."""
    import torch

    whole = len(ids) // training.length
    if whole < training.batch:
        raise SystemExit(f"The standard library here has {len(ids)} tokens, too few to train on.")
    parts = ids[: whole * training.length].view(whole, training.length)
    while True:
        order = torch.randperm(whole)
        for at in range(0, whole - training.batch + 1, training.batch):
            yield parts[order[at : at + training.batch]]


def _rate_share(share: float) -> float:
    """Return the share of the highest learning rate: up in a line, down along a cosine."""
    if share < WARM_UP_SHARE:
        return max(share, 0.1 * WARM_UP_SHARE) / WARM_UP_SHARE
    fall = (share - WARM_UP_SHARE) / (1 - WARM_UP_SHARE)
    return LEAST_RATE_SHARE + (1 - LEAST_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * fall))
