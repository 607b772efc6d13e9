"""A chat with tiny models of three families: the whole road from a request to its items."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.core.errors import AppError, Unsupported
from app.engine.base import (
    Finish,
    GenerateRequest,
    Item,
    Message,
    Reasoning,
    Text,
    Tool,
    ToolCall,
    ToolCallPart,
)
from app.engine.local.engine import LocalEngine
from app.engine.prompting.fit import encode_prompt
from app.engine.text.pieces import TextChunk
from app.services.model_loader_v4 import ModelServiceV4
from tests.checkpoints import THINKING_TEMPLATE, make_checkpoint
from tests.weight_formats import of_this_run

FAMILIES = ["checkpoint", "qwen_checkpoint", "llama_checkpoint", "fallback_checkpoint"]
USER = Message("user", "Hello")
WEATHER = Tool(
    "weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "unit": {"$ref": "#/$defs/Unit"},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
        "$defs": {"Unit": {"enum": ["c", "f"]}},
    },
)
NOW = Tool("now", parameters={"type": "object", "properties": {}, "additionalProperties": False})

WAIT_S = 60.0


def service(folder: Path, **values: Any) -> type[ModelServiceV4]:
    class Service(ModelServiceV4):
        """A model of its own."""

    Service.configure(**of_this_run().loading(folder, **values))
    return Service


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> type[ModelServiceV4]:
    return service(request.getfixturevalue(request.param))


def asked(**values: Any) -> GenerateRequest:
    return GenerateRequest(**{"messages": (USER,), "max_tokens": 48, "seed": 1, **values})


async def items_of(loader: Any, request: GenerateRequest) -> list[Item]:
    async with asyncio.timeout(50), aclosing(LocalEngine(loader).generate(request)) as stream:
        return [item async for item in stream]


def text_of(items: Sequence[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, Text))


def calls_of(items: Sequence[Item]) -> list[tuple[str, str]]:
    """Return name and arguments of each call."""
    calls: list[list[str]] = []
    for item in items:
        if isinstance(item, ToolCallPart):
            if item.id is not None:
                calls.append([item.name or "", ""])
            calls[item.index][1] += item.arguments
    return [(name, arguments) for name, arguments in calls]


def run(stream: Iterator[str]) -> tuple[list[str], Finish]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def check_call(name: str, arguments: str) -> None:
    value = json.loads(arguments)
    assert json.dumps(value, ensure_ascii=False, separators=(",", ":")) == arguments
    if name == "now":
        assert value == {}
    else:
        assert name == "weather"
        assert set(value) == {"city", "unit"}
        assert value["unit"] in ("c", "f")
        assert len(value["city"]) <= 30


@contextmanager
def scripted(loader: type[ModelServiceV4], *texts: str) -> Iterator[None]:
    """Make the model want these texts first, token by token, in every generation of the block."""
    model, tokenizer = loader.get_model()
    wanted = [
        token
        for text in texts
        for token in tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ]
    read: list[int] = []

    def note(module: Any, args: Any) -> None:
        read[:] = args[0].flatten().tolist()

    def bias(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        biased = output.clone()
        # Behind the row that is due are those of what was guessed, which the script may want too.
        rows = biased.shape[1]
        guessed = read[len(read) - rows + 1 :]
        for row, token in enumerate(wanted[:rows]):
            biased[:, row, token] += 1e6
        right = 0
        while right < len(guessed) and wanted[right : right + 1] == guessed[right : right + 1]:
            right += 1
        del wanted[: right + 1]
        return biased

    hooks = (
        model.get_input_embeddings().register_forward_pre_hook(note),
        model.lm_head.register_forward_hook(bias),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


async def test_every_family_writes_and_counts(family: type[ModelServiceV4]) -> None:
    """S0.15, S2.17, C8."""
    items = await items_of(family, asked())
    finish = items[-1]
    assert isinstance(finish, Finish)
    assert finish.reason in ("stop", "length")
    assert 0 < finish.completion_tokens <= 48
    fitted = await LocalEngine(family).fit(asked())
    assert fitted.prompt_tokens == finish.prompt_tokens


async def test_greedy_and_seeded_texts_repeat_also_side_by_side(
    family: type[ModelServiceV4],
) -> None:
    """S2.18, contract 2: `seed`, whatever else runs in the process, but for int8 and int4.

    There its rounding depends on how many rows are computed together (README, Limits).
    """
    engine = LocalEngine(family, slots=2)

    async def text(**values: Any) -> str:
        async with asyncio.timeout(50), aclosing(engine.generate(asked(**values))) as stream:
            return text_of([item async for item in stream])

    packed = of_this_run().packed
    if packed:
        # A prompt that was read before ends in a row of its own.
        await text(temperature=0.0)
    alone = (await text(temperature=1.0, seed=3), await text(temperature=1.0, seed=4))
    greedy = await text(temperature=0.0, seed=None)
    assert await text(temperature=0.0, seed=None) == greedy
    assert await text(temperature=1.0, seed=3) == alone[0]
    assert alone[0] != alone[1]
    if packed:
        return
    together = await asyncio.gather(
        text(temperature=1.0, seed=3),
        text(temperature=1.0, seed=4),
    )
    beside = await asyncio.gather(text(temperature=0.0), text(temperature=1.0, seed=None))
    assert list(alone) == list(together)
    assert beside[0] == greedy


async def test_penalties_keep_a_model_from_repeating(checkpoint: Path) -> None:
    """Contract 2: `presence_penalty`: at its highest a greedy model says something else."""
    loader = service(checkpoint)
    penalties = {"presence_penalty": 2.0, "frequency_penalty": 2.0}
    # With random weights, one answer alone may end before it repeats itself.
    prompts = [(Message("user", word),) for word in ("Hello", "Rates", "The bank", "Growth")]
    plain, penalised = [
        [
            text_of(await items_of(loader, asked(messages=prompt, temperature=0.0, **values)))
            for prompt in prompts
        ]
        for values in ({}, penalties)
    ]
    assert plain != penalised


def tokens_of(pieces: Sequence[str]) -> list[Any]:
    return [token for piece in pieces if isinstance(piece, TextChunk) for token in piece.logprobs]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logprobs_are_those_of_a_forward_pass(
    family: type[ModelServiceV4], temperature: float
) -> None:
    """Contract 2: `logprobs`: log_softmax of the model's own logits, for every token once."""
    model, tokenizer = family.get_model()
    kept: list[int] = []
    scores: list[torch.Tensor] = []
    hooks = (
        model.get_input_embeddings().register_forward_pre_hook(
            lambda module, args: kept.extend(args[0].flatten().tolist())
        ),
        model.get_output_embeddings().register_forward_hook(
            lambda module, args, output: scores.append(output[0, -1])
        ),
    )
    try:
        options: dict[str, Any] = {"max_tokens": 30, "temperature": temperature, "seed": 2}
        pieces, finish = run(
            family.stream_generation(
                "Hello", top_logprobs=3, presence_penalty=1.0, top_p=0.9, **options
            )
        )
    finally:
        for hook in hooks:
            hook.remove()
    prompt = finish.prompt_tokens
    # The model saw every token once, but for the last one, which is not known here.
    assert len(kept) == prompt + finish.completion_tokens - 1
    expected = torch.stack(scores).float().log_softmax(-1)
    if of_this_run().held == "float32":
        # Narrower numbers round by how many rows are multiplied at once.
        with torch.inference_mode():
            whole = model(torch.tensor([kept])).logits[0, prompt - 1 :].log_softmax(-1)
        assert float((whole - expected).abs().max()) < 1e-3
    silent = set(tokenizer.all_special_ids)
    generated = [(place, token) for place, token in enumerate(kept[prompt:]) if token not in silent]
    told = tokens_of(pieces)
    assert len(told) <= len(generated) + 1
    # Tokens that end in the middle of a character may be left at the very end.
    assert len(generated) - len(told) <= 3
    for (place, token), one in zip(generated, told, strict=False):
        assert abs(one.logprob - float(expected[place, token])) < 1e-3
        assert len(one.top) == 3
        assert [value for *_, value in one.top] == sorted(
            (value for *_, value in one.top), reverse=True
        )
        best = float(expected[place].max())
        assert abs(one.top[0][2] - best) < 1e-3
        assert one.logprob <= best + 1e-3
    said = b"".join(one.data for one in told).decode("utf-8", "replace")
    # How many signs stand for a broken character is the decoder's own business, and one with tokens
    # for single bytes takes ASCII beside it for broken, too.
    if tokenizer.unk_token is None:
        assert said.replace("\ufffd", "") == "".join(pieces).replace("\ufffd", "")


