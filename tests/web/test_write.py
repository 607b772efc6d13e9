"""The view that has articles written, in a real browser against real jobs."""

from __future__ import annotations

import json

from playwright.sync_api import Page, Route, expect

from app.core.errors import GenerationFailed
from tests.engines import Gate
from tests.servers import until
from tests.web.answering import SECTION_TEXT, SECTIONS, STYLED, AnsweringEngine, held
from tests.web.conftest import Connect, OpenPage, Serve, Watch
from tests.web.test_breaks import LOST
from tests.web.views import expect_state, parameter, write

TOPIC = "Electric ferries"
IN_THE_ARTICLE = STYLED.index("A ferry can") + 20
# Notes every value that the bar is given, before the page's own scripts run.
WATCH_PROGRESS = """
window.progressSeen = [];
addEventListener("DOMContentLoaded", () => {
  const bar = document.getElementById("progress");
  const note = () => window.progressSeen.push(bar.value);
  new MutationObserver(note).observe(bar, {attributes: true, attributeFilter: ["value"]});
});
"""


def expect_article(page: Page) -> None:
    """Wait until the whole article stands there, as elements."""
    article = page.locator("#article")
    expect(article.locator("strong")).to_have_text("dear")
    expect(article.locator("li")).to_have_text(["a cable", "a transformer"])
    expect(article.locator("a")).to_have_attribute("href", "https://example.org/ferry")
    for title in SECTIONS:
        expect(article.get_by_role("heading", name=title)).to_be_visible()


def expect_steps(page: Page, *states: str) -> None:
    """Wait until outline, sections and style are in these states."""
    for name, state in zip(("outline", "content", "style"), states, strict=True):
        expect_state(page.locator(f"#steps li[data-step={name}]"), state)


def test_a_topic_becomes_an_article_step_by_step(serve: Serve, page: Page) -> None:
    """S3.1, S3.11: outline, then sections, then style; progress never goes back."""
    outlined, sectioned, styled = Gate(), Gate(), Gate()
    engine = AnsweringEngine(
        outline=[outlined, json.dumps({"sections": SECTIONS})],
        section=[sectioned, SECTION_TEXT],
        article=held(STYLED, styled, after=IN_THE_ARTICLE),
    )
    page.add_init_script(WATCH_PROGRESS)
    page.goto(f"{serve(engine).base}/write")
    expect(page.locator("#job")).to_be_hidden()
    job = write(page, TOPIC)
    expect_state(job, "running")
    expect_steps(page, "active", "waiting", "waiting")
    outlined.open()
    expect_steps(page, "done", "active", "waiting")
    expect(page.locator("#sections li")).to_have_text(SECTIONS)
    expect(page.locator("#sections li[data-state=waiting]")).to_have_count(3)
    sectioned.open()
    expect(page.locator("#sections li[data-state=done]")).to_have_count(3)
    expect_steps(page, "done", "done", "active")
    expect(page.locator("#article")).to_contain_text("A ferry can")
    styled.open()
    expect_state(job, "done")
    expect_article(page)
    expect_steps(page, "done", "done", "done")
    expect(page.locator("#progress")).to_have_js_property("value", 100)
    expect(page.locator("#cancel")).to_be_hidden()
    seen = page.evaluate("window.progressSeen")
    assert len(set(seen)) >= 4
    assert seen == sorted(seen)


def test_an_example_fills_the_topic(serve: Serve, page: Page) -> None:
    """Who has no topic at hand gets one, and an empty one is refused."""
    page.goto(f"{serve(AnsweringEngine()).base}/write")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.locator("#topic-error")).to_contain_text("topic")
    expect(page.get_by_label("Topic", exact=True)).to_be_focused()
    example = page.locator(".example").first
    topic = example.text_content() or ""
    example.click()
    expect(page.get_by_label("Topic", exact=True)).to_have_value(topic)
    expect(page.locator("#topic-error")).to_be_empty()


