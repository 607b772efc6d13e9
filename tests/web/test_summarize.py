"""The view that summarizes, in a real browser against a real server with a scripted engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.engine.base import Status
from tests.engines import ARTICLE, SUMMARY, SUMMARY_TEXT, Gate
from tests.servers import until
from tests.services.origin import article_html
from tests.web.answering import AnsweringEngine, held
from tests.web.conftest import OpenPage, Serve, Watch
from tests.web.views import expect_state, expect_summary, parameter, site, summarize

AFTER_TITLE = SUMMARY_TEXT.index("main_summary") + 20
HEAD = (
    '<meta property="og:site_name" content="Island News"><meta name="author" content="Ana Prita">'
    '<meta property="article:published_time" content="2026-03-04T08:00:00Z">'
)
DROP = """([form, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([text], "story.txt", {type: "text/plain"}));
  for (const name of ["dragover", "drop"]) {
    const options = {dataTransfer: data, bubbles: true, cancelable: true};
    form.dispatchEvent(new DragEvent(name, options));
  }
}"""


def test_a_text_becomes_a_whole_card(serve: Serve, page: Page) -> None:
    """C3, S0.10: every field, who wrote it, a history entry; nothing is busy afterwards."""
    server = serve(AnsweringEngine())
    page.goto(server.base)
    expect(page.locator("#card")).to_be_hidden()
    card = summarize(page, ARTICLE)
    expect_state(card, "done")
    expect_summary(page)
    expect(card).to_have_attribute("aria-busy", "false")
    expect(page.locator("#card-engine")).to_contain_text("script-1")
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#retry")).to_be_hidden()
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history li")).to_contain_text(str(SUMMARY["title"]))


def test_the_chosen_style_is_what_the_engine_is_asked_for(serve: Serve, page: Page) -> None:
    """C14: the radio buttons are the styles."""
    engine = AnsweringEngine()
    page.goto(serve(engine).base)
    page.locator("#summarize-form label", has=page.locator("[value=eli5]")).click()
    expect_state(summarize(page, ARTICLE), "done")
    assert engine.requests[0].style == "eli5"


def test_fields_appear_while_the_rest_is_written(serve: Serve, page: Page) -> None:
    """S0.4: the title and the first words stand there before the object is complete."""
    gate = Gate()
    page.goto(serve(AnsweringEngine(summary=held(SUMMARY_TEXT, gate, after=AFTER_TITLE))).base)
    card = summarize(page, ARTICLE)
    expect(page.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    expect_state(card, "running")
    expect(card).to_have_attribute("aria-busy", "true")
    expect(page.locator("#card-points > li")).to_have_count(0)
    expect(page.locator("#stop")).to_be_visible()
    begun = page.locator("#card-summary").text_content() or ""
    assert str(SUMMARY["main_summary"]).startswith(begun)
    assert begun != SUMMARY["main_summary"]
    gate.open()
    expect_state(card, "done")
    expect_summary(page)


def test_a_link_is_read_and_its_source_is_named(serve: Serve, page: Page) -> None:
    """C3: site, author, date; the name is a link to the page."""
    with site((200, article_html(head=HEAD))) as news:
        page.goto(serve(AnsweringEngine(), fetch_allow_hosts=(news.authority,)).base)
        expect_state(summarize(page, news.url), "done")
    source = page.locator("#card-source")
    expect(source).to_contain_text("Island News")
    expect(source).to_contain_text("Ana Prita")
    expect(source).to_contain_text("2026")
    link = source.get_by_role("link")
    expect(link).to_have_attribute("href", news.url)
    assert "noopener" in (link.get_attribute("rel") or "")


def test_a_dropped_file_fills_the_form(serve: Serve, page: Page) -> None:
    """A text file is read in the browser and sent as text."""
    engine = AnsweringEngine()
    page.goto(serve(engine).base)
    page.evaluate(DROP, [page.locator("#summarize-form").element_handle(), ARTICLE])
    expect(page.locator("#source")).to_have_value(ARTICLE)
    page.get_by_role("button", name="Summarize", exact=True).click()
    expect_summary(page)
    assert ARTICLE.strip() in engine.requests[0].messages[-1].content


def test_an_opened_file_fills_the_form_and_a_binary_one_is_refused(
    serve: Serve, page: Page, tmp_path: Path
) -> None:
    """The markup of a saved page is left out; what is no text is told."""
    page.goto(serve(AnsweringEngine()).base)
    saved = tmp_path / "saved.html"
    saved.write_text(f"<html><script>alert(1)</script><p>{ARTICLE}</p></html>", encoding="utf-8")
    page.locator("#file").set_input_files(saved)
    expect(page.locator("#source")).to_have_value(ARTICLE.strip())
    binary = tmp_path / "picture.txt"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00")
    page.locator("#file").set_input_files(binary)
    expect(page.locator("#source-error")).to_contain_text("not a text")


def test_an_example_can_be_summarized_at_once(serve: Serve, page: Page) -> None:
    """Who has no text at hand sees in two clicks what the page does."""
    page.goto(serve(AnsweringEngine()).base)
    page.get_by_role("button", name="Try an example", exact=True).click()
    page.get_by_role("button", name="Summarize", exact=True).click()
    expect_state(page.locator("#card"), "done")


def test_a_text_that_is_too_short_is_told_before_anything_is_asked(
    serve: Serve, page: Page
) -> None:
    """Contract 1: 50 characters; the field is marked and keeps the focus."""
    engine = AnsweringEngine()
    page.goto(serve(engine).base)
    card = summarize(page, "Too short.")
    expect(page.get_by_role("alert").filter(has_text="50 characters")).to_be_visible()
    expect(page.locator("#source")).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#source")).to_be_focused()
    expect(card).to_be_hidden()
    page.locator("#source").press_sequentially("more")
    expect(page.locator("#source-error")).to_be_empty()
    assert not engine.requests


def test_stop_ends_the_generation_and_says_so(serve: Serve, page: Page) -> None:
    """S1.25: the model stops, the server has no session left, what was written stays."""
    engine = AnsweringEngine(summary=held(SUMMARY_TEXT, Gate(), after=AFTER_TITLE))
    server = serve(engine)
    page.goto(server.base)
    card = summarize(page, ARTICLE)
    expect(page.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    page.get_by_role("button", name="Stop", exact=True).click()
    expect_state(card, "stopped")
    expect(card).to_have_attribute("aria-busy", "false")
    expect(page.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    assert engine.closed_early.wait(10)
    until(lambda: server.get("/health").json()["sessions"] == 0)


def test_the_place_in_the_queue_is_shown(serve: Serve, page: Page) -> None:
    """Contract 1: status events of the field-by-field form."""
    gate = Gate()
    script = [Status("queued", position=2), gate, Status("reading"), SUMMARY_TEXT]
    page.goto(serve(AnsweringEngine(summary=script)).base)
    card = summarize(page, ARTICLE)
    expect(page.locator("#stage")).to_contain_text("place 2")
    expect(page.locator("#announcer")).to_contain_text("place 2")
    gate.open()
    expect_state(card, "done")


def test_a_summary_is_copied_and_downloaded(serve: Serve, page: Page) -> None:
    """Markdown holds every field; JSON is the object itself."""
    page.goto(serve(AnsweringEngine()).base)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect_state(summarize(page, ARTICLE), "done")
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("#notice")).to_contain_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    with page.expect_download() as download:
        page.get_by_role("button", name="Markdown", exact=True).click()
    assert download.value.suggested_filename == "harbour-bridge-opens.md"
    markdown = download.value.path().read_text(encoding="utf-8")
    assert markdown.strip() == copied.strip()
    assert markdown.startswith(f"# {SUMMARY['title']}\n\n{SUMMARY['main_summary']}\n")
    assert all(f"- {point}\n" in markdown for point in SUMMARY["key_points"])
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON", exact=True).click()
    assert json.loads(download.value.path().read_text(encoding="utf-8")) == SUMMARY


def test_share_falls_back_to_copying(serve: Serve, page: Page) -> None:
    """A browser without a share sheet copies instead."""
    page.goto(serve(AnsweringEngine()).base)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate("Object.defineProperty(navigator, 'share', {value: undefined})")
    expect_state(summarize(page, ARTICLE), "done")
    page.get_by_role("button", name="Share", exact=True).click()
    expect(page.locator("#notice")).to_contain_text("Copied")
    assert str(SUMMARY["title"]) in page.evaluate("navigator.clipboard.readText()")


def test_a_blocked_address_is_told_with_its_reason(serve: Serve, page: Page) -> None:
    """Contract 6: the server's own words, and a way to try again."""
    page.goto(serve(AnsweringEngine()).base)
    card = summarize(page, "http://169.254.169.254/latest/meta-data")
    expect_state(card, "failed")
    expect(page.locator("#card-error")).to_contain_text("public web site")
    expect(page.get_by_role("button", name="Try again", exact=True)).to_be_visible()
    expect(page.locator("#copy")).to_be_hidden()


