"""Writes a conversation in a tokenizer's own chat template, whatever that template can say (C23).

What people wrote never becomes a control token (S0.22). It knows no model and counts nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from app.core.errors import Unsupported
from app.engine.base import Message, Tool, ToolCall
from app.engine.prompting.tools import describe, describe_call, in_plain_words
from app.engine.text.output_parser import THINK

Turn = dict[str, Any]
_END = "<|end|>"
_OMITTED = "(What came before is left out.)"
_PROBE = "probe_q7x"
# A template may fail in any way that its expressions can; none of it is the reader's business.
_REFUSALS = (ValueError, TypeError, KeyError, AttributeError, IndexError)


def render(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    thinking: bool | None = None,
) -> str:
    """Write the messages in the tokenizer's own template, or in Phi-3's markers if it has none.

    A template that refuses the system role, or drops it, gets it as the start of the user's turn;
    one that wants the roles to alternate gets neighbours merged; one that knows no tools gets them
    in words. `thinking` False leaves no block of thoughts open.

    Raises:
        Unsupported: `unsupported_messages`, when the template takes the messages in no form.
    """
    neutral = neutraliser(tokenizer)
    if not getattr(tokenizer, "chat_template", None):
        turns = _turns(in_plain_words(messages, tools), neutral)
        written = "".join(f"<|{turn['role']}|>\n{turn['content']}{_END}\n" for turn in turns)
        return f"{written}<|assistant|>\n"
    text = None
    for turns, offered in _forms(tokenizer, messages, tools, neutral):
        try:
            text = _apply(tokenizer, turns, offered, thinking)
        except _refusals():
            continue
        if _says_all(text, turns):
            break
    if text is None:
        raise Unsupported(
            "This model's chat template refuses such a conversation: begin with a user message, "
            "and let user and assistant take turns.",
            code="unsupported_messages",
            param="messages",
        )
    return _closed(text) if thinking is False else text


def can_chat(tokenizer: Any) -> bool:
    """Tell whether there is a way to put a conversation to this tokenizer's model."""
    if getattr(tokenizer, "chat_template", None):
        return True
    return tokenizer.convert_tokens_to_ids(_END) not in (None, tokenizer.unk_token_id)


def knows_tools(tokenizer: Any) -> bool:
    """Tell whether the template writes out tools, calls and results: by trying it."""
    tool = describe(Tool(_PROBE))
    call = describe_call(ToolCall("callprobe", _PROBE, '{"a":1}'))
    user: Turn = {"role": "user", "content": "Hello"}
    asked: Turn = {"role": "assistant", "content": "", "tool_calls": [call]}
    result: Turn = {"role": "tool", "content": "42", "tool_call_id": "callprobe", "name": _PROBE}
    try:
        offered = _apply(tokenizer, [user], [tool], None)
        called = _apply(tokenizer, [user, asked, result, user], [], None)
    except _refusals():
        return False
    return _PROBE in offered and _PROBE in called and "42" in called


