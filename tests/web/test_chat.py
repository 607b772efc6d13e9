"""The view that chats, in a real browser against a real server with a scripted engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.core.errors import GenerationFailed
from app.engine.base import Reasoning
from tests.engines import Gate, ScriptedEngine
from tests.servers import until
from tests.services.media.files import a_file, opened
from tests.web.answering import ANSWER, AnsweringEngine, held
from tests.web.conftest import OpenPage, Serve, Watch
from tests.web.views import TWO_FRAMES, expect_state, send_message


def test_an_answer_is_streamed_and_shown_as_markdown(serve: Serve, page: Page) -> None:
    """S1.20: words as they come, then headings, lists, code and tables as elements."""
    gate = Gate()
    engine = AnsweringEngine(chat=held(ANSWER, gate, after=ANSWER.index("second")))
    page.goto(f"{serve(engine).base}/chat")
    answer = send_message(page, "Tell me about boats")
    text = answer.locator(".text")
    expect(text.locator("strong")).to_have_text("bold")
    expect(text.locator("li").first).to_have_text("first")
    expect_state(answer, "running")
    expect(page.locator("#chat-stop")).to_be_visible()
    gate.open()
    expect_state(answer, "done")
    expect(text.locator("ol > li")).to_have_text(["first", "second"])
    expect(text.locator("pre code")).to_have_text('print("hello")')
    expect(text.locator("table td")).to_have_text(["Tern", "80"])
    expect(page.locator("article.message[data-role=user] .text")).to_have_text(
        "Tell me about boats"
    )
    expect(page.locator("#chat-stop")).to_be_hidden()
    expect(page.get_by_label("Message", exact=True)).to_be_empty()


def test_a_second_question_is_sent_with_the_first_and_its_answer(serve: Serve, page: Page) -> None:
    """S1.18: the conversation is the request."""
    engine = AnsweringEngine(chat=["Yes."])
    page.goto(f"{serve(engine).base}/chat")
    expect_state(send_message(page, "One?"), "done")
    expect_state(send_message(page, "Two?"), "done")
    expect(page.locator("article.message")).to_have_count(4)
    until(lambda: len(engine.requests) == 2)
    turns = [(message.role, message.content) for message in engine.requests[1].messages]
    assert turns == [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]


def test_stop_keeps_what_was_said_and_frees_the_model(serve: Serve, page: Page) -> None:
    """S1.25, S1.32: the state is stopped, and the turn can be asked again."""
    engine = AnsweringEngine(chat=["Hello ", Gate(), "never"])
    server = serve(engine)
    page.goto(f"{server.base}/chat")
    answer = send_message(page, "Hello")
    expect(answer.locator(".text")).to_have_text("Hello")
    page.locator("#chat-stop").click()
    expect_state(answer, "stopped")
    expect(answer.locator(".text")).to_have_text("Hello")
    assert engine.closed_early.wait(10)
    until(lambda: server.get("/health").json()["sessions"] == 0)
    engine.chat = ["Hello again"]
    page.locator("#chat-retry").click()
    expect_state(answer, "done")
    expect(answer.locator(".text")).to_have_text("Hello again")
    expect(page.locator("article.message")).to_have_count(2)


def test_a_double_click_on_send_does_not_stop_the_answer(serve: Serve, page: Page) -> None:
    """The second click lands on nothing, whatever takes the place of Send."""
    gate = Gate()
    engine = AnsweringEngine(chat=["Hello ", gate, "there"])
    page.goto(f"{serve(engine).base}/chat")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.locator("#send").dblclick()
    answer = page.locator("article.message[data-role=assistant]")
    expect(answer.locator(".text")).to_have_text("Hello")
    gate.open()
    expect_state(answer, "done")
    expect(answer.locator(".text")).to_have_text("Hello there")


def test_the_conversation_survives_a_reload_until_a_new_one(serve: Serve, page: Page) -> None:
    """It is kept in the browser, and New chat forgets it."""
    engine = AnsweringEngine()
    page.goto(f"{serve(engine).base}/chat")
    expect_state(send_message(page, "Hello"), "done")
    page.reload()
    expect(page.locator("article.message")).to_have_count(2)
    expect(page.locator("article.message .text").last.locator("strong")).to_have_text("bold")
    page.get_by_role("button", name="New chat", exact=True).click()
    expect(page.locator("article.message")).to_have_count(0)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.reload()
    expect(page.locator("article.message")).to_have_count(0)
    assert len(engine.requests) == 1


def test_a_new_chat_ends_the_answer_of_the_old_one(serve: Serve, page: Page) -> None:
    """No generation is left behind that nobody can see."""
    engine = AnsweringEngine(chat=["Hello ", Gate()])
    page.goto(f"{serve(engine).base}/chat")
    expect(send_message(page, "Hello").locator(".text")).to_have_text("Hello")
    page.get_by_role("button", name="New chat", exact=True).click()
    expect(page.locator("article.message")).to_have_count(0)
    assert engine.closed_early.wait(10)
    engine.chat = ["Fresh."]
    answer = send_message(page, "Again")
    expect_state(answer, "done")
    expect(page.locator("article.message .text")).to_have_text(["Again", "Fresh."])


def test_enter_sends_and_shift_enter_breaks_the_line(serve: Serve, page: Page) -> None:
    """The hint in the field is true; what is empty is not sent."""
    engine = AnsweringEngine(chat=["Yes."])
    page.goto(f"{serve(engine).base}/chat")
    field = page.get_by_label("Message", exact=True)
    field.press("Enter")
    expect(page.locator("article.message")).to_have_count(0)
    field.press_sequentially("one")
    field.press("Shift+Enter")
    field.press_sequentially("two")
    expect(field).to_have_value("one\ntwo")
    field.press("Enter")
    expect_state(page.locator("article.message").last, "done")
    assert engine.requests[0].messages[-1].content == "one\ntwo"


def test_an_attached_image_is_seen_by_the_engine(serve: Serve, page: Page, tmp_path: Path) -> None:
    """S1.16: a thumbnail before, the picture in the message, its bytes at the engine."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(a_file(size=(400, 200)))
    engine = ScriptedEngine(["A red and a blue half."])
    page.goto(f"{serve(engine).base}/chat")
    page.get_by_label("Attach an image").set_input_files(picture)
    expect(page.locator("#attachments img")).to_have_count(1)
    answer = send_message(page, "What is it?")
    expect_state(answer, "done")
    expect(page.locator("#attachments img")).to_have_count(0)
    expect(page.locator("article.message[data-role=user] img")).to_have_count(1)
    seen = opened(engine.requests[0].images[0])
    assert seen.size == (400, 200)
    left, right = seen.convert("RGB").getpixel((50, 100)), seen.convert("RGB").getpixel((350, 100))
    assert left[0] > 200 > right[0]


