"""Hard-wrapped text becomes paragraphs, and what stands on lines of its own stays apart."""

from __future__ import annotations

import pytest

from app.services.extraction.plain_text import paragraphs_of, read_plain_text

ONE = (
    "The night ferry to Ostrand sailed again on Monday after nine winters in the dry\n"
    "dock, with three hundred people on board and a brass band on the quay."
)
TWO = (
    "It had been taken out of service when the council closed the northern berth, and\n"
    "the island was left with one crossing a day in the dark months."
)
JOINED = [ONE.replace("\n", " "), TWO.replace("\n", " ")]


@pytest.mark.parametrize(
    ("text", "paragraphs"),
    [
        (f"{ONE}\n\n{TWO}\n", JOINED),
        (f"{ONE}\r\n\r\n{TWO}".replace("\n\n", "\n\n"), JOINED),
        (f"{ONE}\n{TWO}", JOINED),
        (f"   {ONE}\n   {TWO}", JOINED),
        ("\n".join(JOINED), JOINED),
        (f"- {ONE}\n- {TWO}", [f"- {JOINED[0]}", f"- {JOINED[1]}"]),
        (f"1. {ONE}\n2. {TWO}", [f"1. {JOINED[0]}", f"2. {JOINED[1]}"]),
        (f"{ONE}\n```\nx = 1\ny = 2\n```\n{TWO}", [JOINED[0], "x = 1", "y = 2", JOINED[1]]),
        (f"{ONE}\n--------\n{TWO}", JOINED),
        (f"# The ferry\n{ONE}", ["# The ferry", JOINED[0]]),
    ],
)
def test_lines_that_go_on_are_joined(text: str, paragraphs: list[str]) -> None:
    """Pitfalls: hard-wrapped text gave sentences glued from fragments."""
    found = paragraphs_of(text.replace("\r\n", "\n").split("\n"))
    assert [" ".join(one.split()) for one in found] == paragraphs


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "the boat and its passen-\ngers were late on every day of the long winter week",
            "passengers",
        ),
        (
            "a well-known cap-\ntain said that well-known things are seldom true at all",
            "captain said",
        ),
        (
            "it is a long-\nterm plan, said the council of its long-term plan for the boat",
            "long-term plan,",
        ),
        (
            "the inter\u00ad\nnational line closed, and nobody knew what would come next",
            "international",
        ),
    ],
)
def test_a_hyphen_is_undone_only_where_it_splits_a_word(text: str, word: str) -> None:
    assert word in paragraphs_of(text.split("\n"))[0]


def test_lines_of_chinese_are_joined_without_a_space() -> None:
    found = paragraphs_of(
        ["市议会周二投票决定用两艘电动船取代服役四十一年的柴油渡轮并在码头充电的", "计划已经通过。"]
    )
    assert found == [
        "市议会周二投票决定用两艘电动船取代服役四十一年的柴油渡轮并在码头充电的计划已经通过。"
    ]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        (f"Night ferry returns\n===================\n\n{ONE}", "Night ferry returns"),
        (f"# Night ferry returns #\n\n{ONE}", "Night ferry returns"),
        (f"Night ferry returns\n\n{ONE}", "Night ferry returns"),
        (f"{ONE}\n\n{TWO}", None),
        ("", None),
    ],
)
def test_a_heading_above_the_text_is_its_title(text: str, title: str | None) -> None:
    assert read_plain_text(text)[1] == title
