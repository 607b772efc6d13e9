"""More kinds of page through a raw socket: containers, lists, formulas, copies, odd headers."""

from __future__ import annotations

import pytest

from app.core.errors import ScrapeFailed
from tests.services.origin import Exchange, response
from tests.services.test_real_pages import (
    SENTENCES,
    TEXT,
    TITLE,
    has_every_sentence,
    origin_of,
    page,
    scrape,
)

PARAGRAPHS = [f"<p>{sentence}</p>" for sentence in SENTENCES]
FIRST, SECOND = "".join(PARAGRAPHS[:2]), "".join(PARAGRAPHS[2:])
BARE = f"<html lang=en><head><title>{TITLE}</title></head><body><h1>{TITLE}</h1>%s</body></html>"
MATH = (
    "<math><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup>"
    '<annotation encoding="application/x-tex">E=mc^2</annotation></math>'
)

CONTAINERS = {
    "two bodies": f"<div class=article-body>{FIRST}</div><div class=article-body>{SECOND}</div>",
    "three bodies with a picture between": (
        f"<div class=text>{FIRST}</div><figure><img src=a.jpg></figure>"
        f"<div class=text>{PARAGRAPHS[2]}</div><div class=text>{''.join(PARAGRAPHS[3:])}</div>"
    ),
    "two sections": f"<section>{FIRST}</section><section>{SECOND}</section>",
    "two columns": f"<div class=row><div>{FIRST}</div><div class=col>{SECOND}</div></div>",
    "an advertisement between": f"<div>{FIRST}</div><div class=ad>Buy!</div><div>{SECOND}</div>",
    "a box for each": "".join(f"<div class=block><div>{p}</div></div>" for p in PARAGRAPHS),
    "bare boxes": "".join(f"<div>{s}</div>" for s in SENTENCES),
    "a list": "<ul>" + "".join(f"<li>{s}</li>" for s in SENTENCES) + "</ul>",
    "a numbered list": "<ol>" + "".join(f"<li>{s}</li>" for s in SENTENCES) + "</ol>",
    "a list of paragraphs": "<ul>" + "".join(f"<li>{p}</li>" for p in PARAGRAPHS) + "</ul>",
    "details": f"{FIRST}<details><summary>More</summary>{SECOND}</details>",
    "details of each": "".join(
        f"<details><summary>Question {n}</summary>{p}</details>" for n, p in enumerate(PARAGRAPHS)
    ),
    "definitions": "<dl>" + "".join(f"<dt>Of it</dt><dd>{s}</dd>" for s in SENTENCES) + "</dl>",
    "definitions of paragraphs": "<dl>"
    + "".join(f"<dt>Of it</dt><dd>{p}</dd>" for p in PARAGRAPHS)
    + "</dl>",
    "definitions of several": f"<dl><dt>Then</dt><dd>{SENTENCES[0]}</dd><dd>{SENTENCES[1]}</dd>"
    f"<dt>Now</dt><dd>{SENTENCES[2]}</dd></dl>" + "".join(PARAGRAPHS[3:]),
    "definitions amid": f"{FIRST}<dl><dt>Hull</dt><dd>{SENTENCES[2]}</dd></dl>"
    + "".join(PARAGRAPHS[3:]),
    "quotes": "".join(f"<blockquote>{p}</blockquote>" for p in PARAGRAPHS),
    "a table for layout": f"<table><tr><td>{TEXT}</td></tr></table>",
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("bare", [False, True], ids=["in an article", "under body"])
async def test_the_text_is_found_in_whatever_holds_it(name: str, bare: bool) -> None:
    body = CONTAINERS[name]
    found = await scrape(BARE % body if bare else page(body))
    assert has_every_sentence(found), found["content"]
    assert "Buy!" not in found["content"]


async def test_articles_in_sibling_elements_are_one() -> None:
    body = f"<article>{FIRST}</article><article>{SECOND}</article>"
    assert has_every_sentence(await scrape(BARE % body))


FORMULAS = {
    "MathML": MATH,
    "MathML without a note": "<math><mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi></msup></math>",
    "KaTeX": f'<span class="katex"><span class="katex-mathml">{MATH}</span>'
    '<span class="katex-html" aria-hidden="true"><span class="base">E=mc2</span></span></span>',
    "alternative text": '<math alttext="E=mc^2"><mi>E</mi><mo>=</mo><mi>m</mi></math>',
    "MathJax": f'<mjx-container><mjx-math aria-hidden="true">E=mc2</mjx-math>'
    f"<mjx-assistive-mml>{MATH}</mjx-assistive-mml></mjx-container>",
}


@pytest.mark.parametrize("name", FORMULAS)
async def test_a_formula_is_read_once_and_where_it_stands(name: str) -> None:
    sentence = f"<p>Einstein wrote in 1905 that {FORMULAS[name]} holds for any body at rest.</p>"
    found = await scrape(page(sentence + TEXT))
    line = next(line for line in found["content"].splitlines() if "Einstein" in line)
    words = "Einstein wrote in 1905 that E=m"
    assert line.startswith(words), line
    assert line.endswith(" holds for any body at rest."), line
    assert line.count("E=m") == 1


LINKS = {
    "in a span": '<span><a href="/o">Ostrand</a></span>',
    "a span within": '<a href="/o"><span>Ostrand</span></a>',
    "in two spans": '<span class="a"><span class="b"><a href="/o">Ostrand</a></span></span>',
    "bold": '<b><a href="/o">Ostrand</a></b>',
    "emphasized within": '<a href="/o"><em>Ostrand</em></a>',
    "a mark": '<mark><a href="/o" class="tag">Ostrand</a></mark>',
}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("tag", ["p", "li", "div"])
async def test_the_words_of_a_link_stay_in_their_sentence(name: str, tag: str) -> None:
    body = "".join(
        f"<{tag}>{sentence}</{tag}>".replace("Ostrand", LINKS[name]) for sentence in SENTENCES
    )
    found = await scrape(page(f"<ul>{body}</ul>" if tag == "li" else body))
    assert has_every_sentence(found), found["content"]


BESIDE = {
    "a caption": "<figure><img src=a.jpg><figcaption>CAPTION of a boat. Photo: Ek</figcaption>"
    "</figure>",
    "a caption by class": '<div class="wp-caption"><img src=a.jpg><p class="wp-caption-text">'
    "CAPTION of a boat at its berth.</p></div>",
    "a gallery": '<div class="gallery">'
    + "<figure><img src=a.jpg><figcaption>CAPTION of a boat.</figcaption></figure>" * 4
    + "</div>",
    "a slideshow": '<div class="slideshow"><ul>'
    + "<li><img src=a.jpg><span class=caption>CAPTION of a boat.</span></li>" * 4
    + "</ul></div>",
}


@pytest.mark.parametrize("name", BESIDE)
async def test_a_caption_is_no_part_of_the_text(name: str) -> None:
    found = await scrape(page(TEXT.replace("</p>", f"</p>{BESIDE[name]}", 1)))
    assert has_every_sentence(found)
    assert "CAPTION" not in found["content"]


@pytest.mark.parametrize(
    "copies",
    [
        f"<div class='desktop'>{TEXT}</div><div class='mobile'>{TEXT}</div>",
        f"<div class='d-none d-md-block'>{TEXT}</div><div class='d-md-none'>{TEXT}</div>",
        f"<section class=wide>{TEXT}</section><section class=narrow>{TEXT}</section>",
    ],
)
async def test_a_copy_for_another_screen_is_read_once(copies: str) -> None:
    content = (await scrape(page(copies)))["content"]
    assert [content.count(sentence) for sentence in SENTENCES] == [1] * len(SENTENCES)


async def test_a_refrain_stays_wherever_it_is_repeated() -> None:
    refrain = "<p>And the ferry came in through the dark, as it had always come in before.</p>"
    content = (await scrape(page(refrain.join(PARAGRAPHS))))["content"]
    assert content.count("And the ferry came in") == len(PARAGRAPHS) - 1


ODD_HEADERS = {
    "no colon": b"X-Broken header without a colon",
    "a space before the colon": b"X-Odd : yes",
    "a tab before the colon": b"X-Odd\t: yes",
    "a line that goes on": b"X-Long: one\r\n two",
    "a name with spaces": b"My Header: yes",
    "a name that is no token": b"X(Odd): yes",
    "no name": b": nothing",
    "letters of Latin-1": b"X-City: Malm\xf6",
    "letters of UTF-8": "X-City: Malmö".encode(),
    "a name outside ASCII": "X-Stadt-ö: yes".encode(),
    "a zero byte": b"X-Odd: a\x00b",
    "a control": b"X-Odd: a\x01b",
    "a type with a space before its colon": b"Content-Type : text/html",
}


@pytest.mark.parametrize("name", ODD_HEADERS)
async def test_a_header_line_that_a_strict_reader_refuses_costs_no_page(name: str) -> None:
    answer = response(page()).replace(b"\r\n", b"\r\n" + ODD_HEADERS[name] + b"\r\n", 1)
    found = await scrape(answer)
    assert has_every_sentence(found)


ANSWERS = {
    "401 Unauthorized": "refuses",
    "402 Payment Required": "paid",
    "403 Forbidden": "refuses",
    "404 Not Found": "check the address",
    "410 Gone": "check the address",
    "429 Too Many Requests": "too many requests",
    "451 Unavailable For Legal Reasons": "refuses",
    "503 Service Unavailable": "try again later",
    "999 Request denied": "sign in",
}


@pytest.mark.parametrize("status", ANSWERS)
async def test_a_refusal_says_what_the_site_wants(status: str) -> None:
    """Contract 6: `http_error`, with a message for people."""
    with pytest.raises(ScrapeFailed, match=ANSWERS[status]) as failure:
        await scrape(response(page(), status=status))
    assert failure.value.code == "http_error"
    assert status[:3] in failure.value.message


SENT = response(page()).replace(b"\r\n", b"\r\nBad line\r\n", 1)
WAYS = {
    "line feeds alone": SENT.replace(b"\r\n", b"\n"),
    "after early hints": b"HTTP/1.1 103 Early Hints\r\nBad : x\r\nLink\r\n\r\n" + SENT,
    "a bad line that goes on": SENT.replace(b"Bad line\r\n", b"Bad line\r\n and on\r\n"),
    "first a line that goes on": SENT.replace(b"Bad line\r\n", b" of nothing\r\n"),
    "its type said oddly": SENT.replace(b"Content-Type:", b"Content-Type \t :"),
    "no reason": SENT.replace(b"200 OK", b"200", 1),
    "HTTP/1.0": SENT.replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "no length": SENT.replace(b"Content-Length", b"X-Length", 1),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("step", [7, 100_000])
async def test_a_bad_header_line_costs_no_page_however_it_comes(name: str, step: int) -> None:
    async def in_pieces(exchange: Exchange) -> None:
        for start in range(0, len(WAYS[name]), step):
            await exchange.send(WAYS[name][start : start + step])

    async with origin_of() as (scraper, origin):
        origin.scripts["/a"] = in_pieces
        assert has_every_sentence(await scraper.scrape_url(origin.url("/a")))


async def test_a_head_without_an_end_is_a_lost_connection() -> None:
    with pytest.raises(ScrapeFailed) as failure:
        await scrape(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000)
    assert failure.value.code == "connect_failed"
