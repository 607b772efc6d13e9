"""Reloads, lost connections, killed servers: nothing is lost, nothing is written twice."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from bench.upstream import OUTLINE, Script
from bench.upstream import SUMMARY as WHOLE
from tests.engines import ARTICLE, SUMMARY, SUMMARY_TEXT, Gate, pieces_of
from tests.web.answering import ANSWER, AnsweringEngine, held
from tests.web.conftest import Connect, OpenPage, Serve, Watch
from tests.web.restarting import RESTART_MS, restarting
from tests.web.views import (
    expect_heartbeats,
    expect_state,
    expect_summary,
    parameter,
    send_message,
    summarize,
    write,
)

AFTER_TITLE = SUMMARY_TEXT.index("main_summary") + 20
IN_THE_ANSWER = ANSWER.index("second")
# What Chromium says of a connection that was cut or refused.
LOST = r"net::ERR_"
WORDS = " ".join(f"word{number}" for number in range(120))


def test_a_reloaded_summary_goes_on_and_is_generated_once(serve: Serve, page: Page) -> None:
    """Contract 3, S1.23: the reload replays and follows; the card equals an uninterrupted one."""
    gate = Gate()
    engine = AnsweringEngine(summary=held(SUMMARY_TEXT, gate, after=AFTER_TITLE))
    page.goto(serve(engine).base)
    summarize(page, ARTICLE)
    expect(page.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    session = parameter(page, "session")
    page.reload()
    expect(page.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    expect_state(page.locator("#card"), "running")
    assert parameter(page, "session") == session
    gate.open()
    expect_state(page.locator("#card"), "done")
    expect_summary(page)
    assert len(engine.requests) == 1


def test_a_lost_connection_is_told_and_made_good(
    serve: Serve, page: Page, watch: Watch, connect: Connect
) -> None:
    """Contract 3: Last-Event-ID on the new connection, and the whole object in the end."""
    watch.expects(LOST)
    gate = Gate()
    engine = AnsweringEngine(summary=held(SUMMARY_TEXT, gate, after=AFTER_TITLE))
    wire = connect(serve(engine))
    page.goto(wire.base)
    card = summarize(page, ARTICLE)
    expect(page.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    wire.cut()
    expect(page.locator("#notice")).to_contain_text("Connection lost. Reconnecting…")
    expect_state(card, "running")
    with page.expect_request(lambda request: "/events" in request.url) as resumed:
        wire.mend()
    assert resumed.value.all_headers()["last-event-id"].startswith(parameter(page, "session"))
    expect(page.locator("#notice")).to_contain_text("Reconnected, nothing was lost.")
    gate.open()
    expect_state(card, "done")
    expect_summary(page)
    assert len(engine.requests) == 1


def test_a_chat_cut_five_times_has_no_gap_and_no_duplicate(
    serve: Serve, page: Page, watch: Watch, connect: Connect
) -> None:
    """Contract 3: the text equals the uninterrupted one, word for word; one generation."""
    watch.expects(LOST)
    gates = [Gate() for _ in range(5)]
    parts = pieces_of(WORDS, len(WORDS) // 5)
    script: list[str | Gate] = []
    for part, gate in zip(parts, gates, strict=False):
        script += [*pieces_of(part), gate]
    script += parts[5:]
    engine = AnsweringEngine(chat=script)
    wire = connect(serve(engine))
    page.goto(f"{wire.base}/chat")
    answer = send_message(page, "Count.")
    for number, gate in enumerate(gates):
        expect(answer.locator(".text")).to_have_text("".join(parts[: number + 1]))
        wire.cut()
        expect(page.locator("#notice")).to_contain_text("Connection lost. Reconnecting…")
        gate.open()
        wire.mend()
    expect_state(answer, "done")
    expect(answer.locator(".text")).to_have_text(WORDS)
    assert len(engine.requests) == 1


def test_a_reloaded_chat_goes_on_and_is_generated_once(serve: Serve, page: Page) -> None:
    """Contract 3: the answer that was being written is followed to its end."""
    gate = Gate()
    engine = AnsweringEngine(chat=held(ANSWER, gate, after=IN_THE_ANSWER))
    page.goto(f"{serve(engine).base}/chat")
    answer = send_message(page, "Hello")
    expect(answer.locator(".text")).to_contain_text("first")
    page.reload()
    expect(answer.locator(".text")).to_contain_text("first")
    expect_state(answer, "running")
    gate.open()
    expect_state(answer, "done")
    expect(answer.locator(".text")).to_contain_text("The end.")
    expect(answer.locator(".text strong")).to_have_count(1)
    expect(page.locator("article.message")).to_have_count(2)
    assert len(engine.requests) == 1


def test_a_killed_server_is_told_truly_in_every_view(
    open_page: OpenPage, watch: Watch, tmp_path: Path
) -> None:
    """S1.28: after SIGKILL and restart: interrupted; what came stays; again works."""
    watch.expects(LOST)
    # The title and the outline are there within two seconds, the rest takes many more.
    script = Script(words=400, words_per_second=25.0)
    with restarting(tmp_path, script) as process:
        pages = [open_page(process.base + path) for path in ("", "/chat", "/write")]
        summary, chat, article = pages
        card, answer = summarize(summary, ARTICLE), send_message(chat, "Hello")
        job = write(article, "Boats")
        expect(summary.locator("#card-title")).to_have_text(str(WHOLE["title"]))
        expect(article.locator("#sections li")).to_have_text(OUTLINE["sections"])
        expect(answer.locator(".text")).to_contain_text("bridge")
        process.kill()
        for page in pages:
            expect(page.locator("#notice")).to_contain_text("Reconnecting…")
        said = answer.locator(".text").inner_text()
        script.words_per_second = 0.0
        process.start()
        for page in pages:
            # What a browser says when its network is back; it shortens the pause before a try.
            page.evaluate("dispatchEvent(new Event('online'))")
        for part, error in ((card, "#card-error"), (answer, ".error"), (job, "#job-error")):
            expect_state(part, "failed", timeout_ms=RESTART_MS)
            expect(part.locator(error)).to_contain_text("stopped before it was done")
        expect(summary.locator("#card-title")).to_have_text(str(WHOLE["title"]))
        expect(article.locator("#sections li")).to_have_text(OUTLINE["sections"])
        assert answer.locator(".text").inner_text().startswith(said)
        for page, again in ((summary, "#retry"), (chat, "#chat-retry"), (article, "#job-retry")):
            page.locator(again).click()
        for part in (card, answer, job):
            expect_state(part, "done")
        expect_summary(summary, WHOLE)
        expect(article.locator("#article").get_by_role("heading")).to_have_count(4)
        for page in pages:
            page.close()


def test_a_server_that_is_away_when_asked_is_waited_for(
    serve: Serve, page: Page, watch: Watch, connect: Connect
) -> None:
    """A request that never arrived is sent again, and only once it arrives is there a session."""
    # The page first asks whether the request had arrived.
    watch.expects(LOST, "status of 404")
    engine = AnsweringEngine()
    wire = connect(serve(engine))
    page.goto(wire.base)
    wire.cut()
    card = summarize(page, ARTICLE)
    expect(page.locator("#notice")).to_contain_text("Reconnecting…")
    wire.mend()
    expect_state(card, "done")
    expect_summary(page)
    assert len(engine.requests) == 1


def test_heartbeats_are_no_events(serve: Serve, page: Page) -> None:
    """Before the first word, in the middle, before the end: comments end no event and lose none."""
    gates = [Gate() for _ in range(3)]
    parts = [SUMMARY_TEXT[:AFTER_TITLE], SUMMARY_TEXT[AFTER_TITLE:-1], SUMMARY_TEXT[-1:]]
    script: list[str | Gate] = []
    for gate, part in zip(gates, parts, strict=True):
        script += [gate, part]
    server = serve(AnsweringEngine(summary=script), heartbeat_seconds=0.05)
    page.goto(server.base)
    card = summarize(page, ARTICLE)
    page.wait_for_url("**/?session=*")
    for gate in gates:
        expect_heartbeats(server, parameter(page, "session"))
        expect_state(card, "running")
        gate.open()
    expect_state(card, "done")
    expect_summary(page)


def test_an_error_page_of_a_proxy_is_not_taken_for_a_forgotten_session(
    serve: Serve, page: Page, watch: Watch
) -> None:
    """A status without a code of this server is shown as it is, and nothing reconnects."""
    watch.expects(r"status of 404 .*/events")
    page.route("**/events", lambda route: route.fulfill(status=404, body="<h1>Not here</h1>"))
    page.goto(f"{serve(AnsweringEngine()).base}/?session=mine")
    expect_state(page.locator("#card"), "failed")
    expect(page.locator("#card-error")).to_have_text("The server answered with status 404.")
    expect(page.locator("#notice")).to_be_empty()
