"""What is put to a model holds nothing that a small one copies instead of an answer."""

from __future__ import annotations

import pytest

from app.engine.base import Document
from app.services.summaries.prompts import STYLES, summary_prompt


@pytest.mark.parametrize("style", STYLES)
def test_the_prompt_shows_no_value_and_no_category_of_a_style(style: str) -> None:
    """Issue 16: "string" was copied, and "business impact" made every article business."""
    system, user = summary_prompt(Document(text="Ships leave."), style)
    words = f"{system.content} {user.after}".lower()
    assert '":' not in words
    assert "business" not in words
    for member in ("title", "main_summary", "key_points", "category", "sentiment", "read_time_min"):
        assert f'"{member}"' in system.content
