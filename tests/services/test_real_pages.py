"""Kinds of page that real sites send, each small, through a raw socket: what must come of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.core.errors import ScrapeFailed
from app.services.article_scraper import ArticleScraper
from tests.services.origin import Exchange, Origin, on_loopback, redirect, response, serving

TITLE = "Night ferry returns to Ostrand after nine winters"
SENTENCES = (
    "The night ferry to Ostrand sailed again on Monday after nine winters in the dry dock, with "
    "three hundred people on board and a brass band on the quay.",
    "It had been taken out of service when the regional council closed the northern berth, which "
    "left the island with one crossing a day in the dark months.",
    "Shipwrights replaced eleven frames in the hull and fitted a second engine, so that the boat "
    "can keep its timetable against the westerly gales of January.",
    "The repair cost 31 million crowns, a third of it paid by islanders who bought shares of two "
    "hundred crowns each in a cooperative.",
    "Captain Runa Dahl said that the first winter would show whether the crossing pays for itself "
    "or needs the council's money again.",
)
TEXT = "".join(f"<p>{sentence}</p>" for sentence in SENTENCES)


def page(body: str = TEXT, *, head: str = "", title: str = TITLE, h1: str | None = TITLE) -> str:
    heading = f"<h1>{h1}</h1>" if h1 else ""
    return (
        f'<!doctype html><html lang="en"><head><title>{title}</title>{head}</head><body>'
        f"<nav><a href=/>Home</a></nav><main><article>{heading}{body}</article></main>"
        "<footer>Ostrand Herald</footer></body></html>"
    )


def ld(*nodes: Any) -> str:
    return f'<script type="application/ld+json">{json.dumps(nodes)}</script>'


def node(**facts: Any) -> dict[str, Any]:
    return {"@type": "NewsArticle", "headline": TITLE, **facts}


@asynccontextmanager
async def origin_of() -> AsyncIterator[tuple[ArticleScraper, Origin]]:
    async with serving() as origin:
        scraper = ArticleScraper(resolve=on_loopback)
        scraper.configure(allow_hosts=frozenset((origin.authority,)), cache_size=0)
        try:
            yield scraper, origin
        finally:
            await scraper.aclose()


async def scrape(answer: bytes | str) -> dict[str, Any]:
    async with origin_of() as (scraper, origin):
        origin.scripts["/a"] = answer if isinstance(answer, bytes) else response(answer)
        return await scraper.scrape_url(origin.url("/a"))


def has_every_sentence(found: dict[str, Any]) -> bool:
    lines = found["content"].splitlines()
    return all(any(sentence in line for line in lines) for sentence in SENTENCES)


def wrapped(text: str, width: int = 58, indent: str = "") -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(indent + line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, indent + line])


WRAPPED = [wrapped(sentence) for sentence in SENTENCES]
WHOLE = {
    "paragraphs": page(),
    "hard-wrapped paragraphs": page("".join(f"<p>\n{text}\n</p>" for text in WRAPPED)),
    "hard-wrapped boxes": page("".join(f"<div>\n  {text}\n</div>" for text in WRAPPED)),
    "hard-wrapped with tabs": page(
        "".join(f"<p>{text}</p>".replace("\n", "\r\n\t\t") for text in WRAPPED)
    ),
    "two breaks for a paragraph": page(f"<div>{'<br><br>'.join(SENTENCES)}</div>"),
    "a break for every line": page(
        f"<div>{'<br><br>'.join(text.replace(chr(10), '<br>') for text in WRAPPED)}</div>"
    ),
    "links inside sentences": page(TEXT.replace("Ostrand", "<a href=/o>Ostrand</a>")),
    "links in spans inside sentences": page(
        TEXT.replace("council", '<span class="link"><a href=/c>council</a></span>')
    ),
    "emphasis inside words": page(TEXT.replace("crossing", "<em>cross</em>ing")),
    "paragraphs in sections": page(
        "".join(f"<section>{p}</p></section>" for p in TEXT.split("</p>"))
    ),
    "an article in main alone": (
        f"<html><head><title>{TITLE}</title></head><body><main><h1>{TITLE}</h1>{TEXT}</main></body>"
    ),
    "no container at all": f"<title>{TITLE}</title><h1>{TITLE}</h1>{TEXT}",
    "a body that opens hidden": page().replace("<body>", '<body style="display:none">'),
    "upper-case tags": page().replace("<p>", "<P>").replace("</p>", "</P>"),
    "paragraphs that are not closed": page(TEXT.replace("</p>", "")),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_every_sentence_comes_whole(name: str) -> None:
    """Pitfalls: source line breaks became sentence ends, words of links were lost."""
    found = await scrape(WHOLE[name])
    assert has_every_sentence(found), found["content"]
    assert found["title"] == TITLE
    assert not found["partial"]


LEFT_OUT = {
    "hidden": "<p hidden>SECRET words that nobody is meant to read in this article at all.</p>",
    "display none": '<p style="color:red; display: none">SECRET words that nobody reads here.</p>',
    "aria-hidden": '<div aria-hidden="true"><p>SECRET words that are said to nobody.</p></div>',
    "template": "<template><p>SECRET words of a template that is never shown.</p></template>",
    "newsletter": '<div class="Newsletter-box"><p>SECRET: get our letter every morning.</p></div>',
    "subscribe": '<div class="x"><h3>SECRET</h3><p>Subscribe to continue reading this.</p></div>',
    "consent": (
        '<div class="k"><p>SECRET: we value your privacy.</p><p>We and our 842 partners store and '
        "access information on a device and process personal data.</p><p>You can withdraw your "
        "consent at any time.</p></div>"
    ),
    "cookie bar": '<div id="cookie-banner"><p>SECRET: this site uses cookies.</p></div>',
}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("place", ["before", "within"])
async def test_what_is_no_part_of_the_article_is_left_out(name: str, place: str) -> None:
    """Pitfalls: consent walls were summarised as articles."""
    box = LEFT_OUT[name]
    middle = TEXT.replace("</p>", f"</p>{box}", 1)
    found = await scrape(page(box + TEXT if place == "before" else middle))
    assert "SECRET" not in found["content"]
    assert has_every_sentence(found)


OTHER = {"@type": "NewsArticle", "headline": "Pigeons in the underground"}
OTHERS_FACTS = {**OTHER, "author": {"name": "Bob Other"}, "datePublished": "2001-01-01",
                "articleBody": "Pigeons ride the underground. " * 60}  # fmt: skip
OWN = node(author={"@type": "Person", "name": "Runa Dahl"}, datePublished="2024-02-05T06:00:00Z")
METADATA = {
    "its own after a list": ld({"@type": "ItemList", "itemListElement": [OTHERS_FACTS]}) + ld(OWN),
    "its own after another": ld(OTHERS_FACTS, OWN),
    "its own in a graph": ld(
        {"@graph": [{"@type": "WebSite", "name": "Herald"}, OTHERS_FACTS, OWN]}
    ),
    "its own behind references": ld(
        {
            "@graph": [
                node(author={"@id": "#runa"}, datePublished="2024-02-05"),
                {"@type": "Person", "@id": "#runa", "name": "Runa Dahl"},
            ]
        }
    ),
    "its own by main entity": ld({"@type": "WebPage", "mainEntity": OWN}),
    "a review nested in it": ld({**OWN, "review": {**OTHERS_FACTS, "@type": "Review"}}),
    "comments nested in it": ld({**OWN, "comment": [OTHERS_FACTS]}),
    "in CDATA": ld(OWN).replace(">[", ">//<![CDATA[\n[").replace("]<", "]\n//]]><"),
    "with trailing commas": ld(OWN).replace("}]", ",}, ]").replace('"}, "d', '",}, "d'),
    "with raw line breaks": ld(OWN).replace("Night ferry", "Night\nferry"),
    "in meta": '<meta name="author" content="Runa Dahl">'
    '<meta property="article:published_time" content="2024-02-05T06:00:00Z">'
    '<meta property="article:modified_time" content="2024-03-01">',
}


@pytest.mark.parametrize("name", METADATA)
async def test_metadata_are_the_pages_own(name: str) -> None:
    """Pitfalls: a teaser, a buyer's review became title, author and date."""
    found = await scrape(page(head=METADATA[name]))
    assert (found["title"], found["author"], found["date"]) == (TITLE, "Runa Dahl", "2024-02-05")
    assert "Pigeons" not in found["content"]