def neutraliser(tokenizer: Any) -> Callable[[str], str]:
    """Return a function that breaks up every control token in a text.

    A space after the first character is enough to make it ordinary text. A tokenizer that
    normalises may still find one (full-width bars, say); then the text is taken through the
    tokenizer, which drops it.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    control = {str(token) for token in tokenizer.all_special_tokens}
    control |= {
        str(token)
        for token in added.values()
        if token.special or (str(token).startswith("<") and str(token).endswith(">"))
    }
    broken = sorted((text for text in control if len(text) > 1), key=len, reverse=True)
    ids = set(tokenizer.all_special_ids) | {id_ for id_, token in added.items() if token.special}

    def neutral(text: str) -> str:
        for marker in broken:
            text = text.replace(marker, f"{marker[0]} {marker[1:]}")
        found = tokens_of(tokenizer, text)
        if ids.isdisjoint(found):
            return text
        return str(tokenizer.decode([token for token in found if token not in ids]))

    return neutral


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """Return the ids of a text that has its own control tokens already."""
    # The length is checked elsewhere; the tokenizer's own warning about it would be noise.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _forms(
    tokenizer: Any,
    messages: Sequence[Message],
    tools: Sequence[Tool],
    neutral: Callable[[str], str],
) -> Iterator[tuple[list[Turn], list[Any]]]:
    """Yield ways to put the same conversation, the most faithful first: (turns, tools)."""
    special = tools or any(item.tool_calls or item.role == "tool" for item in messages)
    forms: list[tuple[list[Turn], list[Any]]] = []
    if not special or knows_tools(tokenizer):
        turns = _turns(messages, neutral)
        offered = [_neutral(describe(tool), neutral) for tool in tools]
        forms.append((turns, offered))
        if special:
            forms.append((_short_ids(turns), offered))
    if special:
        forms.append((_turns(in_plain_words(messages, tools), neutral), []))
    for turns, offered in forms:
        yield turns, offered
        yield _without_system(turns), offered
    turns, offered = forms[-1]
    yield _alternating(turns), offered
    yield _alternating(_without_system(turns)), offered


def _turns(messages: Sequence[Message], neutral: Callable[[str], str]) -> list[Turn]:
    turns = []
    for message in messages:
        turn: Turn = {"role": message.role, "content": neutral(message.content + message.after)}
        if message.tool_calls:
            turn["tool_calls"] = [
                _neutral(describe_call(call), neutral) for call in message.tool_calls
            ]
        if message.role == "tool":
            turn["tool_call_id"] = neutral(message.tool_call_id or "")
            turn["name"] = neutral(message.name or "")
        turns.append(turn)
    return turns


def _neutral(value: Any, neutral: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return neutral(value)
    if isinstance(value, Mapping):
        return {neutral(str(key)): _neutral(item, neutral) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_neutral(item, neutral) for item in value]
    return value


def _apply(
    tokenizer: Any, turns: Sequence[Turn], tools: Sequence[Any], thinking: bool | None
) -> str:
    # Templates disagree on the name; one that knows neither ignores both.
    switches = {} if thinking is None else {"enable_thinking": thinking, "thinking": thinking}
    return str(
        tokenizer.apply_chat_template(
            list(turns),
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=True,
            **switches,
        )
    )


def _refusals() -> tuple[type[Exception], ...]:
    from jinja2.exceptions import TemplateError

    return (TemplateError, *_REFUSALS)


def _says_all(text: str, turns: Sequence[Turn]) -> bool:
    """Tell whether nothing was dropped: what the assistant said may be, such as its thoughts."""
    said = [turn["content"].strip() for turn in turns if turn["role"] != "assistant"]
    # A template may write a tool's result as JSON.
    return all(one in text or json.dumps(one, ensure_ascii=False)[1:-1] in text for one in said)


def _without_system(turns: Sequence[Turn]) -> list[Turn]:
    """Merge the system turns into the first user turn."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    if not system:
        return rest
    for turn in rest:
        if turn["role"] == "user":
            turn["content"] = f"{system}\n\n{turn['content']}"
            return rest
    return [{"role": "user", "content": system}, *rest]


def _alternating(turns: Sequence[Turn]) -> list[Turn]:
    """Merge neighbours of one role, and let a user begin."""
    merged: list[Turn] = []
    for turn in turns:
        last = merged[-1] if merged else None
        if last is not None and last["role"] == turn["role"]:
            last["content"] = f"{last['content']}\n\n{turn['content']}"
        else:
            merged.append(dict(turn))
    first = next((place for place, turn in enumerate(merged) if turn["role"] != "system"), 0)
    if merged and merged[first]["role"] == "assistant":
        merged.insert(first, {"role": "user", "content": _OMITTED})
    return merged


def _short_ids(turns: Sequence[Turn]) -> list[Turn]:
    """Cut the ids of calls to nine characters, which is what Mistral's templates insist on."""
    cut = []
    for turn in turns:
        short = dict(turn)
        if "tool_calls" in turn:
            short["tool_calls"] = [{**call, "id": call["id"][-9:]} for call in turn["tool_calls"]]
        if "tool_call_id" in turn:
            short["tool_call_id"] = turn["tool_call_id"][-9:]
        cut.append(short)
    return cut


def _closed(text: str) -> str:
    """Close a block of thoughts that the template left open, as Qwen3's own template does."""
    if not text.rstrip().endswith(THINK):
        return text
    return f"{text.rstrip()}\n\n</think>\n\n"
