"""A summary put together from an article's own sentences: which, how many, how long.

Knows the three styles (C14) and the six fields of contract 1; knows nothing of JSON or streaming.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engine.base import Document
from app.engine.extractive.lexicon import category_of, sentiment_of
from app.engine.extractive.passages import (
    ELLIPSIS,
    Passage,
    clauses,
    clean,
    is_furniture,
    passages,
    portions,
    shorten,
)
from app.engine.extractive.ranking import Ranking, pick, rank
from app.engine.extractive.style import EXECUTIVE, STYLES, Style, form, score
from app.engine.text.sentences import HAN_KANA, count_words, ends_sentence, read_time_min

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TITLE_CHARS = 110
# How many of the best passages may be too long for the summary before one is cut to fit.
LOOK_AHEAD = 10
TOO_ALIKE = 0.65


@dataclass(frozen=True, slots=True)
class Limits:
    """The most characters of each field and the fewest and most key points."""

    title_chars: int = TITLE_CHARS
    summary_chars: int = 1_200
    point_chars: int = 240
    category_chars: int = 40
    points_min: int = 3
    points_max: int = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """An article that has been read once: its passages and how good each is for the style."""

    style: Style
    parts: list[Passage]
    ranking: Ranking
    scores: NDArray[np.float64]
    width: float
    title: str
    category: str
    sentiment: str
    read_time_min: int


def read(document: Document, style_name: str) -> Reading:
    """Rank an article's passages for a style; an unknown style is read as executive (C14)."""
    style = STYLES.get(style_name, EXECUTIVE)
    title = plain_title(document.title or "", document.site_name) or _first_line(document.text)
    parts = passages(document.text, document.language)
    # A page often repeats its title above the text; as a sentence it would only be said twice.
    parts = [part for part in parts if _letters(part.text) != _letters(title)] or parts
    texts = [part.text for part in parts]
    # Without a title the lead stands in for it: reporting says first what it is about.
    ranking = rank(texts or [ELLIPSIS], title or (texts or [ELLIPSIS])[0])
    wide = len(re.findall(f"[{HAN_KANA}]", document.text[:4_000]))
    return Reading(
        style=style,
        parts=parts,
        ranking=ranking,
        scores=score(parts, ranking, style),
        # A Han or Kana character says about as much as two Latin ones and is twice as wide.
        width=0.5 if wide > 0.3 * len(document.text[:4_000]) else 1.0,
        title=title,
        category=category_of(document.section, document.tags, " ".join([title, *texts])),
        sentiment=sentiment_of(texts, document.language),
        read_time_min=read_time_min(document.text),
    )


