"""The variants that `bench.cpu` compares, each measured in a process that runs nothing else.

A variant loads, runs one short generation to warm up, and is then timed once. The plan and Precis
get the same messages and the same grammar. Heavy libraries are imported where they are used.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from bench.cpu.process import peak_bytes
from bench.cpu.task import (
    SEED,
    TEMPERATURE,
    WARM_UP_PROMPT_TOKENS,
    NotAvailable,
    Task,
    Timing,
)

if TYPE_CHECKING:
    from app.engine.base import GenerateRequest
    from app.engine.local.engine import LocalEngine

WARM_UP_NEW_TOKENS = 40
OTHER = "Heavy rain closed three roads to the north on Monday. "
# An empty string in a list takes three tokens: of so many for each the budget, and not the model,
# ends the output, unless random weights write almost nothing but empty ones.
TOKENS_PER_STRING = 8


def measure(name: str, task: Task) -> dict[str, Any]:
    """Run the variant and return its numbers.

    Raises:
        NotAvailable: it cannot run here.
    """
    if name == "plan":
        found = _plan(task)
    elif name.startswith("llama"):
        # llama.cpp lives in an environment without the libraries of the others.
        from bench.cpu.llama import llama

        found = llama(task, flash_attention=name == "llama-flash")
    else:
        found = asyncio.run(_precis(task, name))
    if task.users > 1 and "users" not in found:
        found["users"] = _none_of(task.users, "one at a time")
    return {"peak_bytes": peak_bytes()} | found


def _none_of(users: int, message: str) -> dict[str, Any]:
    """Return what stands for figures of several users where there are none."""
    return {"available": False, "users": users, "message": message}


async def _precis(task: Task, weights: str) -> dict[str, Any]:
    """Run the server's own engine and loader, without HTTP."""
    from app.engine.local.engine import LocalEngine
    from app.services.model_loader_v4 import ModelServiceV4
    from bench.cpu.users import CountingLoader, measure_users

    ModelServiceV4.configure(
        model_id=str(task.model),
        weights=weights,
        threads=task.threads,
        sequences=task.users,
        quant_cache_dir=str(task.packed),
    )
    loader = CountingLoader(ModelServiceV4)
    engine = LocalEngine(loader, slots=task.users)
    if problem := await engine.unavailable():
        raise NotAvailable(f"{problem.code}: {problem.message}")
    # Before the clock starts: the load is that of the weights, and not that of the libraries.
    import torch
    import transformers

    started_s = time.perf_counter()
    model, tokenizer = await asyncio.to_thread(ModelServiceV4.get_model)
    load_s = time.perf_counter() - started_s
    load_peak_bytes = peak_bytes()
    warm_up = _request(tokenizer, WARM_UP_PROMPT_TOKENS, WARM_UP_NEW_TOKENS)
    await _precis_once(engine, warm_up)
    request = _request(tokenizer, task.prompt_tokens, task.new_tokens)
    timing, text, reason = await _precis_once(engine, request)
    found = timing.rates() | {"peak_bytes": peak_bytes(), "load_peak_bytes": load_peak_bytes}
    at_once = ModelServiceV4.info()["sequences"]
    if at_once < task.users:
        found["users"] = _none_of(task.users, f"there is memory for {at_once} at once")
    elif task.users > 1:
        found["users"] = await measure_users(
            engine,
            loader,
            alone=request,
            newcomer=_request(tokenizer, task.prompt_tokens, task.new_tokens, opening=OTHER),
            users=task.users,
            new_tokens=task.users_new_tokens,
            one_tokens_per_s=found["decode_tokens_per_s"],
        )
    await engine.aclose()
    info = engine.info()
    return found | {
        "load_s": load_s,
        "grammar": True,
        "weights": info["weights"],
        "weights_reason": info["reason"],
        "loaded_bytes": int(model.get_memory_footprint()),
        "finish_reason": reason,
        "chars": len(text),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


async def _precis_once(engine: LocalEngine, request: GenerateRequest) -> tuple[Timing, str, str]:
    from app.engine.base import Finish, Text

    fitted = await engine.fit(request)
    first_s: float | None = None
    text = ""
    started_s = time.perf_counter()
    async with aclosing(engine.generate(fitted.request)) as items:
        async for item in items:
            if isinstance(item, Text):
                first_s = first_s or time.perf_counter()
                text += item.text
            if isinstance(item, Finish):
                ended_s = time.perf_counter()
                end = item
    if first_s is None:
        raise RuntimeError("the generation wrote nothing")
    timing = Timing(started_s, first_s, ended_s, end.prompt_tokens, end.completion_tokens)
    return timing, text, end.reason


def _request(
    tokenizer: Any, prompt_tokens: int, new_tokens: int, *, opening: str = ""
) -> GenerateRequest:
    """Return a request whose rendered prompt has `prompt_tokens`, as near as words allow.

    Another `opening` makes it another article from its first word on.
    """
    from app.engine.base import GenerateRequest, Message
    from app.engine.prompting.template import render, tokens_of
    from bench.cpu.checkpoint import article

    def count(text: str) -> int:
        return len(tokens_of(tokenizer, render(tokenizer, (Message("user", opening + text),))))

    return GenerateRequest(
        messages=(Message("user", opening + article(prompt_tokens, count)),),
        max_tokens=new_tokens,
        temperature=TEMPERATURE,
        seed=SEED,
        json_schema=_schema(new_tokens // TOKENS_PER_STRING),
    )


def _schema(strings: int) -> dict[str, Any]:
    points = {"type": "array", "items": {"type": "string"}, "minItems": strings}
    return {
        "type": "object",
        "properties": {"points": points},
        "required": ["points"],
        "additionalProperties": False,
    }


def _plan(task: Task) -> dict[str, Any]:
    """Run what the plan wrote down: float32, `generate` in a thread, its streamer and its cache."""
    import torch
    import transformers

    torch.set_num_threads(task.threads)
    started_s = time.perf_counter()
    tokenizer = transformers.AutoTokenizer.from_pretrained(task.model, local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        task.model, dtype=torch.float32, local_files_only=True
    )
    model.eval()
    load_s = time.perf_counter() - started_s
    torch.manual_seed(SEED)
    _plan_once(model, tokenizer, _request(tokenizer, WARM_UP_PROMPT_TOKENS, WARM_UP_NEW_TOKENS))
    timing, text = _plan_once(
        model, tokenizer, _request(tokenizer, task.prompt_tokens, task.new_tokens)
    )
    return timing.rates() | {
        "load_s": load_s,
        "grammar": True,
        "weights": str(model.dtype).removeprefix("torch."),
        "loaded_bytes": model.get_memory_footprint(),
        "chars": len(text),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def _plan_once(model: Any, tokenizer: Any, request: GenerateRequest) -> tuple[Timing, str]:
    import transformers

    from app.engine.local.preflight import constraint_of
    from app.engine.prompting.fit import end_ids
    from app.engine.structured.vocabulary import Vocabulary

    moments: list[float] = []

    class Streamer(transformers.TextIteratorStreamer):  # type: ignore[misc, unused-ignore]
        """The stock streamer waits for a whole word; the moments here are those of the tokens."""

        def put(self, value: Any) -> None:
            if not self.next_tokens_are_prompt:
                moments.append(time.perf_counter())
            super().put(value)

    vocabulary = Vocabulary(tokenizer, end_ids(model, tokenizer))
    started_s = time.perf_counter()
    inputs = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in request.messages],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    prompt_ids = inputs["input_ids"][0].tolist()
    streamer = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    held = constraint_of(request, vocabulary, tokenizer, prompt_ids)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            model.generate(
                **inputs,
                streamer=streamer,
                max_new_tokens=request.max_tokens,
                do_sample=True,
                temperature=request.temperature,
                eos_token_id=end_ids(model, tokenizer),
                logits_processor=transformers.LogitsProcessorList([held]),
            )
        except BaseException as exc:
            failures.append(exc)
            streamer.end()

    thread = threading.Thread(target=work)
    thread.start()
    text = "".join(streamer)
    thread.join()
    if failures:
        raise failures[0]
    return Timing(started_s, moments[0], moments[-1], len(prompt_ids), len(moments)), text
