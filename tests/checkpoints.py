"""Makes tiny checkpoints of random weights, with a tokenizer trained here: no download.

`make_checkpoint` is the function; `checkpoint`, `fallback_checkpoint`, `qwen_checkpoint` and
`llama_checkpoint` are session fixtures that a folder's `conftest.py` (or a test file) imports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.made_once import made_once
from tests.weight_formats import of_this_run

Kind = Literal["bytes", "fallback"]
Architecture = Literal["phi3", "qwen3", "llama"]

MARKERS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "'<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Llama 3's and Qwen3's own: the ends of turns come first, and the last ones are no special tokens.
LLAMA_MARKERS = ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
QWEN_MARKERS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
QWEN_WORDS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
QWEN_TEMPLATE = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- '# Tools\\n\\nYou have functions within <tools></tools>:\\n<tools>' }}
    {%- for tool in tools %}
        {{- '\\n' }}{{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {{- '<|im_start|>assistant\\n' + content }}
        {%- for call in message.tool_calls or [] %}
            {%- if loop.index0 or content %}{{- '\\n' }}{%- endif %}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {%- if call.function.arguments is string %}
                {{- call.function.arguments }}
            {%- else %}
                {{- call.function.arguments | tojson }}
            {%- endif %}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""
# Those of Qwen3-…-Thinking-2507 know no switch and always begin with a thought.
THINKING_TEMPLATE = (
    QWEN_TEMPLATE.partition("    {%- if enable_thinking")[0].replace(
        "{{- '<|im_start|>assistant\\n' }}\n", "{{- '<|im_start|>assistant\\n<think>\\n' }}\n"
    )
    + "{%- endif %}"
)
LLAMA_TEMPLATE = """{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system + '<|eot_id|>' }}
{%- if tools is not none and tools is defined %}
    {%- set first = messages[0].content | trim %}{%- set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\nFunctions:\\n\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}{{- '\\n\\n' }}
    {%- endfor %}
    {{- first + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {%- if message.tool_calls | length != 1 %}
            {{- raise_exception('This model only supports single tool-calls at once!') }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name }}
        {{- '", "parameters": ' }}{{- call.arguments | tojson }}{{- '}<|eot_id|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {{- message.content | tojson }}{{- '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
        {{- message.content | trim }}{{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
CORPUS = (
    "Rate cuts loom over the market, the central bank said on Tuesday.",
    '{"title":"Rates","main_summary":"The bank cut.","key_points":["a","b","c"],'
    '"category":"Economy","sentiment":"neutral","read_time_min":3}',
    "Analysts expect growth of 2.5 percent; prices rose. Investors were calm, and shares gained.",
    "Menteri keuangan mengatakan bahwa inflasi akan turun. Die Zentralbank senkte die Zinsen.",
    "L'économie française a progressé. 日本銀行は金利を引き上げた。 Цены выросли.",
)


@made_once
def make_checkpoint(
    folder: Path,
    *,
    kind: Kind = "bytes",
    architecture: Architecture = "phi3",
    template: str | None = "own",
    layers: int = 1,
    context_tokens: int = 2048,
    tied: bool = False,
    hidden: int | None = None,
    seed: int = 0,
) -> Path:
    """Write config, weights (safetensors) and tokenizer to `folder`, and return it.

    `hidden`: from 128 on, all sizes are those that the kernels of packed weights take; None is 32,
    and 128 where the run is for packed weights.
    `kind`: "bytes" is a byte-level BPE, "fallback" one with "▁" for spaces and `<0xNN>` tokens,
    as Phi-3 and Llama have. `template` "own" is in the style of the architecture's.
    """
    import torch
    import transformers

    hidden = hidden or (128 if of_this_run().packed else 32)
    markers, own, prefix = _FAMILIES[architecture]
    backend: Any = byte_level(markers) if kind == "bytes" else _byte_fallback(markers)
    make_tokenizer: Any = transformers.PreTrainedTokenizerFast
    tokenizer = make_tokenizer(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>" if architecture == "llama" else None,
        eos_token=markers[0],
        pad_token=markers[0],
        unk_token="<unk>" if kind == "fallback" else None,
        extra_special_tokens=list(markers[1:]),
    )
    if architecture == "qwen3":
        tokenizer.add_tokens(list(QWEN_WORDS))
    tokenizer.chat_template = own if template == "own" else template
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    more: dict[str, Any] = {"head_dim": hidden // 2} if architecture == "qwen3" else {}
    if architecture == "phi3":
        more = {"original_max_position_embeddings": context_tokens, "sliding_window": None}
    # A little more than the tokenizer knows, as in Phi-3 itself.
    vocabulary = len(tokenizer) + 5
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=vocabulary if hidden < 128 else vocabulary + -vocabulary % 64,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=context_tokens,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.5,
        **more,
    )
    model = getattr(transformers, f"{prefix}ForCausalLM")(config)
    last = markers[-1] if architecture != "llama" else markers[0]
    model.generation_config.eos_token_id = [
        tokenizer.eos_token_id,
        tokenizer.convert_tokens_to_ids(last),
    ]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model, byte-level tokenizer."""
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def packable_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model whose layers can be int8 and int4."""
    return make_checkpoint(tmp_path_factory.mktemp("packable"), hidden=128, layers=2)


@pytest.fixture(scope="session")
def fallback_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model and a tokenizer of Phi-3's own kind."""
    return make_checkpoint(tmp_path_factory.mktemp("fallback"), kind="fallback")


@pytest.fixture(scope="session")
def qwen_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Qwen3, which may think and call tools."""
    return make_checkpoint(tmp_path_factory.mktemp("qwen"), architecture="qwen3")


@pytest.fixture(scope="session")
def llama_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama, which calls tools in its own way."""
    return make_checkpoint(tmp_path_factory.mktemp("llama"), architecture="llama")


_FAMILIES: dict[Architecture, tuple[tuple[str, ...], str, str]] = {
    "phi3": (MARKERS, TEMPLATE, "Phi3"),
    "qwen3": (QWEN_MARKERS, QWEN_TEMPLATE, "Qwen3"),
    "llama": (LLAMA_MARKERS, LLAMA_TEMPLATE, "Llama"),
}


def byte_level(markers: tuple[str, ...] = MARKERS) -> Any:
    """Return a byte-level BPE trained on the corpus, with these control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(markers),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


def _byte_fallback(markers: tuple[str, ...] = MARKERS) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    pieces = ["<unk>", *markers, *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        CORPUS * 3,
        trainers.BpeTrainer(vocab_size=700, special_tokens=pieces, show_progress=False),
    )
    model = json.loads(trained.to_str())["model"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=model["vocab"],
            merges=[tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", *markers])
    return tokenizer