def compose(reading: Reading, limits: Limits, *, scale: float = 1.0) -> dict[str, str | list[str]]:
    """Return the fields that need writing, at `scale` times the style's usual length."""
    style, parts = reading.style, reading.parts
    shrink = reading.width * scale
    summary_chars = max(8, min(limits.summary_chars, int(style.summary_chars * shrink)))
    point_chars = min(limits.point_chars, max(8, int(style.point_chars * shrink)))
    title_chars = min(limits.title_chars, max(10, int(TITLE_CHARS * min(1.0, 1.6 * scale))))
    # One good sentence a little over the style's length is better than a worse one within it.
    most = min(limits.summary_chars, summary_chars * 4 // 3)
    main = _summary(reading, summary_chars, most=most)
    wanted = style.points if scale > 0.6 else limits.points_min
    if wanted > 4 and len(parts) < 9:
        wanted = 4
    wanted = max(limits.points_min, min(limits.points_max, wanted))
    points = _points(reading, main, point_chars, wanted, at_least=limits.points_min)
    return {
        "title": shorten(reading.title or _headline(reading), title_chars),
        "main_summary": shorten(joined([parts[i].text for i in main]) or ELLIPSIS, most),
        "key_points": [shorten(point, point_chars) for point in points],
        "category": shorten(reading.category, limits.category_chars),
        "sentiment": reading.sentiment,
    }


def prose(reading: Reading, *, most_sentences: int = 6) -> Iterator[str]:
    """Yield summaries of one sentence, two and so on, each in article order."""
    wanted = min(most_sentences, max(2, len(reading.parts) // 4))
    chosen: list[int] = []
    for index in pick(reading.scores, reading.ranking.similarity, range(len(reading.parts))):
        chosen.append(index)
        yield joined([reading.parts[i].text for i in sorted(chosen)])
        if len(chosen) == wanted:
            return


def plain_title(title: str, site_name: str | None) -> str:
    """Return a page's title without the name of its site."""
    plain = " ".join(clean(title).split())
    parts = _SEPARATOR.split(plain)
    if len(parts) < 3:
        return plain
    head, separator, tail = "".join(parts[:-2]), parts[-2], parts[-1]
    if site_name:
        site = _letters(site_name)
        if site and _letters(tail) == site:
            return head
        if site and _letters(parts[0]) == site:
            return plain[len(parts[0]) + len(parts[1]) :]
    words = tail.split()
    named = not any(map(str.isdigit, tail)) and all(not word[0].islower() for word in words)
    if separator.strip() == "|":
        short = len(words) <= 5 and len(head) >= len(tail)
    else:
        short = len(words) <= 3 and len(head) >= 2 * len(tail)
    return head if named and short else plain


def joined(sentences: Sequence[str]) -> str:
    """Join sentences as their script does: Chinese and Japanese put no space between them."""
    text = ""
    for sentence in sentences:
        text += sentence if not text or text[-1] in _NO_SPACE_AFTER else f" {sentence}"
    return text


_SEPARATOR = re.compile(r"(\s+[-–—|·»:]+\s+|\s*\|\s*)")
_NO_SPACE_AFTER = "。！？｡」』”）"


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _summary(reading: Reading, limit: int, *, most: int) -> list[int]:
    parts = reading.parts
    # A short article keeps sentences back for the key points.
    wanted = min(reading.style.summary_sentences, max(1, len(parts) // 3))
    chosen: list[int] = []
    used = 0
    order = list(pick(reading.scores, reading.ranking.similarity, range(len(parts))))
    for index in order[:LOOK_AHEAD]:
        length = len(parts[index].text) + 1
        if used + length <= (limit if chosen else most) + 1:
            chosen.append(index)
            used += length
        if len(chosen) == wanted:
            break
    return sorted(chosen or order[:1])


def _points(
    reading: Reading, main: Sequence[int], limit: int, wanted: int, *, at_least: int
) -> list[str]:
    parts = reading.parts
    likeness = reading.ranking.similarity
    scores = reading.scores.copy()
    for i, part in enumerate(parts):
        if len(part.text) > limit:
            scores[i] *= 0.55
    others = [i for i in range(len(parts)) if i not in main]
    fresh = [i for i in others if main and likeness[i, main].max() < TOO_ALIKE]
    others = fresh if len(fresh) >= wanted else others
    order = pick(scores, likeness, others, avoid=main)
    best = sorted(index for index, _ in zip(order, range(wanted), strict=False))
    points = [parts[i].text for i in best]
    if len(points) >= at_least:
        return points
    if at_least == 1:
        # A single sentence is its own point: half of one would be no sentence of the article.
        return [parts[i].text for i in main[:1]] or [ELLIPSIS]
    said = {point.casefold() for point in points}
    for fragment in _fragments([parts[i].text for i in main], at_least - len(points)):
        if len(points) < at_least and fragment.casefold() not in said:
            said.add(fragment.casefold())
            points.append(fragment)
    # A text of one or two letters has no three different parts: then it is said again.
    return points + [points[0] if points else ELLIPSIS] * (at_least - len(points))


def _fragments(texts: Sequence[str], wanted: int) -> list[str]:
    """Split sentences into clauses, or where those are too few into equal portions."""
    found = [clause for text in texts for clause in clauses(text)]
    if len(found) < max(2, wanted):
        found = [part for text in texts for part in portions(text, max(2, wanted))]
    return found


def _first_line(text: str) -> str:
    """Return the first line of pasted text where it looks like a headline, else nothing."""
    first, _, rest = clean(text).strip().partition("\n")
    line = " ".join(first.split())
    headline = len(line) <= TITLE_CHARS and 3 <= count_words(line) <= 18 and len(rest) > len(line)
    return line if headline and not ends_sentence(line) and not is_furniture(line) else ""


def _headline(reading: Reading) -> str:
    """Choose what stands for a title the page did not give: the lead, unless it reads badly."""
    leads = reading.parts[:3]
    if not leads:
        return ELLIPSIS
    best = max(range(len(leads)), key=lambda i: form(leads[i]) / (i + 1))
    text = leads[best].text
    return text.rstrip(".。।") or text