def test_an_attached_image_can_be_removed_and_a_broken_one_is_told(
    serve: Serve, page: Page, tmp_path: Path
) -> None:
    """Nothing is sent that was taken away or cannot be read."""
    picture, broken = tmp_path / "picture.png", tmp_path / "broken.png"
    picture.write_bytes(a_file())
    broken.write_bytes(b"no picture")
    engine = AnsweringEngine(chat=["Yes."])
    page.goto(f"{serve(engine).base}/chat")
    page.get_by_label("Attach an image").set_input_files(picture)
    page.get_by_role("button", name="Remove image 1").click()
    expect(page.locator("#attachments img")).to_have_count(0)
    page.get_by_label("Attach an image").set_input_files(broken)
    expect(page.locator("#chat-error")).to_contain_text("cannot be read")
    expect_state(send_message(page, "Hello"), "done")
    assert not engine.requests[0].images


@pytest.mark.parametrize("engine_url", [(), ("http://127.0.0.1:9/v1",)])
def test_no_image_can_be_attached_where_no_model_sees(
    serve: Serve, page: Page, engine_url: tuple[str, ...]
) -> None:
    """C7: without a vision model the button is not there, here or on another server."""
    server = serve(v4_model_id="nobody/nothing", vision_model_id="none", engine_url=engine_url)
    with page.expect_response("**/health") as answered:
        page.goto(f"{server.base}/chat")
    assert "vision" not in answered.value.json()["roles"]
    # One turn through the page's own queue: what it does with the answer is done by then.
    page.get_by_label("Message", exact=True).click()
    expect(page.locator("#attach-button")).to_be_hidden()


