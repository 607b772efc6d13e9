"""The prompts of an article, step by step. The topic is always data."""

from __future__ import annotations

import json
from collections.abc import Sequence

# Requests of the first and of the last step begin so.
OUTLINE_TASK = "Plan a short article"
STYLE_TASK = "Rewrite this draft of an article"

_LANGUAGE = "Write in the language of the topic."


def outline_prompt(topic: str, problem: str | None = None) -> str:
    """Return the request for an outline; `problem` says why the answer before was of no use."""
    prompt = (
        f"{OUTLINE_TASK} about this topic: {_quoted(topic)}\n"
        "Give the titles of its 3 main sections: each at most ten words, on one line, different "
        f"from the others. {_LANGUAGE}\n"
        "Answer with YAML in flow style on one line, and nothing else: a mapping in braces whose "
        "one key is sections, and its value a list in brackets of the 3 titles, each in double "
        "quotes."
    )
    if problem is not None:
        prompt += f"\nYour answer before this could not be used: {problem}. Keep to the format."
    return prompt


def section_prompt(topic: str, titles: Sequence[str], number: int) -> str:
    """Return the request for the text of one section; `number` counts from 0."""
    outline = "\n".join(f"{place}. {_quoted(title)}" for place, title in enumerate(titles, 1))
    return (
        f"An article about the topic {_quoted(topic)} has these sections:\n{outline}\n"
        f"Write section {number + 1}, {_quoted(titles[number])}, in about 100 words: plain prose, "
        f"concrete and easy to follow, without its title, headings or lists. {_LANGUAGE} Say "
        "nothing that belongs into the other sections."
    )


def style_prompt(topic: str, draft: str) -> str:
    """Return the request for the final article."""
    return (
        f"{STYLE_TASK} in a conversational, engaging style, for a reader who is curious about the "
        f"topic {_quoted(topic)}. Speak to the reader, use questions, comparisons and examples, "
        "and end with a thought that stays. Keep every fact, and the order of the sections.\n"
        "Answer with the article alone, in Markdown: a title with #, and each of the three "
        f"sections under its own title with ##. {_LANGUAGE}\n\n"
        f"<draft>\n{draft}\n</draft>"
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
