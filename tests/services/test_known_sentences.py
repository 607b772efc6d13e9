"""Whatever the markup: each sentence that a summary shows is one of the page's own."""

from __future__ import annotations

import random

from app.engine.base import Document
from app.engine.extractive.composition import Limits, compose, read
from app.engine.text.sentences import has_few_sentences, split_sentences
from app.services.extraction.article import read_article
from app.services.fetching.fetch import Page

PAGES = 60
WHO = ("The council", "A fisherman", "The new captain", "Every islander", "The old shipyard")
DID = ("replaced", "sold", "repaired", "counted", "painted", "measured", "praised")
WHAT = ("the northern berth", "eleven wooden frames", "a second engine", "forty life jackets")
WHEN = ("before the winter storms", "on a cold Monday", "without asking anybody", "in nine weeks")
INLINE = ("em", "strong", "a href='/x'", "span class=k", "i")


def sentence(chance: random.Random, number: int) -> str:
    words = (chance.choice(WHO), chance.choice(DID), chance.choice(WHAT), chance.choice(WHEN))
    return f"{' '.join(words)}, as the log says in its entry of day {number}."


def marked(chance: random.Random, text: str) -> str:
    """Wrap lines and put inline tags around words, as editors and templates do."""
    words = text.split()
    for _ in range(chance.randrange(3)):
        at = chance.randrange(len(words))
        tag = chance.choice(INLINE)
        words[at] = f"<{tag}>{words[at]}</{tag.split()[0]}>"
    breaks = (" ", " ", " ", "\n", "\n    ", "\r\n\t")
    return "".join(word + chance.choice(breaks) for word in words).strip()


def page(chance: random.Random) -> tuple[str, list[str]]:
    known = [sentence(chance, number) for number in range(chance.randint(1, 24))]
    blocks, left = [], list(known)
    while left:
        count = min(len(left), chance.randint(1, 4))
        text = " ".join(marked(chance, one) for one in left[:count])
        left = left[count:]
        tag = chance.choice(("p", "p", "p", "div", "li", "blockquote"))
        if tag == "li":
            blocks.append(f"<ul><li>{text}</li></ul>")
        else:
            blocks.append(f"<{tag}>{text}</{tag}>")
        if chance.random() < 0.15:
            blocks.append(f"<h2>{chance.choice(WHO)} and {chance.choice(WHAT)}</h2>")
    body = "\n".join(blocks)
    return f"<html lang=en><title>Log of the ferry</title><article>{body}</article></html>", known


def test_every_sentence_shown_is_one_of_the_page() -> None:
    """Pitfalls: under an engine that promises sentences of the article itself."""
    chance = random.Random(7)
    wrong: list[tuple[int, str]] = []
    shown = 0
    for number in range(PAGES):
        markup, known = page(chance)
        text = Page("https://a.example/log", "text/html", None, markup.encode())
        article = read_article(text, min_chars=20)
        limits = Limits()
        if has_few_sentences(article.content, "en"):
            limits = Limits(points_min=1, points_max=2)
        document = Document(text=article.content, title=article.title, language="en")
        summary = compose(read(document, "executive"), limits)
        said = split_sentences(str(summary["main_summary"]), "en")
        points = summary["key_points"]
        assert len(known) >= 5 or 1 <= len(points) <= 2
        for one in [*said, *points]:
            shown += 1
            if one not in known:
                wrong.append((number, one))
    assert shown > 4 * PAGES
    assert wrong == []