def test_without_logprobs_pieces_carry_none(checkpoint: Path) -> None:
    """Contract 2."""
    pieces, _ = run(service(checkpoint).stream_generation("Hello", max_tokens=8, seed=1))
    assert tokens_of(pieces) == []


def test_what_a_stop_string_cuts_off_has_no_logprobs(checkpoint: Path) -> None:
    """Contract 2: `stop` across tokens, and only tokens of the output are told."""
    loader = service(checkpoint)
    options: dict[str, Any] = {"max_tokens": 60, "temperature": 1.0, "top_logprobs": 0}
    cut = 0
    for seed in range(8):
        whole, _ = run(loader.stream_generation("Hello", seed=seed, **options))
        text = "".join(whole)
        tokens = [one.text for one in tokens_of(whole)]
        middle = len(text) // 2
        stop = text[middle : middle + 3]
        pieces, finish = run(loader.stream_generation("Hello", seed=seed, stop=[stop], **options))
        kept = text[: text.index(stop)]
        assert "".join(pieces) == kept
        assert finish.reason == "stop"
        told = [one.text for one in tokens_of(pieces)]
        assert told == tokens[: len(told)]
        # In bytes: tokens that are halves of a character have a text each.
        data = [one.data for one in tokens_of(pieces)]
        assert len(b"".join(data[:-1])) <= len(kept.encode())
        cut += len(told) < len(tokens)
    assert cut == 8


