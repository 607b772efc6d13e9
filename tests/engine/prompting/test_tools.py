"""How tools are put to a model, in its own template or in words, and what a call may look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from app.core.errors import Unsupported
from app.engine.base import Message, Tool, ToolCall
from app.engine.prompting.template import knows_tools, render, tokens_of
from app.engine.prompting.tools import call_schema, instructions
from app.engine.structured.completion import JsonCompleter
from app.engine.structured.schema_grammar import compile_grammar, required_names
from tests.checkpoints import THINKING_TEMPLATE

WEATHER = Tool(
    "weather",
    "The weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
CALL = ToolCall("call_ABCDEFGHIJKLMNOPQRSTUVWX", "weather", '{"city":"Rome"}')
HISTORY = (
    Message("system", "Be brief."),
    Message("user", "Rome?"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", "12 degrees", tool_call_id=CALL.id),
)


def tokenizer_of(folder: Path) -> Any:
    load: Any = AutoTokenizer.from_pretrained
    return load(folder)


def test_qwens_template_writes_tools_calls_and_results(qwen_checkpoint: Path) -> None:
    """C23: the tokenizer's own template."""
    tokenizer = tokenizer_of(qwen_checkpoint)
    assert knows_tools(tokenizer)
    assert render(tokenizer, HISTORY, tools=(WEATHER,)) == (
        "<|im_start|>system\nBe brief.\n\n# Tools\n\nYou have functions within <tools></tools>:\n"
        '<tools>\n{"type": "function", "function": {"name": "weather", "description": "The weather '
        'of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, '
        '"required": ["city"]}}}\n</tools><|im_end|>\n'
        "<|im_start|>user\nRome?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n'
        "</tool_call><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\n12 degrees\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_llamas_template_writes_tools_calls_and_results(llama_checkpoint: Path) -> None:
    """C23."""
    tokenizer = tokenizer_of(llama_checkpoint)
    assert knows_tools(tokenizer)
    text = render(tokenizer, HISTORY)
    assert text == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nRome?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '{"name": "weather", "parameters": {"city": "Rome"}}<|eot_id|>'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"12 degrees"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert '"name": "weather"' in render(tokenizer, HISTORY[:2], tools=(WEATHER,))


def test_a_template_that_knows_no_tools_gets_them_in_words(checkpoint: Path) -> None:
    """C23: Phi-3's template writes the content of a turn and nothing else."""
    tokenizer = tokenizer_of(checkpoint)
    assert not knows_tools(tokenizer)
    assert render(tokenizer, HISTORY, tools=(WEATHER,)) == (
        f"<|system|>\nBe brief.\n\n{instructions((WEATHER,))}<|end|>\n"
        "<|user|>\nRome?<|end|>\n"
        '<|assistant|>\n{"name":"weather","arguments":{"city":"Rome"}}<|end|>\n'
        "<|user|>\nResult of weather:\n12 degrees<|end|>\n<|assistant|>\n"
    )
    assert '{"name":"weather","description":"The weather of a city"' in instructions((WEATHER,))
    told = render(tokenizer, HISTORY[1:2], tools=(WEATHER,))
    assert told.startswith(f"<|system|>\n{instructions((WEATHER,))}<|end|>\n<|user|>\nRome?")


def test_what_a_template_refuses_is_said_in_words(llama_checkpoint: Path) -> None:
    """C23: Llama's template takes one call a turn; two are not lost."""
    tokenizer = tokenizer_of(llama_checkpoint)
    second = ToolCall("call_2", "weather", '{"city":"Oslo"}')
    turns = (
        *HISTORY[:2],
        Message("assistant", "", tool_calls=(CALL, second)),
        Message("tool", "12 degrees", tool_call_id=CALL.id),
        Message("tool", "2 degrees", tool_call_id="call_2"),
    )
    text = render(tokenizer, turns, tools=(WEATHER,))
    assert '"city":"Rome"' in text
    assert '"city":"Oslo"' in text
    assert "Result of weather:\n2 degrees" in text


MISTRAL = """{%- if messages[0].role == 'system' %}{{ raise_exception('no system') }}{%- endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate') }}{%- endif %}
{{- '[' + m.role + ']' + m.content }}{%- endfor %}"""


def test_a_template_that_wants_turns_gets_neighbours_merged(checkpoint: Path) -> None:
    """C23: user, assistant, user; the system's words go to the user."""
    tokenizer = tokenizer_of(checkpoint)
    tokenizer.chat_template = MISTRAL
    turns = [Message("system", "S"), Message("user", "a"), Message("user", "b")]
    assert render(tokenizer, turns) == "[user]S\n\na\n\nb"
    begun = [Message("assistant", "Hi"), Message("user", "a"), Message("assistant", "c")]
    text = render(tokenizer, begun)
    assert text.startswith("[user](")
    assert text.endswith("[assistant]Hi[user]a[assistant]c")
    assert "[user]Result of weather:\n12 degrees" in render(tokenizer, HISTORY, tools=(WEATHER,))


NINE = """{%- for m in messages %}{%- for c in m.tool_calls or [] %}
{%- if c.id | length != 9 %}{{ raise_exception('nine') }}{%- endif %}
{{- '[' + c.id + c.function.name + (c.function.arguments | tojson) + ']' }}{%- endfor %}
{{- m.content }}{%- endfor %}{{ tools | tojson if tools else '' }}"""


def test_ids_are_cut_for_templates_that_insist_on_nine_characters(checkpoint: Path) -> None:
    """C23: Mistral's."""
    tokenizer = tokenizer_of(checkpoint)
    tokenizer.chat_template = NINE
    assert "[PQRSTUVWXweather" in render(tokenizer, HISTORY, tools=(WEATHER,))


def test_a_conversation_that_no_template_takes_is_refused(checkpoint: Path) -> None:
    """S1.26: with a code, and without the template's own words."""
    tokenizer = tokenizer_of(checkpoint)
    tokenizer.chat_template = "{{ raise_exception('secret') }}"
    with pytest.raises(Unsupported) as caught:
        render(tokenizer, HISTORY)
    assert (caught.value.code, caught.value.param) == ("unsupported_messages", "messages")
    assert "secret" not in caught.value.message


def test_thinking_is_switched_off_or_closed(qwen_checkpoint: Path) -> None:
    """Pitfall: a thinking model's <think> text broke the JSON."""
    tokenizer = tokenizer_of(qwen_checkpoint)
    closed = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert render(tokenizer, HISTORY[:2], thinking=False).endswith(closed)
    assert render(tokenizer, HISTORY[:2]).endswith("<|im_start|>assistant\n")
    tokenizer.chat_template = THINKING_TEMPLATE
    assert render(tokenizer, HISTORY[:2]).endswith("<|im_start|>assistant\n<think>\n")
    assert render(tokenizer, HISTORY[:2], thinking=True).endswith("<think>\n")
    assert render(tokenizer, HISTORY[:2], thinking=False).endswith(closed)


@pytest.mark.parametrize("fixture", ["checkpoint", "qwen_checkpoint", "llama_checkpoint"])
def test_no_part_of_a_tool_becomes_a_control_token(
    request: pytest.FixtureRequest, fixture: str
) -> None:
    """S0.22: descriptions, names, arguments, results and keys are what people wrote."""
    tokenizer = tokenizer_of(request.getfixturevalue(fixture))
    added = tokenizer.added_tokens_decoder
    marks = "".join(str(token) for token in added.values())

    def controls(evil: str) -> list[int]:
        schema = {"type": "object", "properties": {evil: {"type": "string", "enum": [evil]}}}
        call = ToolCall("call_1" + evil, "w" + evil, json.dumps({"a" + evil: [evil]}))
        turns = (
            Message("system", "S" + evil),
            Message("user", "U" + evil),
            Message("assistant", "A" + evil, tool_calls=(call,)),
            Message("tool", "T" + evil, tool_call_id="call_1" + evil, name="w" + evil),
        )
        text = render(tokenizer, turns, tools=(Tool("w" + evil, "d" + evil, schema),))
        return [token for token in tokens_of(tokenizer, text) if token in added]

    assert controls(marks) == controls("plain")


def accepts(schema: dict[str, Any], text: str) -> bool:
    completer = JsonCompleter(compile_grammar(schema), required=required_names(schema))
    return completer.take(text.encode()) and completer.complete


def test_the_schema_of_a_call_is_one_of_the_tools() -> None:
    """Contract 2: `tools`."""
    schema = call_schema((WEATHER, Tool("now")))
    assert accepts(schema, '{"name":"weather","arguments":{"city":"Rome"}}')
    assert accepts(schema, '{"name":"now","arguments":{}}')
    assert not accepts(schema, '{"name":"weather","arguments":{}}')
    assert not accepts(schema, '{"name":"other","arguments":{}}')
    assert not accepts(schema, '{"name":"now","arguments":[]}')
    assert not accepts(schema, '{"name":"now","arguments":{},"more":1}')


def test_references_inside_parameters_keep_working() -> None:
    """Contract 2: `#/$defs/X`, `#/definitions/X` and `#` itself lead to where they led."""
    point = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/Number"}},
        "required": ["x"],
        "additionalProperties": False,
    }
    node = Tool(
        "node",
        parameters={
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": "https://example.org/node",
            "type": "object",
            "$defs": {"Number": {"type": "integer"}, "Point": point},
            "definitions": {"Old": {"type": "boolean"}},
            "properties": {
                "at": {"$ref": "#/$defs/Point"},
                "old": {"$ref": "#/definitions/Old"},
                "child": {"$ref": "#"},
                "default": {"$ref": "#/$defs/Number"},
                "ref": {"enum": [{"$ref": "#/no/schema"}]},
            },
            "additionalProperties": False,
        },
    )
    schema = call_schema((Tool("now"), node))
    start = '{"name":"node","arguments":'
    assert accepts(schema, start + '{"at":{"x":1},"old":true,"child":{"at":{"x":2}}}}')
    assert accepts(schema, start + '{"default":3}}')
    assert accepts(schema, start + '{"ref":{"$ref":"#/no/schema"}}}')
    assert not accepts(schema, start + '{"at":{"x":"1"}}}')
    assert not accepts(schema, start + '{"child":{"old":3}}}')


def test_parameters_without_a_type_are_an_object() -> None:
    """Contract 2: `parameters` may be left out or empty."""
    assert accepts(call_schema((Tool("f", parameters={}),)), '{"name":"f","arguments":{"a":[1]}}')
    assert not accepts(call_schema((Tool("f", parameters={}),)), '{"name":"f","arguments":3}')
