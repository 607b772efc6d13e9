"""Messages to token ids that fit the context: cut where they may be, dropped where that is allowed.

It knows no model, only the tokenizer it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.core.errors import Unsupported
from app.engine.base import MAX_CONTENT_CHARS, Message, Tool
from app.engine.prompting.template import render, tokens_of
from app.engine.text.cut import cut_at_sentence
from app.engine.text.output_parser import THINK

__all__ = ["encode_prompt", "end_ids", "fit_messages", "opens_thoughts", "render"]

MIN_CUT_CHARS = 200
_CUTS = 12
# A quarter of the context is kept for the answer while old messages can make room.
ANSWER_SHARE = 4
MIN_ANSWER_TOKENS = 16


@dataclass(frozen=True, slots=True)
class FittedMessages:
    """Messages that fit. `max_tokens`: what the context leaves for the answer."""

    messages: tuple[Message, ...]
    dropped: int
    prompt_tokens: int
    max_tokens: int


def encode_prompt(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    context_tokens: int,
    max_tokens: int,
    tools: Sequence[Tool] = (),
    thinking: bool | None = None,
) -> list[int]:
    """Return the ids of the prompt, with room for `max_tokens` more in the context.

    Messages that may be cut lose their end: at 10,000 characters (S0.18), then until the prompt
    fits, at a sentence's end each time.

    Raises:
        Unsupported: `context_length_exceeded`.
    """

    def encode(turns: Sequence[Message]) -> list[int]:
        return tokens_of(tokenizer, render(tokenizer, turns, tools=tools, thinking=thinking))

    room = context_tokens - max_tokens
    cut = _cut(tokenizer, messages, room, lambda turns: len(encode(turns)))
    ids = encode(cut)
    if len(ids) > room:
        raise _too_long(len(ids), context_tokens, max_tokens)
    return ids


def fit_messages(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    context_tokens: int,
    max_tokens: int,
    may_drop: bool,
    count: Callable[[Sequence[Message]], int],
) -> FittedMessages:
    """Make a conversation fit: cut what may be cut, then drop the oldest, then answer shorter.

    `count` returns the tokens of a whole prompt. System messages, the last user message and the
    last message of all stay; an assistant's calls go together with their results.

    Raises:
        Unsupported: `context_length_exceeded`.
    """
    may_cut = any(message.may_be_cut for message in messages)
    least = max(context_tokens // ANSWER_SHARE, MIN_ANSWER_TOKENS)
    reserve = max_tokens if may_cut else min(max_tokens, least)
    groups = _droppable(messages) if may_drop else []

    def without(number: int) -> tuple[list[Message], int]:
        gone = {place for group in groups[:number] for place in group}
        kept = [message for place, message in enumerate(messages) if place not in gone]
        kept = _cut(tokenizer, kept, context_tokens - reserve, count)
        return kept, count(kept)

    # The fewest groups to drop: the prompt gets shorter with every one.
    fewest, most = 0, len(groups)
    kept, tokens = without(0)
    if tokens + reserve > context_tokens:
        kept, tokens = without(most)
        while fewest + 1 < most:
            middle = (fewest + most) // 2
            shorter, fewer = without(middle)
            if fewer + reserve > context_tokens:
                fewest = middle
            else:
                most, kept, tokens = middle, shorter, fewer
    if tokens + (max_tokens if may_cut else 1) > context_tokens:
        raise _too_long(tokens, context_tokens, max_tokens if may_cut else 1)
    return FittedMessages(
        tuple(kept), len(messages) - len(kept), tokens, min(max_tokens, context_tokens - tokens)
    )


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end a turn: the checkpoint's own, the tokenizer's, and Phi-3's marker."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return end_ids_of(own, tokenizer)


def end_ids_of(own: Any, tokenizer: Any) -> list[int]:
    """Return the same from a checkpoint's own end tokens: an id, several, or None."""
    ids = list(own) if isinstance(own, list | tuple) else [own]
    ids.append(tokenizer.eos_token_id)
    marker = tokenizer.convert_tokens_to_ids("<|end|>")
    if marker != tokenizer.unk_token_id:
        ids.append(marker)
    return sorted({int(id_) for id_ in ids if id_ is not None})


def opens_thoughts(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Tell whether a prompt ends in a block of thoughts that the model is to go on with."""
    return str(tokenizer.decode(list(ids[-8:]))).rstrip().endswith(THINK)


def _cut(
    tokenizer: Any,
    messages: Sequence[Message],
    room: int,
    count: Callable[[Sequence[Message]], int],
) -> list[Message]:
    """Return the messages, those that may be cut so short that the prompt fits, if it can."""
    fitted = [
        replace(message, content=cut_at_sentence(message.content, MAX_CONTENT_CHARS))
        if message.may_be_cut
        else message
        for message in messages
    ]
    cuttable = [index for index, message in enumerate(fitted) if message.may_be_cut]
    for _ in range(_CUTS if cuttable else 0):
        over = count(fitted) - room
        if over <= 0:
            break
        longest = max(cuttable, key=lambda index: len(fitted[index].content))
        content = fitted[longest].content
        tokens = len(tokens_of(tokenizer, content)) or 1
        # A little less than in proportion: the end of a text may be denser than the whole.
        keep = int(len(content) * (tokens - over) / tokens * 0.98)
        if keep < MIN_CUT_CHARS:
            break
        fitted[longest] = replace(fitted[longest], content=cut_at_sentence(content, keep))
    return fitted


def _droppable(messages: Sequence[Message]) -> list[list[int]]:
    """Return which messages can go, oldest first, in groups that go together."""
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    stays = users[-1] if users else -1
    groups: list[list[int]] = []
    for place, message in enumerate(messages):
        if message.role == "system" or place == stays:
            continue
        if message.role == "tool" and groups and groups[-1][-1] == place - 1:
            groups[-1].append(place)
        else:
            groups.append([place])
    # What the model is to go on from stays, too.
    return [group for group in groups if len(messages) - 1 not in group]


def _too_long(prompt_tokens: int, context_tokens: int, answer_tokens: int) -> Unsupported:
    return Unsupported(
        f"The messages take {prompt_tokens} tokens, and with {answer_tokens} of answer that is "
        f"more than this model's context of {context_tokens}: shorten the messages, leave out "
        "old ones, or lower max_tokens.",
        code="context_length_exceeded",
        param="messages",
    )