async def test_stop_strings_across_the_borders_of_tokens(qwen_checkpoint: Path) -> None:
    """S1.18, contract 2."""
    loader = service(qwen_checkpoint)
    with scripted(loader, "The bank cut", " its rate."):
        items = await items_of(loader, asked(stop=("k cut it",)))
    assert text_of(items) == "The ban"
    assert items[-1] == Finish("stop", items[-1].prompt_tokens, items[-1].completion_tokens)  # type: ignore[union-attr]


async def test_thoughts_come_as_reasoning(qwen_checkpoint: Path) -> None:
    """Pitfall: a thinking model's <think> text."""
    loader = service(qwen_checkpoint)
    with scripted(loader, "<think>\nlet me see\n</think>\n\nGood day.<|im_end|>"):
        items = await items_of(loader, asked())
    thoughts = "".join(item.text for item in items if isinstance(item, Reasoning))
    assert thoughts == "\nlet me see\n"
    assert text_of(items) == "Good day."


async def test_a_prompt_that_ends_in_a_thought_begins_with_one(tmp_path: Path) -> None:
    """Pitfall: Qwen3-Thinking's template writes <think> itself; only </think> is generated."""
    folder = make_checkpoint(tmp_path / "m", architecture="qwen3", template=THINKING_TEMPLATE)
    loader = service(folder)
    for tools in ((), (WEATHER,)):
        with scripted(loader, "hm</think>\n\nGood day.<|im_end|>"):
            items = await items_of(loader, asked(tools=tools))
        assert [i.text for i in items if isinstance(i, Reasoning)] != []
        assert "".join(i.text for i in items if isinstance(i, Reasoning)) == "hm"
        assert text_of(items) == "Good day."
    with scripted(loader, "Good day.<|im_end|>"):
        items = await items_of(loader, asked(thinking=False))
    assert text_of(items) == "Good day."


