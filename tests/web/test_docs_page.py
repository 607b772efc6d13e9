"""`/docs` in a real browser: Swagger UI, and the panel that shows events as they come."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from app.engine.base import Status
from tests.engines import SUMMARY, Gate, ScriptedEngine, slow_script
from tests.servers import frames, until
from tests.web.conftest import OpenPage, Serve, Watch
from tests.web.views import expect_heartbeats

TAG = "V4_Structured_Summarizer"
PATCHES = f"#operations-{TAG}-stream_summary_patches"
RTL = "النشرة الاقتصادية"


def opened(page: Page, base: str) -> Page:
    """Open the documentation and wait for its operations."""
    page.goto(f"{base}/docs")
    page.wait_for_selector(".opblock")
    return page


def execute(page: Page, operation: str, example: str | None = None) -> Locator:
    """Run an operation's example as a person would; return the panel."""
    block = page.locator(operation)
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    if example is not None:
        block.locator(".opblock-section-request-body .examples-select-element").select_option(
            example
        )
    block.get_by_role("button", name="Execute").click()
    return page.locator("#live")


def test_events_show_before_the_stream_has_ended(serve: Serve, page: Page) -> None:
    """Contract 1: the panel has events while the model is held; Swagger's answer comes last."""
    gate = Gate()
    server = serve(ScriptedEngine(slow_script(gate)))
    panel = execute(opened(page, server.base), PATCHES)
    events = panel.get_by_role("log").locator("> div")
    expect(events).to_have_count(2)
    expect(events.nth(0)).to_contain_text('"type":"metadata"')
    expect(events.nth(0).locator(".id")).to_have_text("example:0")
    expect(events.nth(0).locator(".event")).to_have_text("message")
    expect(events.nth(1)).to_contain_text(str(SUMMARY["title"]))
    expect(panel.get_by_role("status")).to_have_text("running")
    expect(panel.get_by_role("timer")).not_to_have_text("0.0 s")
    expect(page.locator(f"{PATCHES} .live-responses-table .response")).to_have_count(0)
    gate.open()
    expect(panel.get_by_role("status")).to_have_text("complete")
    expect(events.last).to_contain_text('"done":true')
    expect(panel.locator("#live-count")).to_have_text(str(events.count()))
    expect(panel.get_by_role("button", name="Stop")).to_be_disabled()
    answer = page.locator(f"{PATCHES} .live-responses-table .response")
    expect(answer).to_contain_text("200")
    expect(answer).to_contain_text('"done":true')


def test_stop_cancels_the_session_on_the_server(serve: Serve, page: Page) -> None:
    """Contract 3: Stop is a cancel of the stream's own session; the engine is closed early."""
    engine = ScriptedEngine(slow_script(Gate()))
    server = serve(engine)
    panel = execute(opened(page, server.base), PATCHES)
    expect(panel.get_by_role("log").locator("> div")).to_have_count(2)
    with page.expect_request("**/v1/cancel/example"):
        panel.get_by_role("button", name="Stop").click()
    expect(panel.get_by_role("log")).to_be_focused()
    expect(panel.get_by_role("status")).to_have_text("stopped")
    expect(panel.get_by_role("log").locator("> div").last).to_contain_text("cancelled")
    until(lambda: server.get("/health").json()["sessions"] == 0)
    assert engine.closed_early.is_set()


def test_stop_shows_the_key_that_the_stream_was_asked_with(serve: Serve, page: Page) -> None:
    """Contract 8: Authorize works for both schemes' streams and for their cancel."""
    server = serve(ScriptedEngine(slow_script(Gate())), api_keys=("secret",))
    opened(page, server.base).get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".dialog-ux")
    bearer = dialog.locator(".auth-container", has_text="BearerKey")
    bearer.locator("input").fill("secret")
    bearer.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close", exact=True).last.click()
    panel = execute(page, PATCHES)
    expect(panel.get_by_role("log").locator("> div")).to_have_count(2)
    with page.expect_response("**/v1/cancel/example") as cancelled:
        panel.get_by_role("button", name="Stop").click()
    assert cancelled.value.request.headers["authorization"] == "Bearer secret"
    assert cancelled.value.status == 200
    expect(panel.get_by_role("status")).to_have_text("stopped")


