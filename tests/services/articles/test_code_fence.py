"""The text of a model without what it puts around all of it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.articles.code_fence import CodeFenceStripper

WHOLE = {
    "\n\n  # Title\n\nHello there.  \n\n\n": "# Title\n\nHello there.",
    "```markdown\n# Title\n\nText\n```": "# Title\n\nText",
    "\n```\n# Title\n\nText\n```\n\n": "# Title\n\nText",
    "``` Markdown\nText": "``` Markdown\nText",
    "# Code\n\n```python\nx\n```": "# Code\n\n```python\nx\n```",
    "```python\nx\n```\nText": "```python\nx\n```\nText",
    "```md\nA\n\n```js\nx\n```\n\nB\n```": "A\n\n```js\nx\n```\n\nB",
    "`a` and `b`": "`a` and `b`",
    " ```\n``#`": "``#`",
    "``": "``",
    " \n ": "",
    "```markdown\n```": "",
    "": "",
}


def unwrapped(text: str, cuts: list[int]) -> str:
    taker = CodeFenceStripper()
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    return "".join(taker.feed(piece) for piece in pieces) + taker.finish()


@pytest.mark.parametrize(("text", "expected"), WHOLE.items())
def test_what_is_around_the_text_goes(text: str, expected: str) -> None:
    """S3.17, contract 4: the pieces of `style` join to the article."""
    assert unwrapped(text, []) == expected


@given(st.sampled_from(sorted(WHOLE)), st.lists(st.integers(0, 60), max_size=12))
def test_however_it_is_cut_into_pieces(text: str, cuts: list[int]) -> None:
    """The tokens of a model end anywhere."""
    assert unwrapped(text, cuts) == WHOLE[text]


@given(st.text(alphabet="a `\n#", max_size=40), st.lists(st.integers(0, 60), max_size=12))
def test_no_cut_changes_what_comes_out(text: str, cuts: list[int]) -> None:
    """Whatever was handed over was certain."""
    assert unwrapped(text, cuts) == unwrapped(text, [])