@pytest.mark.parametrize("template", ["own", THINKING_TEMPLATE], ids=["hybrid", "thinking"])
async def test_an_object_never_holds_a_thought(tmp_path: Path, template: str) -> None:
    """Pitfall: a thinking model's <think> text broke the JSON."""
    loader = service(make_checkpoint(tmp_path / "m", architecture="qwen3", template=template))
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    for seed in range(5):
        for thinking in (None, True, False):
            with scripted(loader, "<think>"):
                items = await items_of(
                    loader, asked(json_schema=schema, seed=seed, thinking=thinking, temperature=1.0)
                )
            assert not any(isinstance(item, Reasoning) for item in items)
            assert list(json.loads(text_of(items))) == ["a"]
            assert isinstance(items[-1], Finish)
            assert items[-1].reason == "stop"


async def test_a_required_call_is_always_valid(family: type[ModelServiceV4]) -> None:
    """Contract 2: `tool_choice` "required": one call, whole within any budget that can hold it."""
    for seed in range(30):
        request = asked(
            tools=(NOW, WEATHER),
            tool_choice="required",
            temperature=[0.0, 1.0, 2.0][seed % 3],
            seed=seed,
            max_tokens=[40, 60, 90][seed % 3],
            thinking=True,
        )
        items = await items_of(family, request)
        [(name, arguments)] = calls_of(items)
        check_call(name, arguments)
        assert text_of(items) == ""
        finish = items[-1]
        assert isinstance(finish, Finish)
        assert finish.reason == "tool_calls"
        assert finish.completion_tokens <= request.max_tokens


@pytest.mark.parametrize(
    "begin", ["<tool_call>", ' {"name"', '{"name": "wea', "Well.\n<tool_call>\n"]
)
async def test_a_call_that_was_begun_is_finished_by_the_grammar(
    family: type[ModelServiceV4], begin: str
) -> None:
    """Contract 2: `tool_choice` "auto": free text until a call begins."""
    for seed in range(4):
        for budget in (60, 120):
            request = asked(
                tools=(NOW, WEATHER), seed=seed, temperature=1.5, max_tokens=budget,
                parallel_tool_calls=False,
            )  # fmt: skip
            with scripted(family, begin):
                items = await items_of(family, request)
            [(name, arguments)] = calls_of(items)
            check_call(name, arguments)
            assert text_of(items).strip() in ("", "Well.")
            finish = items[-1]
            assert isinstance(finish, Finish)
            assert finish.reason == "tool_calls"
            assert finish.completion_tokens <= budget


async def test_after_a_tagged_call_the_model_may_go_on(qwen_checkpoint: Path) -> None:
    """Contract 2: `parallel_tool_calls`."""
    loader = service(qwen_checkpoint)
    call = '<tool_call>{"name":"now","arguments":{}}</tool_call>'
    script = f"{call}{call}<|im_end|>"
    request = asked(tools=(NOW,), max_tokens=200)
    with scripted(loader, script):
        items = await items_of(loader, request)
    assert calls_of(items) == [("now", "{}"), ("now", "{}")]
    assert isinstance(items[-1], Finish)
    assert items[-1].reason == "tool_calls"
    with scripted(loader, script):
        items = await items_of(loader, replace(request, parallel_tool_calls=False))
    assert calls_of(items) == [("now", "{}")]