def test_an_article_is_copied_and_downloaded(serve: Serve, page: Page) -> None:
    """S3.5: the Markdown as the model wrote it."""
    page.goto(f"{serve(AnsweringEngine()).base}/write")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect_state(write(page, TOPIC), "done")
    page.locator("#article-copy").click()
    expect(page.locator("#notice")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == STYLED
    with page.expect_download() as download:
        page.locator("#article-md").click()
    assert download.value.suggested_filename.endswith(".md")
    assert download.value.path().read_text(encoding="utf-8").strip() == STYLED


def test_cancel_ends_the_job_and_the_model(serve: Serve, page: Page) -> None:
    """Contract 4: DELETE; what was written stays to be read."""
    engine = AnsweringEngine(article=held(STYLED, Gate(), after=IN_THE_ARTICLE))
    server = serve(engine)
    page.goto(f"{server.base}/write")
    job = write(page, TOPIC)
    expect(page.locator("#article")).to_contain_text("A ferry can")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect_state(job, "stopped")
    expect(page.locator("#article")).to_contain_text("A ferry can")
    assert engine.closed_early.wait(10)
    until(lambda: server.get("/health").json()["sessions"] == 0)


def test_cancel_before_the_server_has_answered_is_not_forgotten(serve: Serve, page: Page) -> None:
    """The job is cancelled as soon as it has an id."""
    server = serve(AnsweringEngine(outline=["{", Gate()]))
    asked: list[Route] = []
    page.route("**/start-job", lambda route: asked.append(route))
    page.goto(f"{server.base}/write")
    with page.expect_request("**/start-job"):
        job = write(page, TOPIC)
    page.get_by_role("button", name="Cancel", exact=True).click()
    asked[0].continue_()
    expect_state(job, "stopped")
    until(lambda: server.get("/health").json()["sessions"] == 0)


def test_a_reloaded_job_goes_on_and_is_written_once(serve: Serve, page: Page) -> None:
    """Contract 4: jobs survive a page reload."""
    styled = Gate()
    engine = AnsweringEngine(article=held(STYLED, styled, after=IN_THE_ARTICLE))
    page.goto(f"{serve(engine).base}/write")
    write(page, TOPIC)
    expect(page.locator("#article")).to_contain_text("A ferry can")
    name = parameter(page, "job")
    page.reload()
    expect(page.locator("#article")).to_contain_text("A ferry can")
    expect(page.locator("#job-topic")).to_have_text(TOPIC)
    expect_steps(page, "done", "done", "active")
    assert parameter(page, "job") == name
    styled.open()
    expect_state(page.locator("#job"), "done")
    expect_article(page)
    assert len(engine.requests) == 5


def test_a_cut_connection_loses_nothing_of_a_job(
    serve: Serve, page: Page, watch: Watch, connect: Connect
) -> None:
    """Contract 3 for jobs: Last-Event-ID, no word twice."""
    watch.expects(LOST)
    styled = Gate()
    engine = AnsweringEngine(article=held(STYLED, styled, after=IN_THE_ARTICLE))
    wire = connect(serve(engine))
    page.goto(f"{wire.base}/write")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    job = write(page, TOPIC)
    expect(page.locator("#article")).to_contain_text("A ferry can")
    wire.cut()
    expect(page.locator("#notice")).to_contain_text("Connection lost. Reconnecting…")
    with page.expect_request(lambda request: "/progress/" in request.url) as resumed:
        wire.mend()
    assert resumed.value.all_headers()["last-event-id"].startswith(parameter(page, "job"))
    styled.open()
    expect_state(job, "done")
    expect_article(page)
    assert len(engine.requests) == 5


def test_two_jobs_at_once_do_not_mix(serve: Serve, page: Page) -> None:
    """S3.6: the second is shown, the first goes on and is opened from the list."""
    styled = Gate()
    engine = AnsweringEngine(article=held(STYLED, styled, after=IN_THE_ARTICLE))
    page.goto(f"{serve(engine, max_concurrent_generations=4).base}/write")
    write(page, "The first topic")
    expect(page.locator("#article")).to_contain_text("A ferry can")
    first = parameter(page, "job")
    write(page, "The second topic")
    expect(page.locator("#job-topic")).to_have_text("The second topic")
    expect(page.locator("#article")).to_contain_text("A ferry can")
    assert parameter(page, "job") != first
    expect(page.locator("#jobs li")).to_contain_text(["The second topic", "The first topic"])
    styled.open()
    expect_state(page.locator("#job"), "done")
    page.locator("#jobs li").get_by_text("The first topic").click()
    expect(page.locator("#job-topic")).to_have_text("The first topic")
    expect_state(page.locator("#job"), "done")
    expect_article(page)
    assert parameter(page, "job") == first


def test_a_link_to_a_job_shows_it_elsewhere(serve: Serve, open_page: OpenPage) -> None:
    """The address is enough, running or done; one job."""
    styled = Gate()
    engine = AnsweringEngine(article=held(STYLED, styled, after=IN_THE_ARTICLE))
    first = open_page(f"{serve(engine).base}/write")
    write(first, TOPIC)
    expect(first.locator("#article")).to_contain_text("A ferry can")
    second = open_page(first.url)
    expect(second.locator("#job-topic")).to_have_text(TOPIC)
    expect(second.locator("#article")).to_contain_text("A ferry can")
    styled.open()
    for page in (first, second):
        expect_state(page.locator("#job"), "done")
        expect_article(page)
    assert len(engine.requests) == 5


def test_an_article_outlives_the_servers_memory_of_it(
    serve: Serve, page: Page, watch: Watch
) -> None:
    """The browser's copy is shown when the server has forgotten the job."""
    watch.expects(r"status of 404 .*/progress/")
    server = serve(AnsweringEngine(), sessions_ttl_seconds=0.5)
    page.goto(f"{server.base}/write")
    expect_state(write(page, TOPIC), "done")
    job = parameter(page, "job")
    until(lambda: server.get(f"/jobs/{job}").status_code == 404)
    page.reload()
    expect_state(page.locator("#job"), "done")
    expect(page.locator("#job-topic")).to_have_text(TOPIC)
    expect_article(page)


def test_a_job_that_nobody_knows_is_told(serve: Serve, page: Page, watch: Watch) -> None:
    """404: no endless reconnecting."""
    watch.expects(r"status of 404 .*/progress/")
    page.goto(f"{serve(AnsweringEngine()).base}/write?job=nobody-knows-it")
    expect_state(page.locator("#job"), "failed")
    expect(page.locator("#job-error")).not_to_be_empty()


def test_a_section_that_fails_ends_the_job_with_its_reason(serve: Serve, page: Page) -> None:
    """The outline stays, the error is told, and it can be tried again."""
    engine = AnsweringEngine()
    engine.section = [SECTION_TEXT, GenerationFailed("the model broke")]
    page.goto(f"{serve(engine).base}/write")
    job = write(page, TOPIC)
    expect_state(job, "failed")
    expect(page.locator("#job-error")).to_contain_text("the model broke")
    expect(page.locator("#sections li")).to_have_text(SECTIONS)
    engine.section = [SECTION_TEXT]
    page.locator("#job-retry").click()
    expect_state(job, "done")
    expect_article(page)
    expect(page.locator("#job-error")).to_be_empty()


def test_a_server_without_a_model_says_how_to_get_one(
    serve: Serve, page: Page, watch: Watch
) -> None:
    """C19, 503: the reason and the settings that help."""
    watch.expects(r"status of 503 .*/start-job")
    page.goto(f"{serve(AnsweringEngine(out_of_order='there is none')).base}/write")
    job = write(page, TOPIC)
    expect_state(job, "failed")
    expect(page.locator("#job-error")).to_contain_text("ENGINE_URL")
    expect(page.locator("#jobs li")).to_have_count(0)
    expect(page.locator("#job-retry")).to_be_visible()


def test_a_job_that_was_left_is_finished_in_the_list(serve: Serve, page: Page) -> None:
    """S3.1, S3.6: the list tells the truth of those that nobody follows here."""
    gate = Gate()
    engine = AnsweringEngine(article=held(STYLED, gate, after=IN_THE_ARTICLE))
    server = serve(engine)
    page.goto(f"{server.base}/write")
    expect_state(write(page, TOPIC), "running")
    page.wait_for_url("**/write?job=*")
    job = parameter(page, "job")
    entry = page.locator("#jobs li", has_text=TOPIC)
    expect(entry).to_contain_text("started")
    page.get_by_role("link", name="Write", exact=True).click()
    expect(page.locator("#job")).to_be_hidden()
    gate.open()
    until(lambda: server.get(f"/jobs/{job}").json()["status"] == "complete")
    page.get_by_role("link", name="Chat", exact=True).click()
    page.get_by_role("link", name="Write", exact=True).click()
    expect(entry).not_to_contain_text("started")
    entry.get_by_role("link").click()
    expect_article(page)
