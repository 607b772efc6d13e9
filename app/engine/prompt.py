"""Messages to token ids: the tokenizer's own chat template, cut to fit the context (C23, S0.22).

What people wrote never becomes a control token. It knows no model, only the tokenizer it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from app.core.errors import Unsupported
from app.engine.base import Message
from app.engine.sentences import cut_at_sentence

MAX_CONTENT_CHARS = 10_000
MIN_CUT_CHARS = 200
_CUTS = 12


def encode_prompt(
    tokenizer: Any, messages: Sequence[Message], *, context_tokens: int, max_tokens: int
) -> list[int]:
    """Return the ids of the prompt, with room for `max_tokens` more in the context.

    Messages that may be cut lose their end: at 10,000 characters (S0.18), then until the prompt
    fits, at a sentence's end each time.

    Raises:
        Unsupported: `prompt_too_long`.
    """
    room = context_tokens - max_tokens
    fitted = [
        replace(message, content=cut_at_sentence(message.content, MAX_CONTENT_CHARS))
        if message.may_be_cut
        else message
        for message in messages
    ]
    for _ in range(_CUTS):
        ids = _encode(tokenizer, fitted)
        if len(ids) <= room:
            return ids
        longest = max(
            (index for index, message in enumerate(fitted) if message.may_be_cut),
            key=lambda index: len(fitted[index].content),
            default=None,
        )
        if longest is None:
            break
        content = fitted[longest].content
        tokens = len(_ids(tokenizer, content)) or 1
        # A little less than in proportion: the end of a text may be denser than the whole.
        keep = int(len(content) * (tokens - (len(ids) - room)) / tokens * 0.98)
        if keep < MIN_CUT_CHARS:
            break
        fitted[longest] = replace(fitted[longest], content=cut_at_sentence(content, keep))
    raise Unsupported(
        f"The prompt does not fit in the model's context of {context_tokens} tokens with "
        f"{max_tokens} tokens of answer: shorten it or lower max_tokens.",
        code="prompt_too_long",
    )


def render(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Write the messages in the tokenizer's own template, or in Phi-3's markers if it has none.

    A template that refuses the system role, or drops it, gets it as the start of the user's turn.
    """
    neutral = _neutraliser(tokenizer)
    turns = [{"role": item.role, "content": neutral(item.content)} for item in messages]
    if not getattr(tokenizer, "chat_template", None):
        written = "".join(f"<|{turn['role']}|>\n{turn['content']}<|end|>\n" for turn in turns)
        return f"{written}<|assistant|>\n"

    from jinja2.exceptions import TemplateError

    system = [turn["content"] for turn in turns if turn["role"] == "system"]
    try:
        text = _template(tokenizer, turns)
        if all(content.strip() in text for content in system):
            return text
    except TemplateError:
        if not system:
            raise
    return _template(tokenizer, _without_system(turns))


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end a turn: the checkpoint's own, the tokenizer's, and Phi-3's marker."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = list(own) if isinstance(own, list | tuple) else [own]
    ids.append(tokenizer.eos_token_id)
    marker = tokenizer.convert_tokens_to_ids("<|end|>")
    if marker != tokenizer.unk_token_id:
        ids.append(marker)
    return sorted({int(id_) for id_ in ids if id_ is not None})


def _template(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def _without_system(turns: list[dict[str, str]]) -> list[dict[str, str]]:
    """Merge the system turns into the first user turn."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    for turn in rest:
        if turn["role"] == "user":
            turn["content"] = f"{system}\n\n{turn['content']}"
            return rest
    return [{"role": "user", "content": system}, *rest]


def _encode(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    return _ids(tokenizer, render(tokenizer, messages))


def _ids(tokenizer: Any, text: str) -> list[int]:
    # The length is checked here; the tokenizer's own warning about it would be noise.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _neutraliser(tokenizer: Any) -> Callable[[str], str]:
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
        found = _ids(tokenizer, text)
        if ids.isdisjoint(found):
            return text
        return str(tokenizer.decode([token for token in found if token not in ids]))

    return neutral