async def test_a_call_in_a_thought_is_a_thought(qwen_checkpoint: Path) -> None:
    """Contract 2: a call stands after the reasoning."""
    loader = service(qwen_checkpoint)
    with scripted(loader, "<think>maybe <tool_call> then</think>No.<|im_end|>"):
        items = await items_of(loader, asked(tools=(WEATHER,), temperature=0.0))
    assert calls_of(items) == []
    assert text_of(items) == "No."


async def test_where_no_call_fits_the_text_stays_free(qwen_checkpoint: Path) -> None:
    """Contract 2: nothing is lost, and nothing is cut in the middle."""
    loader = service(qwen_checkpoint)
    with scripted(loader, '<tool_call>{"na'):
        items = await items_of(loader, asked(tools=(WEATHER,), max_tokens=8, temperature=0.0))
    assert calls_of(items) == []
    assert text_of(items).startswith('<tool_call>{"na')


async def test_with_a_schema_tools_are_not_called(checkpoint: Path) -> None:
    """Contract 1: a constrained answer is always the schema's."""
    loader = service(checkpoint)
    request = asked(tools=(NOW,), json_schema={"const": {"name": "now", "arguments": {}}})
    items = await items_of(loader, request)
    assert text_of(items) == '{"name":"now","arguments":{}}'
    assert calls_of(items) == []
    required = replace(request, tool_choice="required", max_tokens=60)
    assert calls_of(await items_of(loader, required)) == [("now", "{}")]


def history(turns: int, *, words: int = 20) -> tuple[Message, ...]:
    said = [Message("user" if n % 2 == 0 else "assistant", f"turn {n} " + "rate " * words)
            for n in range(turns)]  # fmt: skip
    return (Message("system", "Be brief."), *said, Message("user", "And now?"))


async def test_the_oldest_messages_go_when_the_context_is_full(checkpoint: Path) -> None:
    """Contract 2: "Context": never a system message, never the last user message."""
    loader = service(checkpoint, context_tokens=512)
    engine = LocalEngine(loader)
    turns = history(40)
    fitted = await engine.fit(asked(messages=turns, max_tokens=200), may_drop=True)
    assert loader.info()["loaded"] is False
    kept = fitted.request.messages
    assert fitted.dropped == len(turns) - len(kept) > 0
    assert kept == (turns[0], *turns[1 + fitted.dropped :])
    assert fitted.context_tokens == 512
    assert fitted.prompt_tokens is not None
    assert fitted.prompt_tokens + 128 <= 512
    assert fitted.request.max_tokens == min(200, 512 - fitted.prompt_tokens)
    one_more = (turns[0], *turns[fitted.dropped :])
    tokenizer = loader._lazy.tokenizer()
    longer = len(encode_prompt(tokenizer, one_more, context_tokens=9999, max_tokens=1))
    assert longer + 128 > 512, "no message goes without need"
    finish = (await items_of(loader, fitted.request))[-1]
    assert isinstance(finish, Finish)
    assert finish.prompt_tokens == fitted.prompt_tokens


async def test_a_prompt_that_fits_is_left_alone(family: type[ModelServiceV4]) -> None:
    """Contract 2."""
    request = asked(messages=history(2), tools=(WEATHER,))
    fitted = await LocalEngine(family).fit(request, may_drop=True)
    assert (fitted.request, fitted.dropped) == (request, 0)


async def test_calls_go_together_with_their_results(qwen_checkpoint: Path) -> None:
    """Contract 2: a result without its call means nothing."""
    call = Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", "{}"),))
    result = Message("tool", "rain " * 40, tool_call_id="call_1")
    turns = (Message("user", "a"), call, result, Message("user", "b " * 70))
    engine = LocalEngine(service(qwen_checkpoint, context_tokens=256))
    fitted = await engine.fit(asked(messages=turns, max_tokens=64), may_drop=True)
    assert fitted.request.messages == turns[3:]
    assert fitted.dropped == 3


