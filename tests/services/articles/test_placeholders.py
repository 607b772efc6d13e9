"""An outline that copies the words of its own request is no outline."""

from __future__ import annotations

import pytest

from app.services.articles.outline import read_outline
from app.services.articles.prompts import outline_prompt


@pytest.mark.parametrize("title", ["first title", "Title 1", "Section two", "[Your title here]"])
def test_a_copied_placeholder_is_refused(title: str) -> None:
    with pytest.raises(ValueError, match="placeholder"):
        read_outline(f'{{"sections": ["Ships", "{title}", "Cranes"]}}')


@pytest.mark.parametrize("title", ["The first ship", "Title fights of 1974", "Section 8 housing"])
def test_a_title_that_holds_such_a_word_is_kept(title: str) -> None:
    assert read_outline(f'{{"sections": ["Ships", "{title}", "Cranes"]}}')[1] == title


def test_the_request_for_an_outline_holds_no_title_to_copy() -> None:
    assert '{"sections"' not in outline_prompt("harbours")