def test_a_failed_stream_is_called_failed(serve: Serve, page: Page) -> None:
    """Contract 1: an error event is no success."""
    server = serve(ScriptedEngine([Status("writing"), "no JSON"]))
    panel = execute(opened(page, server.base), f"#operations-{TAG}-stream_summary_text")
    expect(panel.get_by_role("status")).to_have_text("failed")
    last = panel.get_by_role("log").locator("> div").last
    expect(last.locator(".event")).to_have_text("error")


def test_events_are_shown_as_text_in_their_own_direction(serve: Serve, page: Page) -> None:
    """Pitfall: pages inserted model output with innerHTML."""
    words = [f"{RTL} <img src=x onerror=alert(1)>"]
    server = serve(ScriptedEngine([Status("writing"), *words]))
    operation = "#operations-V3_Prose_Summarizer-stream_prose_summary"
    panel = execute(opened(page, server.base), operation)
    line = panel.get_by_role("log").locator("> div", has_text=RTL)
    expect(line).to_contain_text("<img src=x")
    expect(line.locator("img")).to_have_count(0)
    expect(line.locator(".data")).to_have_attribute("dir", "auto")


def test_the_panel_is_used_by_keyboard_and_another_run_takes_its_place(
    serve: Serve, page: Page
) -> None:
    """Every part has a name; Close hides it and gives the keyboard back; a new run opens it."""
    server = serve(ScriptedEngine())
    panel = execute(opened(page, server.base), PATCHES)
    expect(panel.get_by_role("status")).to_have_text("complete")
    expect(page.get_by_role("region", name="Live stream")).to_be_visible()
    expect(panel.get_by_role("log")).to_have_accessible_name(re.compile("Events"))
    panel.get_by_role("log").focus()
    expect(panel.get_by_role("log")).to_be_focused()
    panel.get_by_role("button", name="Close").focus()
    page.keyboard.press("Enter")
    expect(panel).to_be_hidden()
    expect(page.locator(PATCHES).get_by_role("button", name="Execute")).to_be_focused()
    page.keyboard.press("Enter")
    expect(panel).to_be_visible()
    expect(panel.get_by_role("status")).to_have_text("complete")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_system_and_asks_no_other_host(
    serve: Serve, open_page: OpenPage, scheme: str
) -> None:
    """Contract 8: works with no internet; a request to another host fails the test by itself."""
    server = serve(ScriptedEngine())
    page = opened(open_page(color_scheme=scheme), server.base)
    expect(page.locator("html.dark-mode")).to_have_count(1 if scheme == "dark" else 0)


@pytest.mark.timeout(120)
def test_every_operation_opens_and_asks_no_other_host(serve: Serve, page: Page) -> None:
    """Contract 8, as above: one operation after the other, since Swagger UI draws all open ones."""
    opened(page, serve(ScriptedEngine()).base)
    operations = page.locator(".opblock-summary-control")
    for number in range(operations.count()):
        operations.nth(number).click()
        expect(page.locator(".opblock.is-open .opblock-body")).to_be_visible()
        operations.nth(number).click()
        expect(page.locator(".opblock.is-open")).to_have_count(0)


def test_heartbeats_are_no_events(serve: Serve, page: Page) -> None:
    """The panel counts what the stream holds, and shows no comment."""
    gate = Gate()
    server = serve(ScriptedEngine(slow_script(gate)), heartbeat_seconds=0.05)
    panel = execute(opened(page, server.base), PATCHES)
    events = panel.get_by_role("log").locator("> div")
    expect(events).to_have_count(2)
    expect_heartbeats(server, "example")
    expect(events).to_have_count(2)
    gate.open()
    expect(panel.get_by_role("status")).to_have_text("complete")
    sent = frames(server.get("/api/sessions/example/events").text)
    expect(events.locator(".id")).to_have_text([str(one.id) for one in sent])
    expect(panel.locator("#live-count")).to_have_text(str(len(sent)))


def test_the_reference_asks_no_other_host(serve: Serve, page: Page, watch: Watch) -> None:
    """Contract 8: ReDoc names a picture of another host; the page's policy does not load it."""
    watch.expects("cdn.redoc.ly")
    page.goto(f"{serve(ScriptedEngine()).base}/redoc")
    expect(
        page.get_by_role("heading", name="Stream a structured summary field by field")
    ).to_be_visible()
    assert all(
        "Content Security Policy" in text or "request to" in text for text in watch.complaints
    )
