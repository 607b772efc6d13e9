"""Articles and models that attack the page: nothing runs, nothing is loaded, the layout holds."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.engines import ARTICLE, SUMMARY
from tests.services.origin import article_html
from tests.web.answering import AnsweringEngine
from tests.web.conftest import OpenPage, Serve
from tests.web.views import expect_state, send_message, site, summarize, wide_by, write

PHONE = {"width": 375, "height": 740}
SCRIPT = "<script>window.owned = 1</script>"
IMAGE = "<img src=x onerror='window.owned = 2'>"
MARKUP = f"{SCRIPT}{IMAGE}<iframe srcdoc='<script>parent.owned = 3</script>'></iframe><b>bold</b>"
LINKS = (
    "[a](javascript:window.owned=4) [b](data:text/html,<script>1</script>) "
    "[c](vbscript:x) ![d](https://evil.example/pixel.png) ![e](data:image/svg+xml,<svg/>) "
    "[f](JaVaScRiPt&#58;window.owned=5) [g](  javascript:window.owned=6  ) [h](//evil.example) "
    '<javascript:window.owned=7> <https://fine.example/?q="onmouseover=alert(1)>'
)
RIGHT_TO_LEFT = "\u202egnp.exe\u202c \u2066\u202b"
LONG = "W" * 100_000
HOSTILE = (
    f"{MARKUP}\n\n{LINKS}\n\n{RIGHT_TO_LEFT}\n\n> {MARKUP}\n\n| {IMAGE} |\n|---|\n| {SCRIPT} |"
)
# What must not be there with content of the model's: elements that load or run, handlers.
BAD = """(parts) => parts.flatMap((part) => [...part.querySelectorAll("*")]).filter((node) =>
  /^(script|iframe|img|object|embed|svg|style|link|form|b)$/i.test(node.nodeName)
  || [...node.attributes].some(({name}) => /^(on.*|style|srcdoc)$/.test(name))
).map((node) => node.outerHTML.slice(0, 200))"""
HREFS = """(parts) => parts.flatMap((part) => [...part.querySelectorAll("a[href]")])
  .map((link) => link.href)"""
# Texts that may hold marks of direction, which must not reach beyond them.
TEXTS = """#card-title, #card-summary, #card-points > li, #card-category, .entries a,
  .message .text, #job-topic, #sections > li, #article"""
ISOLATION = "(nodes) => nodes.map((node) => getComputedStyle(node).unicodeBidi)"
# Where strangers' words stand.
PARTS = "#card, #history, #messages, #job, #jobs"


def hostile_summary() -> str:
    """Return a summary whose every field attacks, in the lengths that the schema allows."""
    summary = {
        "title": (SCRIPT + IMAGE + RIGHT_TO_LEFT)[:120],
        "main_summary": (MARKUP + LINKS + RIGHT_TO_LEFT + "W" * 400)[:1200],
        "key_points": [MARKUP[:240], LINKS[:240], "W" * 240],
        "category": (IMAGE + RIGHT_TO_LEFT)[:40],
        "sentiment": "neutral",
        "read_time_min": 1,
    }
    return json.dumps(summary, ensure_ascii=False)


def expect_harmless(page: Page) -> None:
    """Assert that what strangers wrote runs nothing, loads nothing, and leads to the web only."""
    parts = page.locator(PARTS)
    assert parts.evaluate_all(BAD) == []
    for href in parts.evaluate_all(HREFS):
        assert href.startswith(("http://", "https://")), href
    isolation = page.locator(TEXTS).evaluate_all(ISOLATION)
    assert set(isolation) <= {"isolate", "plaintext"}
    assert page.evaluate("window.owned") is None
    assert wide_by(page) <= 0


@pytest.fixture
def phone(open_page: OpenPage) -> Page:
    """A narrow page: what is too wide shows here."""
    return open_page(viewport=PHONE)


def test_a_hostile_summary_is_only_text(serve: Serve, phone: Page) -> None:
    """Pitfall: pages inserted model output with innerHTML."""
    phone.goto(serve(AnsweringEngine(summary=[hostile_summary()])).base)
    expect_state(summarize(phone, ARTICLE), "done")
    expect(phone.locator("#card-title")).to_contain_text(SCRIPT)
    expect(phone.locator("#card-points > li").first).to_contain_text("<iframe")
    expect_harmless(phone)
    phone.reload()
    expect_state(phone.locator("#card"), "done")
    expect_harmless(phone)


def test_a_hostile_page_is_only_text(serve: Serve, phone: Page) -> None:
    """Title, author and site of a page are strangers' text as well, and may be endless."""
    head = (
        f'<title>{LONG[:3000]}</title><meta property="og:site_name" content="{LONG[:3000]}">'
        '<meta name="author" content="&lt;img src=x onerror=window.owned=8&gt;">'
        '<meta property="article:published_time" content="&lt;script&gt;">'
    )
    with site((200, article_html(head=head))) as news:
        phone.goto(serve(AnsweringEngine(), fetch_allow_hosts=(news.authority,)).base)
        expect_state(summarize(phone, f"{news.url}?{'a' * 1500}"), "done")
    expect_harmless(phone)