def test_try_again_asks_for_the_same_page_again(serve: Serve, page: Page) -> None:
    """A page that was down for a moment."""
    with site((500, "down"), (200, article_html())) as news:
        page.goto(serve(AnsweringEngine(), fetch_allow_hosts=(news.authority,)).base)
        card = summarize(page, news.url)
        expect_state(card, "failed")
        page.get_by_role("button", name="Try again", exact=True).click()
        expect_state(card, "done")
    expect_summary(page)
    expect(page.locator("#card-error")).to_be_empty()


def test_a_full_server_is_told_with_the_time_to_wait(
    serve: Serve, page: Page, watch: Watch
) -> None:
    """S1.26, 429: the message and Retry-After reach the person."""
    watch.expects(r"status of 429 .*/stream-ndjson")
    gate = Gate()
    server = serve(AnsweringEngine(summary=[gate]), max_concurrent_generations=1, max_queue=0)
    page.goto(server.base)
    with server.client() as client:
        body = {"text": ARTICLE + "Another.", "use_cache": False}
        path = "/api/v4/scrape-and-summarize/stream-ndjson"
        with client.stream("POST", path, json=body):
            card = summarize(page, ARTICLE)
            expect_state(card, "failed")
            expect(page.locator("#card-error")).to_contain_text("Try again in")
            gate.open()