@pytest.mark.parametrize(
    ("head", "h1", "title"),
    [
        (ld(node(name="Ostrand", headline="island in the north")), "Ostrand", "Ostrand - Wiki"),
        ('<meta property="og:title" content="Ostrand">', "Ostrand", "Ostrand | The Herald"),
        ('<meta property="og:site_name" content="The Herald">', "Ostrand", "The Herald - Ostrand"),
        ('<meta property="og:title" content="The Herald">'
         '<meta property="og:site_name" content="The Herald">', "Ostrand", "Ostrand"),
    ],
)  # fmt: skip
async def test_the_title_is_what_the_page_agrees_on(head: str, h1: str, title: str) -> None:
    """Pitfalls: Wikidata's description, or the site's name, became the title."""
    assert (await scrape(page(head=head, h1=h1, title=title)))["title"] == "Ostrand"


@pytest.mark.parametrize(
    ("byline", "author"),
    [
        (
            '<p class="byline">By <b>Runa Dahl</b> November 3, 2023 | Updated: 14:20</p>',
            "Runa Dahl",
        ),
        ('<span itemprop="author">Runa Dahl, Senior Reporter</span>', "Runa Dahl"),
        ('<div class="author-name">Von Runa Dahl und Jon Ek</div>', "Runa Dahl, Jon Ek"),
        ('<a rel="author" href="/u">admin</a>', None),
        ('<div class="author">View all posts</div>', None),
        ('<div class="comment"><span class="author">Troll42</span></div>', None),
        ("", None),
    ],
)
async def test_an_author_is_a_name_or_nobody(byline: str, author: str | None) -> None:
    """Pitfalls: author given where there is none."""
    assert (await scrape(page(byline + TEXT)))["author"] == author