def test_a_hostile_answer_is_only_text(serve: Serve, phone: Page) -> None:
    """Markdown is built as nodes: no raw HTML, no picture of another host, web links only."""
    phone.goto(f"{serve(AnsweringEngine(chat=[HOSTILE])).base}/chat")
    answer = send_message(phone, f"{MARKUP} {RIGHT_TO_LEFT}")
    expect_state(answer, "done")
    expect(answer.locator(".text")).to_contain_text(SCRIPT)
    expect_harmless(phone)
    expect(answer.locator(".text").get_by_role("link")).not_to_have_count(0)
    for link in answer.locator(".text a").all():
        assert "noopener" in (link.get_attribute("rel") or "")
    phone.reload()
    expect(answer.locator(".text")).to_contain_text(SCRIPT)
    expect_harmless(phone)


def test_a_hostile_article_is_only_text(serve: Serve, phone: Page) -> None:
    """Topic, outline, sections and article are all strangers' text."""
    titles = [MARKUP[:100], IMAGE, RIGHT_TO_LEFT + SCRIPT]
    engine = AnsweringEngine(outline=[json.dumps({"sections": titles})], article=[HOSTILE])
    phone.goto(f"{serve(engine).base}/write")
    expect_state(write(phone, f"{SCRIPT} {IMAGE}"), "done")
    expect(phone.locator("#article")).to_contain_text(SCRIPT)
    expect_harmless(phone)
    phone.reload()
    expect_state(phone.locator("#job"), "done")
    expect_harmless(phone)


ENDLESS = {
    "one word of 100 kB": LONG,
    "a heading of 100 kB": "# " + LONG,
    "code of 100 kB": f"`{LONG}`",
    "a code block of 100 kB": f"```\n{LONG}\n```",
    "a table of 100 kB": f"| {LONG} |\n|---|\n| x |",
    "a link of 15 kB": "https://fine.example/" + LONG[:15_000],
    "5,000 lists in each other": "- " * 5_000 + "x",
    "20,000 quotes in each other": "> " * 20_000 + "x",
}
# Each was chosen against a pattern that is known to backtrack, or to be searched for again and
# again from every place.
SLOW = {
    "heading": "# a" + " " * 5_000 + "b",
    "table rule": "|\n-" + " " * 50_000 + "x",
    "rule": "* " * 20_000 + "x",
    "brackets": "[" * 19_000,
    "pictures": "![](" * 4_900,
    "emphasis": "**a " * 4_900,
    "mixed emphasis": "*a_b~~" * 3_000,
    "code": "`" + " x" * 9_000 + "`",
    "one space before code": "` " + "x" * 19_000 + "`",
    "angle": "<https://" + "a" * 19_000,
    "lists": "\n".join("- " + " " * n + "x" for n in range(300)),
    "backslashes": "\\" * 100_000,
}
# Of CPU time: all that the page's thread did for one answer.
MOST_CPU_S = 2.0


def test_endless_text_does_not_break_the_layout(serve: Serve, phone: Page) -> None:
    """No horizontal scrolling at 375 pixels, whatever comes."""
    engine = AnsweringEngine()
    phone.goto(f"{serve(engine).base}/chat")
    too_wide = []
    for name, text in ENDLESS.items():
        engine.chat = [text]
        answer = send_message(phone, LONG[:5_000])
        expect_state(answer, "done")
        expect(answer.locator(".text")).not_to_be_empty()
        if wide_by(phone) > 0:
            too_wide.append(name)
        phone.get_by_role("button", name="New chat", exact=True).click()
    assert too_wide == []


def test_no_text_can_freeze_the_page(serve: Serve, phone: Page) -> None:
    """A pattern that backtracks for minutes would hang the tab of whoever asked."""
    engine = AnsweringEngine()
    phone.goto(f"{serve(engine).base}/chat")
    inspector = phone.context.new_cdp_session(phone)
    inspector.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu_s() -> float:
        metrics = inspector.send("Performance.getMetrics")["metrics"]
        return next(one["value"] for one in metrics if one["name"] == "TaskDuration")

    frozen_s = {}
    for name, text in SLOW.items():
        engine.chat = [text]
        before_s = cpu_s()
        answer = send_message(phone, name)
        expect_state(answer, "done")
        expect(answer.locator(".text")).not_to_be_empty()
        spent_s = cpu_s() - before_s
        if spent_s > MOST_CPU_S:
            frozen_s[name] = spent_s
        phone.get_by_role("button", name="New chat", exact=True).click()
    assert frozen_s == {}


def test_a_stranger_s_link_cannot_start_anything(serve: Serve, page: Page) -> None:
    """An address may fill the form; it is sent by hand."""
    engine = AnsweringEngine()
    page.goto(
        f"{serve(engine).base}/?text=<img src=x onerror=window.owned=9>&url=javascript:alert(1)"
    )
    expect(page.locator("#card")).to_be_hidden()
    assert page.evaluate("window.owned") is None
    assert not engine.requests
    assert str(SUMMARY["title"]) not in (page.locator("main").text_content() or "")