async def test_the_newest_result_stays(qwen_checkpoint: Path) -> None:
    """Contract 2: the last user message and what came after it."""
    call = Message("assistant", "", tool_calls=(ToolCall("call_1", "weather", "{}"),))
    result = Message("tool", "rain", tool_call_id="call_1")
    turns = (Message("user", "a " * 200), Message("user", "b"), call, result)
    engine = LocalEngine(service(qwen_checkpoint, context_tokens=256))
    fitted = await engine.fit(asked(messages=turns, max_tokens=64), may_drop=True)
    assert fitted.request.messages == turns[1:]


async def test_a_budget_that_does_not_fit_is_lowered(checkpoint: Path) -> None:
    """Contract 2: what can be answered is answered."""
    engine = LocalEngine(service(checkpoint, context_tokens=128))
    fitted = await engine.fit(asked(max_tokens=100_000))
    assert fitted.prompt_tokens is not None
    assert fitted.request.max_tokens == 128 - fitted.prompt_tokens


@pytest.mark.parametrize("may_drop", [False, True])
async def test_a_prompt_that_cannot_fit_is_refused_with_both_lengths(
    checkpoint: Path, may_drop: bool
) -> None:
    """Contract 2: 400 `context_length_exceeded`, before the first byte."""
    engine = LocalEngine(service(checkpoint, context_tokens=128))
    turns = (Message("system", "Be brief."), Message("user", "rate " * 400))
    with pytest.raises(Unsupported) as caught:
        await engine.fit(asked(messages=turns), may_drop=may_drop)
    error = caught.value
    assert (error.code, error.param, error.status) == ("context_length_exceeded", "messages", 400)
    assert "128" in error.message
    long = history(40)
    if may_drop:
        assert (await engine.fit(asked(messages=long), may_drop=True)).dropped > 30
    else:
        with pytest.raises(Unsupported):
            await engine.fit(asked(messages=long))


async def test_an_article_is_cut_and_not_dropped(checkpoint: Path) -> None:
    """S0.18: messages that may be cut keep their behaviour."""
    engine = LocalEngine(service(checkpoint, context_tokens=1024))
    article = Message("user", "The bank cut its rate on Tuesday. " * 300, may_be_cut=True)
    fitted = await engine.fit(asked(messages=(article,), max_tokens=256), may_drop=True)
    assert fitted.request.max_tokens == 256
    assert fitted.prompt_tokens is not None
    assert fitted.prompt_tokens <= 768
    assert fitted.request.messages[0].content.endswith("Tuesday.")


BAD_TOOL = Tool("f", parameters={"type": "object", "properties": {"a": {"type": "strnig"}}})