def test_no_time_to_wait_is_invented(serve: Serve, page: Page, watch: Watch) -> None:
    """Only what the server sent: without Retry-After, its message and nothing else."""
    watch.expects(r"status of 429 .*/stream-ndjson")
    full = {"detail": "as many as it can", "code": "overloaded"}
    page.route("**/stream-ndjson", lambda route: route.fulfill(status=429, json=full))
    page.goto(serve(AnsweringEngine()).base)
    expect_state(summarize(page, ARTICLE), "failed")
    expect(page.locator("#card-error")).to_have_text("as many as it can")


@pytest.mark.parametrize(
    ("code", "state", "shown"),
    [("cancelled", "stopped", ""), ("new_code", "failed", "the session was cancelled")],
)
def test_an_error_is_known_by_its_code_and_not_by_its_words(
    serve: Serve, page: Page, code: str, state: str, shown: str
) -> None:
    """The message is for people: an unknown code shows it."""
    last = {"delta": None, "state": None, "done": True, "tokens_used": 0}
    last |= {"error": "the session was cancelled", "code": code}
    event = f"id: mine:0\ndata: {json.dumps(last)}\n\n"
    page.route(
        "**/stream-ndjson",
        lambda route: route.fulfill(body=event, content_type="text/event-stream"),
    )
    page.goto(serve(AnsweringEngine()).base)
    expect_state(summarize(page, ARTICLE), state)
    expect(page.locator("#card-error")).to_have_text(shown)


def test_a_stop_is_known_in_other_tabs_and_after_a_reload(
    serve: Serve, open_page: OpenPage
) -> None:
    """The last event of a summary says only in words why it ended, so the browser remembers."""
    engine = AnsweringEngine(summary=held(SUMMARY_TEXT, Gate(), after=AFTER_TITLE))
    first = open_page(serve(engine).base)
    summarize(first, ARTICLE)
    expect(first.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    second = first.context.new_page()
    second.goto(first.url)
    expect(second.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    first.get_by_role("button", name="Stop", exact=True).click()
    for page in (first, second):
        expect_state(page.locator("#card"), "stopped")
        expect(page.locator("#card-error")).to_be_empty()
    second.reload()
    expect_state(second.locator("#card"), "stopped")
    expect(second.locator("#retry")).to_be_visible()


def test_history_survives_a_reload_and_a_server_that_forgot(
    serve: Serve, page: Page, watch: Watch
) -> None:
    """What was made stays in the browser, newest first, also when the session is gone."""
    watch.expects(r"status of 404 .*/events")
    server = serve(AnsweringEngine(), sessions_ttl_seconds=0.5)
    page.goto(server.base)
    card = summarize(page, ARTICLE)
    expect_state(card, "done")
    session = parameter(page, "session")
    second = SUMMARY_TEXT.replace("Harbour bridge opens", "Second of two")
    server.app.state.services().engine.inner.summary = [second]
    summarize(page, ARTICLE + "More of it.")
    expect(page.locator("#card-title")).to_have_text("Second of two")
    expect_state(card, "done")
    until(lambda: server.get(f"/api/sessions/{session}/events").status_code == 404)
    page.goto(f"{server.base}/?session={session}")
    expect_state(card, "done")
    expect_summary(page)
    titles = page.locator("#history li")
    expect(titles).to_contain_text(["Second of two", str(SUMMARY["title"])])
    titles.first.get_by_text("Second of two").click()
    expect(page.locator("#card-title")).to_have_text("Second of two")
    titles.first.get_by_role("button", name="Delete").click()
    expect(titles).to_contain_text([str(SUMMARY["title"])])
    page.get_by_role("button", name="Clear history", exact=True).click()
    expect(titles).to_have_count(0)
    page.reload()
    expect(titles).to_have_count(0)


def test_a_link_to_a_session_shows_it_elsewhere(serve: Serve, open_page: OpenPage) -> None:
    """Contract 3: the address is enough, one generation."""
    engine = AnsweringEngine()
    server = serve(engine)
    first = open_page(server.base)
    expect_state(summarize(first, ARTICLE), "done")
    second = open_page(first.url)
    expect_state(second.locator("#card"), "done")
    expect_summary(second)
    assert len(engine.requests) == 1


def test_a_session_that_nobody_knows_is_told(serve: Serve, page: Page, watch: Watch) -> None:
    """404: no endless reconnecting."""
    watch.expects(r"status of 404 .*/events")
    page.goto(f"{serve(AnsweringEngine()).base}/?session=nobody-knows-it")
    expect_state(page.locator("#card"), "failed")
    expect(page.locator("#card-error")).not_to_be_empty()
    expect(page.locator("#card-title")).to_be_empty()
