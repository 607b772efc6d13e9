"""Markup that would keep a parser busy for minutes is not given to it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.core.errors import ScrapeFailed
from app.services.extraction.article import read_article
from app.services.extraction.markup import MAX_ATTRIBUTES, is_parsable
from app.services.fetching.fetch import Page

MANY = " ".join(f"a{number}" for number in range(200_000))
WORDS = "The harbour bridge opened on Monday after four years of work. " * 5


@pytest.mark.parametrize(
    "markup",
    [
        f"<p {MANY}>x</p>",
        f'<p x=">" {MANY}>x</p>',
        f'<p x="<b" {MANY}>x</p>',
        f"<p\n{MANY.replace(' ', '/')}>x</p>",
        f'<!-- <a x=" --><p {MANY}>x</p>',
        f'<p b" {MANY} "c>x</p>',
        f"<p {MANY.replace(' ', '=1 ')}>x</p>",
        "<p " + "".join(f"a{number}='v' " for number in range(MAX_ATTRIBUTES + 1)) + ">",
    ],
)
def test_a_tag_of_very_many_attributes_is_found_however_it_is_hidden(markup: str) -> None:
    """Contract 6; measured: libxml2 takes 90 s for 300,000 attributes."""
    assert not is_parsable(markup)


@pytest.mark.parametrize(
    "markup",
    [
        f"<p>{WORDS * 1000}</p>",
        "<div data-props='" + '{"a": "b", "c": 1} ' * 20_000 + "'>x</div>",
        '<img src="data:image/png;base64,' + "A" * 500_000 + '">',
        "<p>" + "a < b and c > d " * 10_000 + "</p>",
        "<a b>" * 50_000,
    ],
)
def test_ordinary_markup_passes(markup: str) -> None:
    assert is_parsable(markup)


def test_counting_is_bounded_in_time() -> None:
    started_s = time.thread_time()
    is_parsable(("<a " + "b " * (MAX_ATTRIBUTES - 2) + "<c ") * 1_000)
    assert time.thread_time() - started_s < 10


def test_such_a_page_is_no_article() -> None:
    page = Page("http://a.example/", "text/html", None, f"<p {MANY}>{WORDS}</p>".encode())
    with pytest.raises(ScrapeFailed) as failed:
        read_article(page, min_chars=100)
    assert failed.value.code == "no_article"


HOSTILE = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from app.engine.extractive.passages import passages
marks = "….-–—•*·▪►■●>’”»\\"'“(),;:!?。！？،؛/|_~=+#@"
texts = [mark * 50_000 + " x y z w" for mark in marks]
texts += [(mark + " ") * 20_000 + "x" for mark in marks]
texts += ["By " + "A" * 50_000 + " b c", "By " + "Aa " * 20_000, "A" * 50_000 + ", B — c"]
texts += ["." * 90 + "x y z w v", "READ " * 10_000, "get the " * 6_000]
for text in texts:
    list(passages("The bridge opened on Monday.\\n" + text + "\\nIt cost a lot.", None))
print("done")
"""


def test_no_text_keeps_the_sentence_rules_busy_for_long() -> None:
    """A11: an exponential pattern holds the interpreter, and with it the whole server.

    In a process of its own, since nothing inside could end it: after 60 s of CPU the kernel does.
    It needs 3 s.
    """
    run = subprocess.run(
        [sys.executable, "-c", HOSTILE],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.stdout.strip() == "done", run.stderr[-2000:]