def test_a_server_without_a_model_says_so_and_can_be_asked_again(
    serve: Serve, page: Page, watch: Watch
) -> None:
    """C19, 503: the reason is shown where the answer would be."""
    watch.expects(r"status of 503 .*/v1/chat/completions")
    engine = AnsweringEngine(out_of_order="the model is still being loaded")
    page.goto(f"{serve(engine).base}/chat")
    answer = send_message(page, "Hello")
    expect_state(answer, "failed")
    expect(answer.locator(".error")).to_contain_text("the model is still being loaded")
    expect(page.locator("#chat-retry")).to_be_visible()


def test_a_model_that_breaks_leaves_its_words_and_the_reason(serve: Serve, page: Page) -> None:
    """Pitfall: engine errors became finish_reason stop."""
    engine = AnsweringEngine(chat=["Hello ", GenerationFailed("the model broke")])
    page.goto(f"{serve(engine).base}/chat")
    answer = send_message(page, "Hello")
    expect_state(answer, "failed")
    expect(answer.locator(".text")).to_have_text("Hello")
    expect(answer.locator(".error")).to_contain_text("the model broke")


def test_what_a_model_thinks_is_apart_from_what_it_says(serve: Serve, page: Page) -> None:
    """Pitfall: a thinking model's text ended up in its answer."""
    engine = AnsweringEngine(chat=[Reasoning("Let me see. "), "Forty."])
    page.goto(f"{serve(engine).base}/chat")
    answer = send_message(page, "How many?")
    expect_state(answer, "done")
    expect(answer.locator(".text")).to_have_text("Forty.")
    thoughts = answer.locator("details")
    expect(thoughts.locator("p")).to_be_hidden()
    thoughts.locator("summary").click()
    expect(thoughts.locator("p")).to_have_text("Let me see.")


def test_the_end_of_an_answer_is_announced_and_its_pieces_are_not(serve: Serve, page: Page) -> None:
    """A screen reader is told once, not at every word."""
    page.goto(f"{serve(AnsweringEngine()).base}/chat")
    expect_state(send_message(page, "Hello"), "done")
    expect(page.locator("#announcer")).to_have_text("The answer is complete.")
    expect(page.locator("#messages")).to_have_attribute("aria-live", "off")


def test_the_newest_words_stay_in_sight(serve: Serve, page: Page) -> None:
    """While they come, and when a keyboard takes half of the window; not for who reads above."""
    lines = "\n\n".join(f"Line {number}." for number in range(60))
    gate = Gate()
    page.goto(f"{serve(AnsweringEngine(chat=[lines, gate, ' The end.'])).base}/chat")
    text = send_message(page, "Count").locator(".text > p")
    expect(text.last).to_be_in_viewport()
    page.set_viewport_size({"width": 375, "height": 400})
    expect(text.last).to_be_in_viewport()
    text.nth(5).scroll_into_view_if_needed()
    page.evaluate(TWO_FRAMES)
    gate.open()
    expect(text.last).to_have_text("Line 59. The end.")
    expect(text.nth(5)).to_be_in_viewport()


def test_two_tabs_show_the_same_conversation(serve: Serve, open_page: OpenPage) -> None:
    """A second tab of the same browser takes over what the first one kept."""
    server = serve(AnsweringEngine(chat=["Yes."]))
    first = open_page(f"{server.base}/chat")
    expect_state(send_message(first, "One?"), "done")
    second = first.context.new_page()
    second.goto(f"{server.base}/chat")
    expect(second.locator("article.message")).to_have_count(2)
    expect_state(send_message(second, "Two?"), "done")
    expect(first.locator("article.message .text")).to_have_text(["One?", "Yes.", "Two?", "Yes."])
