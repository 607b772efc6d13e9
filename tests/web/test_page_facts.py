"""What the page weighs, what it loads, and whether anything jumps while words come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, Response, expect

from bench.page import WATCH
from tests.engines import ARTICLE, SUMMARY_TEXT, Gate, pieces_of
from tests.web.answering import ANSWER, SECTIONS, STYLED, AnsweringEngine
from tests.web.conftest import OpenPage, Serve
from tests.web.views import TWO_FRAMES, expect_state, send_message, summarize, write

MOST_BYTES = 100_000
WIDTHS = (375, 1440)
# As bench.page's, but shifts within half a second of an input count too: instead of waiting for
# that long, `settle` forgets what the input itself moved.
WATCH_ALL = """
window.shifts = [];
const note = (entries) => {
  for (const {value, sources, startTime} of entries) {
    const moved = sources.map(({node}) => node?.id || node?.className || node?.nodeName);
    window.shifts.push([Math.round(startTime), value, ...moved]);
  }
};
const observer = new PerformanceObserver((list) => note(list.getEntries()));
observer.observe({type: "layout-shift", buffered: true});
window.settle = () => {
  observer.takeRecords();
  window.shifts = [];
};
"""
# `wait_for_function` would need eval, which the page's policy forbids.
UNTIL = """([part, before]) => new Promise((go, fail) => {
  const began = performance.now();
  const look = () => {
    if (document.querySelector(part).innerText !== before) go();
    else if (performance.now() - began > 15_000) fail(new Error(`nothing new in ${part}`));
    else requestAnimationFrame(look);
  };
  look();
})"""


def stepped(text: str, steps: int) -> tuple[list[str | Gate], list[Gate]]:
    """Return a text in so many parts with a gate before each, and the gates."""
    parts = pieces_of(text, -(-len(text) // steps))
    gates = [Gate() for _ in parts]
    script: list[str | Gate] = []
    for gate, part in zip(gates, parts, strict=True):
        script += [gate, part]
    return script, gates


def stream(page: Page, gates: Sequence[Gate], shown: str) -> None:
    """Open one gate after the other, each once the words of the one before are on the screen."""
    for gate in gates:
        before = page.locator(shown).inner_text()
        gate.open()
        page.evaluate(UNTIL, [shown, before])
        page.evaluate(TWO_FRAMES)


def settle(page: Page, part: Locator) -> None:
    """Wait until a part runs and is painted; what moved until then was what the person did."""
    expect_state(part, "running")
    page.evaluate(TWO_FRAMES)
    page.evaluate("window.settle()")


def test_the_page_is_light_and_asks_nobody_else(serve: Serve, page: Page) -> None:
    """Under 100 kB with all its files, compressed, from this server only."""
    server = serve(AnsweringEngine())
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))
    page.goto(server.base, wait_until="networkidle")
    sizes = {response.url: response.request.sizes() for response in responses}
    total = sum(size["responseBodySize"] + size["responseHeadersSize"] for size in sizes.values())
    assert total < MOST_BYTES, f"{total} bytes"
    assert {urlsplit(url).netloc for url in sizes} == {urlsplit(server.base).netloc}
    assert all(response.status == 200 for response in responses)
    large = [one for one in responses if one.request.sizes()["responseBodySize"] > 1_000]
    for response in large:
        if not response.url.endswith("/"):
            assert response.headers["content-encoding"] == "gzip", response.url
        assert response.headers["x-content-type-options"] == "nosniff"


def test_no_script_blocks_the_page(serve: Serve, page: Page) -> None:
    """Modules only, none inline; everything that is loaded was announced in the head."""
    page.goto(serve(AnsweringEngine()).base, wait_until="networkidle")
    blocking = page.evaluate(
        """performance.getEntriesByType("resource").filter((entry) =>
             entry.name.endsWith(".js") && entry.renderBlockingStatus === "blocking"
           ).map((entry) => entry.name)"""
    )
    assert blocking == []
    assert page.locator("script:not([type=module]), script:not([src])").count() == 0
    assert page.locator("[style], style").count() == 0
    loaded = page.evaluate(
        "performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname)"
        ".filter((path) => path.endsWith('.js'))"
    )
    announced = page.locator("link[rel=modulepreload], script[src]").evaluate_all(
        "(nodes) => nodes.map((node) => new URL(node.href ?? node.src).pathname)"
    )
    assert sorted(set(loaded)) == sorted(announced)


def test_the_page_protects_itself_with_its_headers(serve: Serve) -> None:
    """No inline script or style, no foreign source, no sink of markup; files are asked for once."""
    server = serve(AnsweringEngine())
    for path in ("/", "/chat", "/write"):
        headers = server.get(path, headers={"Accept": "text/html"}).headers
        policy = dict(
            part.strip().split(" ", 1)
            for part in headers["content-security-policy"].split(";")
            if " " in part.strip()
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert policy["require-trusted-types-for"] == "'script'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    script = server.get("/assets/web/app.js")
    again = server.get("/assets/web/app.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304
    assert server.get("/assets/web/../docs/docs.js").status_code == 404


@pytest.mark.parametrize("path", ["/", "/chat", "/write"])
def test_nothing_jumps_while_the_page_loads(serve: Serve, open_page: OpenPage, path: str) -> None:
    """Cumulative layout shift 0; Indonesian words take the place of English ones once, in place."""
    server = serve(AnsweringEngine())
    for locale, most in (("en-US", 0.0), ("id-ID", 0.002)):
        page = open_page(locale=locale)
        page.add_init_script(WATCH)
        page.goto(server.base + path, wait_until="networkidle")
        page.evaluate(TWO_FRAMES)
        shifts = page.evaluate("window.shifts")
        assert sum(shift[1] for shift in shifts) <= most, shifts


@pytest.mark.parametrize("measure", [WATCH, WATCH_ALL], ids=["without input", "always"])
def test_a_jump_would_be_seen(serve: Serve, page: Page, measure: str) -> None:
    """The measures themselves can fail: something pushes the form down."""
    page.add_init_script(measure)
    page.goto(serve(AnsweringEngine()).base)
    page.evaluate(TWO_FRAMES)
    page.evaluate("document.querySelector('.lead').before(document.createElement('hr'))")
    page.evaluate(TWO_FRAMES)
    assert page.evaluate("window.shifts") != []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_jumps_while_a_summary_is_written(
    serve: Serve, open_page: OpenPage, width: int
) -> None:
    """Cumulative layout shift 0 from the first word to the last."""
    script, gates = stepped(SUMMARY_TEXT, 8)
    page = open_page(viewport={"width": width, "height": 800})
    page.add_init_script(WATCH_ALL)
    page.goto(serve(AnsweringEngine(summary=script)).base)
    card = summarize(page, ARTICLE)
    settle(page, card)
    stream(page, gates, "#card")
    expect_state(card, "done")
    page.evaluate(TWO_FRAMES)
    assert page.evaluate("window.shifts") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_jumps_while_a_chat_is_written(
    serve: Serve, open_page: OpenPage, width: int
) -> None:
    """Cumulative layout shift 0, also once the log is full and scrolls."""
    script, gates = stepped(ANSWER * 3, 8)
    engine = AnsweringEngine(chat=[ANSWER * 3])
    page = open_page(viewport={"width": width, "height": 800})
    page.add_init_script(WATCH_ALL)
    page.goto(f"{serve(engine).base}/chat")
    expect_state(send_message(page, "One"), "done")
    engine.chat = script
    answer = send_message(page, "Two")
    settle(page, answer)
    stream(page, gates, "#messages")
    expect_state(answer, "done")
    page.evaluate(TWO_FRAMES)
    assert page.evaluate("window.shifts") == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_jumps_while_an_article_is_written(
    serve: Serve, open_page: OpenPage, width: int
) -> None:
    """Cumulative layout shift 0 through outline, sections and style."""
    article, gates = stepped(STYLED, 6)
    outlined, sectioned = Gate(), Gate()
    engine = AnsweringEngine(
        outline=[outlined, json.dumps({"sections": SECTIONS})], article=article
    )
    engine.section = [sectioned, *engine.section]
    page = open_page(viewport={"width": width, "height": 800})
    page.add_init_script(WATCH_ALL)
    page.goto(f"{serve(engine).base}/write")
    job = write(page, "Electric ferries")
    settle(page, job)
    stream(page, [outlined, sectioned], "#job")
    expect(page.locator("#sections li[data-state=done]")).to_have_count(3)
    stream(page, gates, "#job")
    expect_state(job, "done")
    page.evaluate(TWO_FRAMES)
    assert page.evaluate("window.shifts") == []