@pytest.mark.parametrize(
    ("values", "code", "param"),
    [
        ({"images": (b"png",)}, "unsupported", "messages"),
        ({"json_schema": {"type": "strnig"}}, "unsupported_schema", "response_format"),
        ({"tools": (BAD_TOOL,)}, "unsupported_schema", "tools"),
        ({"tools": (BAD_TOOL,), "tool_choice": "required"}, "unsupported_schema", "tools"),
        (
            {"json_schema": {"type": "array", "minItems": 90, "items": {"const": "a word"}}},
            "budget_too_small",
            "max_tokens",
        ),
        ({"tools": (WEATHER,), "tool_choice": "required", "stop": ("x",)}, "unsupported", "stop"),
        ({"tool_choice": "required"}, "unsupported", "tool_choice"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_before_anything_is_loaded(
    checkpoint: Path, values: dict[str, Any], code: str, param: str
) -> None:
    """S1.26, contract 2: a 400 that names the field."""
    loader = service(checkpoint)
    with pytest.raises(Unsupported) as caught:
        await LocalEngine(loader).fit(asked(**values))
    assert (caught.value.code, caught.value.param) == (code, param)
    assert loader.info()["loaded"] is False


async def test_a_model_that_cannot_chat_says_so(tmp_path: Path) -> None:
    """C23: Phi-3's markers are for tokenizers that know them."""
    folder = make_checkpoint(tmp_path / "base", architecture="llama", template=None)
    with pytest.raises(Unsupported) as caught:
        await LocalEngine(service(folder)).fit(asked())
    assert caught.value.code == "no_chat_template"


async def test_a_missing_model_is_told_when_a_request_is_fitted(tmp_path: Path) -> None:
    """C19: as get_model does, in the words of the role's own setting."""
    loader = service(tmp_path, setting="MODEL_REPO_ID")
    with pytest.raises(AppError) as caught:
        await LocalEngine(loader).fit(asked())
    assert caught.value.code == "model_unavailable"
    assert "MODEL_REPO_ID" in caught.value.message
    assert "V4_MODEL_ID" not in caught.value.message


def test_fitting_and_generating_share_one_tokenizer(checkpoint: Path) -> None:
    """S0.11: loaded once."""
    loader = service(checkpoint)
    loader.fit(asked())
    before = loader._lazy.tokenizer()
    assert loader.get_model()[1] is before


def test_concurrent_fits_do_not_wait_for_a_load(checkpoint: Path) -> None:
    """C10: a load takes minutes; a request that cannot be honoured is refused at once."""
    loader = service(checkpoint)
    loader.fit(asked())
    done = threading.Event()

    def fit() -> None:
        loader.fit(asked())
        done.set()

    lazy = loader._lazy
    with lazy._lock:
        thread = threading.Thread(target=fit)
        thread.start()
        assert done.wait(10)
    thread.join(10)


def test_generate_runs_for_one_after_the_other(tmp_path: Path) -> None:
    """C12: memory is counted for one whole prompt; S1.31: who waits can be cancelled."""
    folder = make_checkpoint(tmp_path / "m", hidden=32)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    # Positions that depend on the length of a sequence: not for the loop over several.
    factors = {"short_factor": [1.0] * 8, "long_factor": [1.0] * 8}
    config["rope_parameters"] |= {"rope_type": "longrope"} | factors
    (folder / "config.json").write_text(json.dumps(config))
    loader = service(folder, weights="float32")
    model = loader.get_model()[0]
    gate, stop, begun = threading.Event(), threading.Event(), threading.Event()
    running: list[int] = []

    def hold(*_: Any) -> None:
        running.append(threading.get_ident())
        begun.set()
        assert gate.wait(WAIT_S)

    hook = model.get_input_embeddings().register_forward_pre_hook(hold)
    first = loader.stream_generation("Hello", max_tokens=4, temperature=0.0)
    second = loader.stream_generation("Hello", max_tokens=4, stop_event=stop)
    with ThreadPoolExecutor(2) as threads:
        ended = threads.submit(run, first)
        assert begun.wait(WAIT_S)
        cancelled = threads.submit(run, second)
        try:
            # The second one would be there within milliseconds.
            with pytest.raises(FutureTimeout):
                cancelled.result(0.5)
            stop.set()
            assert cancelled.result(WAIT_S)[1].reason == "cancelled"
            assert len(running) == 1
        finally:
            gate.set()
        assert ended.result(WAIT_S)[1].completion_tokens == 4
    hook.remove()
    assert run(loader.stream_generation("Hello", max_tokens=4))[1].completion_tokens


async def test_a_call_that_the_budget_cuts_off_ends_with_length(checkpoint: Path) -> None:
    """Issue 16, item 7: no 400 for a required call, and what came of it is passed on."""
    engine = LocalEngine(service(checkpoint))
    request = asked(tools=(WEATHER,), tool_choice="required", max_tokens=5)
    fitted = await engine.fit(request)
    async with aclosing(engine.generate(fitted.request)) as items:
        found = [item async for item in items]
    await engine.aclose()
    assert isinstance(found[-1], Finish)
    assert (found[-1].reason, found[-1].completion_tokens) == ("length", 5)
