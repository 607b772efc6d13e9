"""The engine that needs no model: it quotes an article's own best sentences (C19).

It reads `document` and `style`, and no prompt. Its unit is the piece: one word with the space
before it, or what counts as a word where no spaces are written. Sampling fields are of no
consequence to it: it is deterministic.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from app.core.errors import Unsupported
from app.engine.base import Document, Finish, Fitted, GenerateRequest, Item, Status, Text
from app.engine.extractive.composition import Limits, compose, prose, read
from app.engine.extractive.passages import ELLIPSIS
from app.engine.text.sentences import HAN_KANA, SOUTH_EAST_ASIAN, count_words

FIELDS = frozenset(
    ("title", "main_summary", "key_points", "category", "sentiment", "read_time_min")
)
# The event loop gets a turn after this many pieces.
PIECES_A_TURN = 16
# Tried in order until the object fits in max_tokens; 0.4 is about 100 words of English.
SCALES = (1.0, 0.85, 0.7, 0.58, 0.48, 0.4, 0.32, 0.25, 0.18, 0.12, 0.08)

_PIECE = re.compile(
    f" *(?:[{HAN_KANA}]{{1,2}}|[{SOUTH_EAST_ASIAN}]{{1,5}}"
    f"|[^ {HAN_KANA}{SOUTH_EAST_ASIAN}]{{1,24}})| +"
)


class ExtractiveEngine:
    """Summarises any article in any language, at once, without weights."""

    name = "extractive"
    model = "textrank"

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Item, None]:
        """Yield a summary of `request.document`: an object of the schema, or else plain prose.

        Raises:
            Unsupported: there is no document, or there are images, stop sequences, or a schema
                that is not one of summaries.
        """
        document = _accept(request)
        yield Status("reading")
        pieces, prompt_tokens = await asyncio.to_thread(_summarize, request, document)
        yield Status("writing")
        for number, piece in enumerate(pieces, 1):
            yield Text(piece)
            if number % PIECES_A_TURN == 0:
                await asyncio.sleep(0)
        yield Finish("stop", prompt_tokens=prompt_tokens, completion_tokens=len(pieces))

    async def fit(self, request: GenerateRequest, *, may_drop: bool = False) -> Fitted:
        """Check the request; a document of any length fits."""
        _accept(request)
        return Fitted(request)

    def facts(self) -> dict[str, str]:
        """Nothing: there is no model."""
        return {}

    def info(self) -> dict[str, Any]:
        """Return what `/health` shows: there is nothing to load."""
        return {"model_id": self.model, "loaded": True}

    async def unavailable(self) -> None:
        """It can always serve."""

    async def prepare(self) -> None:
        """Nothing to prepare."""

    async def load(self) -> None:
        """Nothing to load."""

    async def maintain(self) -> None:
        """Nothing is to be done."""

    async def aclose(self) -> None:
        """It holds nothing."""


def _accept(request: GenerateRequest) -> Document:
    if request.document is None:
        raise Unsupported(
            "The extractive engine can only summarize an article; use a language model for chat."
        )
    if request.images:
        raise Unsupported("The extractive engine cannot read images; use a vision model.")
    if request.stop:
        raise Unsupported("The extractive engine knows no stop sequences; leave `stop` out.")
    if request.tools or request.top_logprobs is not None:
        raise Unsupported("The extractive engine has no tools and no logprobs; use a model.")
    if request.json_schema is not None:
        fields = set(request.json_schema.get("properties", ()))
        if not fields or not fields <= FIELDS:
            raise Unsupported("The extractive engine can only fill in the summary schema.")
    return request.document


def _summarize(request: GenerateRequest, document: Document) -> tuple[list[str], int]:
    if request.json_schema is None:
        pieces = _prose_pieces(request, document)
    else:
        pieces = _object_pieces(request, document, request.json_schema)
    return pieces, count_words(document.text)


def _object_pieces(
    request: GenerateRequest, document: Document, schema: Mapping[str, Any]
) -> list[str]:
    reading = read(document, request.style)
    properties: Mapping[str, Any] = schema["properties"]
    limits = _limits(properties)
    minutes = properties.get("read_time_min", {}).get("const", reading.read_time_min)
    pieces: list[str] = []
    for scale in SCALES:
        values = {**compose(reading, limits, scale=scale), "read_time_min": minutes}
        pieces = _PIECE.findall(_json({key: values[key] for key in properties}))
        if len(pieces) <= request.max_tokens:
            return pieces
    # Nothing shorter says anything: the object stays whole and its pieces grow instead.
    size = -(-len(pieces) // max(1, request.max_tokens))
    return ["".join(pieces[at : at + size]) for at in range(0, len(pieces), size)]


def _prose_pieces(request: GenerateRequest, document: Document) -> list[str]:
    reading = read(document, request.style)
    fitting: list[str] = []
    for text in prose(reading):
        pieces = _PIECE.findall(text)
        if len(pieces) <= request.max_tokens:
            fitting = pieces
        elif not fitting:
            fitting = pieces[: request.max_tokens - 1]
            return [*fitting, ELLIPSIS]
        else:
            break
    return fitting or [ELLIPSIS]


def _limits(properties: Mapping[str, Any]) -> Limits:
    """Read the bounds that a summary schema sets; what it leaves open stays at its usual size."""
    usual = Limits()
    points = properties.get("key_points", {})
    return Limits(
        title_chars=properties.get("title", {}).get("maxLength", usual.title_chars),
        summary_chars=properties.get("main_summary", {}).get("maxLength", usual.summary_chars),
        point_chars=points.get("items", {}).get("maxLength", usual.point_chars),
        category_chars=properties.get("category", {}).get("maxLength", usual.category_chars),
        points_min=points.get("minItems", usual.points_min),
        points_max=points.get("maxItems", usual.points_max),
    )


def _json(value: object) -> str:
    """Encode compactly, and without any character that some reader takes for a line break."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "\u0085\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
