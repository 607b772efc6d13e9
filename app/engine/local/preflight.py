"""Makes a request fit a model, and says early why it cannot: with a tokenizer, without weights.

It knows which requests are possible; loading and generation are elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.core.errors import Unsupported
from app.engine.base import Fitted, GenerateRequest, Message
from app.engine.checkpoints.headers import is_gguf
from app.engine.prompting.tools import call_schema
from app.engine.text.output_parser import CALL_END

if TYPE_CHECKING:
    from app.engine.structured.grammar import GrammarProcessor
    from app.engine.structured.tool_call_grammar import ToolCallGrammar
    from app.engine.structured.vocabulary import Vocabulary


def check_fields(request: GenerateRequest, *, reads_images: bool) -> None:
    """Refuse what no prompt could make possible.

    Raises:
        Unsupported: naming the field.
    """
    check_images(request, reads_images=reads_images)
    if request.tool_choice == "required" and not request.tools:
        raise Unsupported("A call is required, but there are no tools.", param="tool_choice")
    if request.stop and _held_schema(request) is not None:
        raise Unsupported(
            "stop cannot be combined with a JSON schema or a required call: leave one of them out.",
            param="stop",
        )


def check_images(request: GenerateRequest, *, reads_images: bool) -> None:
    """Refuse images where the model cannot see any.

    Raises:
        Unsupported: naming the setting to change.
    """
    if request.images and not reads_images:
        raise Unsupported(
            "This model reads no images: set VISION_MODEL_ID to a model of the VISION role.",
            param="messages",
        )


def thinking_of(request: GenerateRequest) -> bool | None:
    """Return whether the model may think: never where its output is held to a schema."""
    return False if _held_schema(request) is not None else request.thinking


def needs_vocabulary(request: GenerateRequest) -> bool:
    """Return whether tokens must be known as bytes."""
    held = request.json_schema is not None or bool(request.tools)
    return held or request.top_logprobs is not None


def constraint_of(
    request: GenerateRequest,
    vocabulary: Vocabulary | None,
    tokenizer: Any,
    ids: Sequence[int] = (),
    *,
    thinking: bool = False,
) -> GrammarProcessor | ToolCallGrammar | None:
    """Return what holds the output to a form; None for free text.

    `ids` are the prompt's; `thinking`: it ends inside a block of thoughts.

    Raises:
        Unsupported: `unsupported_schema`, `budget_too_small`, `no_grammar`.
    """
    from app.engine.prompting.template import tokens_of
    from app.engine.structured.completion import MAX_COMPLETION_BYTES
    from app.engine.structured.grammar import GrammarProcessor
    from app.engine.structured.tool_call_grammar import ToolCallGrammar

    schema = _held_schema(request)
    if vocabulary is None:
        return None
    if schema is not None:

        def held(max_tokens: int) -> GrammarProcessor:
            return GrammarProcessor(
                vocabulary,
                schema,
                max_tokens=max_tokens,
                chars_per_token=_chars_per_token(tokenizer, ids),
                prose=request.prose,
            )

        try:
            return held(request.max_tokens)
        except Unsupported as exc:
            if exc.code != "budget_too_small" or schema is request.json_schema:
                raise
            # A call that is cut off ends with "length", as elsewhere; the budget stops it.
            return held(MAX_COMPLETION_BYTES)
    if not request.tools:
        return None
    return ToolCallGrammar(
        vocabulary,
        call_schema(request.tools),
        max_tokens=request.max_tokens,
        end_tag=tokens_of(tokenizer, CALL_END),
        parallel=request.parallel_tool_calls,
        thinking=thinking,
    )


def check_constraint(request: GenerateRequest, vocabulary: Vocabulary, tokenizer: Any) -> None:
    """Compile what the output will be held to, and name the field if that is impossible.

    Raises:
        Unsupported: as `constraint_of`, with `param`.
    """
    from app.engine.structured.schema_grammar import compile_grammar

    param = "response_format" if _tools_do_not_matter(request) else "tools"
    try:
        constraint_of(request, vocabulary, tokenizer)
        if request.tools and not _tools_do_not_matter(request):
            compile_grammar(call_schema(request.tools))
    except Unsupported as exc:
        if exc.code == "budget_too_small":
            param = "max_tokens"
        raise exc.copy(param=param) from exc


def fit_request(
    request: GenerateRequest,
    tokenizer: Any,
    *,
    context_tokens: int,
    may_drop: bool,
    count: Callable[[Sequence[Message]], int],
) -> Fitted:
    """Return the request with a prompt and a budget that fit the context.

    Raises:
        Unsupported: `context_length_exceeded`, `no_chat_template`.
    """
    from app.engine.prompting.fit import fit_messages
    from app.engine.prompting.template import can_chat

    if not can_chat(tokenizer):
        raise Unsupported(
            "This model has no chat template, so that it cannot hold a conversation: choose one "
            "that was trained to chat.",
            code="no_chat_template",
            param="messages",
        )
    fitted = fit_messages(
        tokenizer,
        request.messages,
        context_tokens=context_tokens,
        max_tokens=request.max_tokens,
        may_drop=may_drop,
        count=count,
    )
    return Fitted(
        replace(request, messages=fitted.messages, max_tokens=fitted.max_tokens),
        dropped=fitted.dropped,
        prompt_tokens=fitted.prompt_tokens,
        context_tokens=context_tokens,
    )


def end_ids_in(folder: Path, tokenizer: Any) -> list[int]:
    """Return the ids that end a turn, as `end_ids` finds them in the loaded model."""
    from app.engine.prompting.fit import end_ids_of

    if is_gguf(folder):
        from app.engine.checkpoints.gguf.tokenizer import gguf_end_ids

        return end_ids_of(gguf_end_ids(folder), tokenizer)
    names = ("generation_config.json", "config.json")
    found = (_setting(folder / name, "eos_token_id") for name in names)
    return end_ids_of(next((own for own in found if own is not None), None), tokenizer)


def _setting(file: Path, name: str) -> Any:
    try:
        return json.loads(file.read_text("utf-8")).get(name)
    except (OSError, ValueError, AttributeError):
        return None


def _held_schema(request: GenerateRequest) -> Any:
    """Return the schema of the whole output, if it has one; a required call comes first."""
    if request.tools and request.tool_choice == "required":
        return call_schema(request.tools)
    return request.json_schema


def _tools_do_not_matter(request: GenerateRequest) -> bool:
    return not request.tools or (
        request.json_schema is not None and request.tool_choice != "required"
    )


def _chars_per_token(tokenizer: Any, ids: Sequence[int]) -> float:
    """Return how many characters a token of the prompt holds; the answer will be like the prompt.

    A tenth is taken off, because generated text is not always tokenised as well as given text.
    """
    special = set(tokenizer.all_special_ids)
    words = [token for token in ids if token not in special]
    text = tokenizer.decode(words)
    return max(0.4, min(4.0, 0.9 * len(text) / max(1, len(words))))
