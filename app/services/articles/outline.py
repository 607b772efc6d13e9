"""An outline of three titles: its schema, and the reading of an answer.

Where an engine holds itself to the schema the answer is right by itself. Where it cannot, the model
writes YAML, maybe with talk or a fence around it, and this finds the titles in it or says what is
wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from app.schemas.jobs import is_one_line

SECTIONS = 3
MAX_TITLE_CHARS = 120
MAX_ANSWER_CHARS = 8_000

# JSON is YAML in flow style, so a grammar for the one makes the other.
OUTLINE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "sections": {
            "type": "array",
            "items": {"type": "string", "minLength": 3, "maxLength": 80},
            "minItems": SECTIONS,
            "maxItems": SECTIONS,
        }
    },
    "required": ["sections"],
    "additionalProperties": False,
}

_KEYS = ("sections", "outline", "article")
_TITLE_KEYS = ("title", "section", "name", "heading")
_FENCE = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)(?:```|\Z)", re.S)
_BLOCK = re.compile(r"^[ \t]*(?:sections|outline):.*(?:\n(?:[ \t]*|[ \t]+.*|-.*))*", re.I | re.M)
# What models write that know Markdown better than YAML: bullets, numbers, bold titles.
_PLACEHOLDER = re.compile(
    r"\W*(?:the |your )?(?:(?:first|second|third|1st|2nd|3rd|section|title|heading|topic)\W*)+"
    r"(?:\d|one|two|three|here)?\W*",
    re.IGNORECASE,
)
_MARKED = re.compile(r"^[ \t]*(?:[-*+]|\d{1,2}[.)])[ \t]+(\S.*)$", re.M)
_LIST = re.compile(r"^[ \t]*-[ \t].*(?:\n(?:[ \t]+.*|-[ \t].*))*", re.M)


def read_outline(answer: str) -> list[str]:
    """Return the three titles that a model's answer holds.

    Raises:
        ValueError: there are none; the message says why, in words for a model, and quotes nothing.
    """
    if len(answer) > MAX_ANSWER_CHARS:
        raise ValueError("it was much too long")
    problem = ""
    # What a model thinks before it answers may hold a list too.
    answer = answer.rpartition("</think>")[2]
    for candidate in _candidates(answer):
        try:
            loaded = yaml.safe_load(candidate)
        except Exception:
            # PyYAML raises IndexError, KeyError and others where a tag stands on a wrong value.
            problem = problem or "it was not valid YAML"
            continue
        try:
            return _titles(_listed(loaded))
        except ValueError as wrong:
            problem = str(wrong)
    marked = [_plain(title) for title in _MARKED.findall(answer)]
    if len(marked) == SECTIONS:
        return _titles(marked)
    raise ValueError(problem or "it was empty")


def _candidates(answer: str) -> Iterator[str]:
    """Yield the parts of an answer that may be the outline, the likeliest last to complain."""
    yield answer
    for found in _FENCE.finditer(answer):
        yield found[1]
    if "{" in answer:
        yield answer[answer.index("{") : answer.rindex("}") + 1 if "}" in answer else None]
    for pattern in (_LIST, _BLOCK):
        if block := pattern.search(answer):
            yield block[0]


def _plain(title: str) -> str:
    """Return a title of a Markdown list without its marks."""
    return title.strip().strip("*_`\"'").rstrip(":").strip()


def _listed(loaded: Any, depth: int = 0) -> list[Any]:
    """Return the list in what was loaded: at the top, or under the name of the sections."""
    if isinstance(loaded, list):
        return loaded
    if isinstance(loaded, dict) and depth < len(_KEYS):
        named = {str(key).lower(): value for key, value in loaded.items()}
        for key in _KEYS:
            if key in named:
                return _listed(named[key], depth + 1)
    raise ValueError('it had no list named "sections"')


def _titles(listed: list[Any]) -> list[str]:
    if len(listed) != SECTIONS:
        raise ValueError(f"it had {len(listed)} sections instead of {SECTIONS}")
    return [_title(entry) for entry in listed]


def _title(entry: Any) -> str:
    if isinstance(entry, dict):
        entry = _title_in(entry)
    if isinstance(entry, bool) or not isinstance(entry, str | int | float):
        raise ValueError("a section was not a text in double quotes")
    title = str(entry).strip().lstrip("#").strip()
    if not title:
        raise ValueError("a title was empty")
    if len(title) > MAX_TITLE_CHARS:
        raise ValueError(f"a title had more than {MAX_TITLE_CHARS} characters")
    if _PLACEHOLDER.fullmatch(title):
        raise ValueError("a title was a placeholder and no title of a section")
    if not is_one_line(title):
        raise ValueError("a title was not one line of text")
    return title


def _title_in(entry: dict[Any, Any]) -> Any:
    """Return the title of a mapping; `Rise: a fall` without quotes is a mapping too."""
    named = {str(key).lower(): value for key, value in entry.items()}
    for key in _TITLE_KEYS:
        if key in named:
            return named[key]
    if len(entry) == 1:
        ((key, value),) = entry.items()
        if isinstance(key, str):
            return f"{key}: {value}" if isinstance(value, str) else key
    return None