async def test_a_date_of_change_is_no_date_of_publication() -> None:
    head = ld(node(dateModified="2024-03-01")) + (
        '<meta property="article:modified_time" content="2024-03-01T10:00:00Z">'
    )
    assert (await scrape(page(head=head)))["date"] is None


async def test_a_live_blog_is_all_its_updates_in_order() -> None:
    updates = [
        {"@type": "BlogPosting", "headline": f"Update {n}", "articleBody": text}
        for n, text in enumerate(SENTENCES)
    ]
    blog = {"@type": "LiveBlogPosting", "headline": TITLE, "liveBlogUpdate": updates}
    found = await scrape(page("<p>Follow the news here.</p>", head=ld(blog)))
    assert has_every_sentence(found)
    places = [found["content"].index(text) for text in SENTENCES]
    assert places == sorted(places)


async def test_a_paywalled_teaser_is_partial_and_asks_for_nothing() -> None:
    head = ld(node(isAccessibleForFree=False))
    gate = (
        "<div class=gate><h2>Subscribe to continue</h2><p>Already a subscriber? Log in.</p></div>"
    )
    found = await scrape(page(f"<p>{SENTENCES[0]}</p>{gate}", head=head))
    assert found["partial"] is True
    assert SENTENCES[0] in found["content"]
    assert "ubscribe" not in found["content"]


NO_ARTICLE = {
    "challenge, cloudflare": (
        "Just a moment...", "<h2>Verifying you are human. This may take a few seconds.</h2>"
        "<p>news.example needs to review the security of your connection before proceeding.</p>",
        "human"),
    "challenge, perimeterx": (
        "Access to this page has been denied.", "<p>Press &amp; Hold to confirm you are a human, "
        "not a bot. Reference ID 1234-5678. We want to make sure it is you.</p>", "human"),
    "challenge, datadome": (
        "news.example", "<p>Please enable JS and disable any ad blocker</p>"
        '<script src="https://ct.captcha-delivery.com/c.js"></script>', "human"),
    "challenge, akamai": (
        "Access Denied", "<h1>Access Denied</h1><p>You don't have permission to access "
        '"http://news.example/a" on this server. Reference #18.2d351ab8.1557333295.a4e16ab</p>',
        "human"),
    "challenge, imperva": (
        "Pardon Our Interruption", "<p>As you were browsing something about your browser made us "
        "think you might be a bot. There are a few reasons this might happen.</p>", "human"),
    "soft 404": (
        "Page not found - Ostrand Herald", "<h1>Sorry</h1><p>The page you were looking for could "
        "not be found. It may have been moved, or mistyped: try the search of this site.</p>",
        "does not exist"),
    "soft 404 in German": (
        "Seite nicht gefunden", "<p>Die gewünschte Seite gibt es nicht mehr. Nutzen Sie die "
        "Suche oder gehen Sie zurück zur Startseite, um weitere Artikel zu finden.</p>",
        "does not exist"),
    "log-in": (
        "Log in to Ostrand Herald", "<form><p>Log in to continue to your account and read what "
        "your friends have shared. Forgot password? New here? Sign up now.</p></form>", "sign"),
    "consent": (
        "Before you continue", "<h1>We value your privacy</h1><p>We and our 842 partners store and "
        "access information on your device and process personal data.</p><p>With your permission "
        "we may use precise geolocation data. You may consent to our processing.</p><p>You can "
        "withdraw your consent at any time; some rests on legitimate interest.</p>", "consent"),
    "enable JavaScript": (
        "Herald", "<noscript>x</noscript><p>You need to enable JavaScript to run this app. Please "
        "turn it on in the settings of your browser and load this page again.</p>", "JavaScript"),
    "empty shell": (
        "Herald", '<div id="root"></div><script src="/app.js"></script>', "shell"),
    "index": (
        "Herald", "".join(f'<h3><a href="/{n}">Story number {n} of the day</a></h3><p>Short.</p>'
                          for n in range(30)), "lists other pages"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_ARTICLE)
async def test_what_is_no_article_is_told_by_what_it_is(name: str) -> None:
    """Contract 6: `no_article`, and the message says which."""
    title, body, reason = NO_ARTICLE[name]
    markup = f"<html><head><title>{title}</title></head><body>{body}</body></html>"
    with pytest.raises(ScrapeFailed, match=reason) as failure:
        await scrape(markup)
    assert failure.value.code == "no_article"
    assert "paste the text" in failure.value.message


async def test_an_article_about_challenges_is_an_article() -> None:
    extra = "<p>Cloudflare's page says 'Verifying you are human' and asks to enable JavaScript.</p>"
    more = "".join(
        f"<p>On day {day} the line carried {day * 731} people, and {day * 17} had bikes.</p>"
        for day in range(2, 20)
    )
    assert has_every_sentence(await scrape(page(TEXT + more + extra)))


REFRESH = {
    "meta": response('<meta http-equiv="refresh" content="0; url=/b"><p>Redirecting'),
    "meta in capitals": response("<META HTTP-EQUIV='Refresh' CONTENT='3;URL=\"/b\"'>"),
    "header": response("moved", "Refresh: 5; url=/b"),
}


@pytest.mark.parametrize("name", REFRESH)
async def test_a_page_that_refreshes_at_once_is_followed(name: str) -> None:
    async with origin_of() as (scraper, origin):
        origin.scripts |= {"/a": REFRESH[name], "/b": response(page())}
        found = await scraper.scrape_url(origin.url("/a"))
    assert found["url"] == origin.url("/b")


@pytest.mark.parametrize("content", ["300; url=/b", "0", "0; url=/a"])
async def test_a_page_that_reloads_itself_is_read(content: str) -> None:
    found = await scrape(page(head=f'<meta http-equiv="refresh" content="{content}">'))
    assert has_every_sentence(found)


async def test_a_refresh_into_the_inside_is_refused() -> None:
    """Contract 6: every hop is checked."""
    target = "http://169.254.169.254/latest"
    with pytest.raises(ScrapeFailed) as failure:
        await scrape(page(head=f'<meta http-equiv="refresh" content="0;url={target}">'))
    assert failure.value.code == "blocked_url"


async def test_a_cookie_lasts_for_one_fetch() -> None:
    async with origin_of() as (scraper, origin):
        moved = redirect("/b").replace(b"\r\n\r\n", b"\r\nSet-Cookie: seen=1; Path=/\r\n\r\n", 1)

        async def gated(exchange: Exchange) -> None:
            known = "Cookie: seen=1" in exchange.head
            await exchange.send(response(page()) if known else redirect("/a"))

        origin.scripts |= {"/a": moved, "/b": gated}
        assert has_every_sentence(await scraper.scrape_url(origin.url("/a")))
        await scraper.scrape_url(origin.url("/a"))
    assert ["Cookie" in head for head in origin.heads] == [False, True, False, True]


HTML_BYTES = page().encode()
BYTES = {
    "no type": response(page(), content_type=None),
    "octet-stream": response(page(), content_type="application/octet-stream"),
    "any type": response(page(), content_type="*/*"),
    "type twice": response(page(), content_type="text/html, text/html; charset=utf-8"),
    "html as plain": response(page(), content_type="text/plain"),
    "xhtml as xml": response('<?xml version="1.0"?>' + page(), content_type="application/xml"),
    "gzip untold": response(gzip.compress(HTML_BYTES)),
    "coding none": response(page(), "Content-Encoding: none"),
    "coding utf-8": response(page(), "Content-Encoding: utf-8"),
    "coding empty": response(page(), "Content-Encoding: "),
    "gzip said, not done": response(page(), "Content-Encoding: gzip"),
    "stray bytes": response(HTML_BYTES.replace(b"Monday", b"Monday \xa0\xff")),
    "utf-16 without a mark": response(page().encode("utf-16-le"), content_type="text/html"),
    "utf-16 with a mark": response(page().encode("utf-16"), content_type="text/html"),
}


@pytest.mark.parametrize("name", BYTES)
async def test_bytes_are_read_as_browsers_read_them(name: str) -> None:
    found = await scrape(BYTES[name])
    assert SENTENCES[1] in found["content"]
    assert found["title"] == TITLE


@pytest.mark.parametrize("packed", [False, True])
async def test_half_an_article_is_said_to_be_half(packed: bool) -> None:
    """Contract 1: `partial` where a body broke off."""
    body = gzip.compress(HTML_BYTES) if packed else HTML_BYTES
    half = body[: int(len(body) * 0.7)]
    headers = ("Content-Encoding: gzip",) if packed else ()
    found = await scrape(response(half, *headers, length=len(body)))
    assert found["partial"] is True
    assert SENTENCES[0] in found["content"]


async def test_a_body_that_breaks_off_before_the_article_is_a_lost_connection() -> None:
    with pytest.raises(ScrapeFailed) as failure:
        await scrape(response(b"<p>short", length=5_000))
    assert failure.value.code == "connect_failed"


KOREAN = (
    "이 노선은 폭풍이 다리를 휩쓸어 간 뒤 줄곧 닫혀 있었고 윗동네에는 버스 한 대만 남았다. " * 4
)


@pytest.mark.parametrize(
    ("label", "meta"),
    [("iso-8859-1", "euc-kr"), ("iso-8859-1", ""), ("", "euc-kr"), ("euc-kr", "")],
)
async def test_bytes_outweigh_a_header_that_says_latin_1(label: str, meta: str) -> None:
    """The WHATWG order, unless the bytes contradict it."""
    head = f'<meta charset="{meta}">' if meta else ""
    body = f"<html><head>{head}<title>x</title></head><p>{KOREAN}</p>".encode("euc-kr")
    kind = f"text/html; charset={label}" if label else "text/html"
    assert "휩쓸어" in (await scrape(response(body, content_type=kind)))["content"]


async def test_tracking_parameters_do_not_fetch_a_page_again() -> None:
    async with origin_of() as (scraper, origin):
        scraper.configure(allow_hosts=frozenset((origin.authority,)))
        origin.scripts |= {path: response(page()) for path in ("/a?id=1&utm_source=x", "/a?id=1")}
        await scraper.scrape_url(origin.url("/a?id=1&utm_source=x"))
        await scraper.scrape_url(origin.url("/a?id=1"))
        assert len(origin.heads) == 1
