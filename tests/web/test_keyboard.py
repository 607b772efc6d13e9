"""The page without a mouse: everything is reached, seen where it is, and done with Enter."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.engines import ARTICLE, SUMMARY, SUMMARY_TEXT, Gate
from tests.web.answering import AnsweringEngine, held
from tests.web.conftest import Serve
from tests.web.views import expect_state, expect_summary, write

MOST_STOPS = 40
# A control that is drawn by its label or by the box around it shows its focus there.
FOCUS = """() => {
  const node = document.activeElement;
  if (!node || node === document.body) return null;
  const shows = [node, node.parentElement, node.nextElementSibling].filter(Boolean);
  const outlined = (part) => getComputedStyle(part).outlineStyle !== "none"
    && parseFloat(getComputedStyle(part).outlineWidth) >= 2;
  const box = node.getBoundingClientRect();
  return {
    name: node.id || node.className || node.textContent.trim(),
    shown: shows.some(outlined),
    inside: box.bottom > 0 && box.top < innerHeight,
  };
}"""


def walk(page: Page, target: str, *, back: bool = False) -> list[str]:
    """Press Tab until `target` has the focus; return the stops, each of which was seen."""
    stops: list[str] = []
    for _ in range(MOST_STOPS):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        focus = page.evaluate(FOCUS)
        if focus is None:
            continue
        assert focus["shown"], f"no focus is seen on {focus['name']}"
        assert focus["inside"], f"{focus['name']} has the focus outside the window"
        stops.append(focus["name"])
        if page.evaluate("(id) => document.activeElement.id === id", target):
            return stops
    raise AssertionError(f"Tab does not reach {target}: {stops}")


def test_a_summary_is_made_by_keyboard_alone(serve: Serve, page: Page) -> None:
    """From the first Tab to the copied text; every stop shows its focus."""
    page.goto(serve(AnsweringEngine()).base)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    stops = walk(page, "source")
    assert len(stops) == len(set(stops))
    page.keyboard.type(ARTICLE.strip())
    walk(page, "summarize")
    page.keyboard.press("Enter")
    expect_state(page.locator("#card"), "done")
    expect_summary(page)
    walk(page, "copy")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_contain_text("Copied")
    assert str(SUMMARY["title"]) in page.evaluate("navigator.clipboard.readText()")
    walk(page, "source", back=True)


def test_the_style_is_chosen_with_arrow_keys(serve: Serve, page: Page) -> None:
    """Radio buttons are one stop, and arrows move inside."""
    engine = AnsweringEngine()
    page.goto(serve(engine).base)
    page.locator("#source").fill(ARTICLE)
    page.locator("#source").focus()
    page.keyboard.press("Tab")
    expect(page.locator("[value=executive]")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("[value=skimmer]")).to_be_checked()
    walk(page, "summarize")
    page.keyboard.press("Enter")
    expect_state(page.locator("#card"), "done")
    assert engine.requests[0].style == "skimmer"


def test_the_first_stop_skips_to_the_content(serve: Serve, page: Page) -> None:
    """The link is seen when it has the focus, and leads behind the navigation."""
    page.goto(serve(AnsweringEngine()).base)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#source")).to_be_focused()


def test_a_change_of_view_moves_the_focus_to_its_heading(serve: Serve, page: Page) -> None:
    """Who does not see the page learns where it leads, and Back works."""
    server = serve(AnsweringEngine())
    page.goto(server.base)
    navigation = page.get_by_role("navigation")
    for name, view in (("Chat", "chat"), ("Write", "write"), ("Summarize", "summarize")):
        navigation.get_by_role("link", name=name).focus()
        page.keyboard.press("Enter")
        expect(page.locator(f"#{view}-heading")).to_be_focused()
        expect(page.locator(f"#view-{view}")).to_be_visible()
        expect(page.locator("main > section:not([hidden])")).to_have_count(1)
        expect(navigation.locator("[aria-current=page]")).to_have_text(name)
        assert name in page.title()
    page.go_back()
    expect(page.locator("#view-write")).to_be_visible()
    assert page.url == f"{server.base}/write"


def test_stopping_by_keyboard_does_not_lose_the_focus(serve: Serve, page: Page) -> None:
    """The button that was pressed goes away; the focus stays in the card."""
    page.goto(serve(AnsweringEngine(summary=held(SUMMARY_TEXT, Gate(), after=40))).base)
    page.locator("#source").fill(ARTICLE)
    page.locator("#summarize").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#card-title")).to_have_text(str(SUMMARY["title"]))
    page.locator("#stop").focus()
    page.keyboard.press("Enter")
    expect_state(page.locator("#card"), "stopped")
    expect(page.locator("#retry")).to_be_focused()


def test_cancelling_a_job_by_keyboard_does_not_lose_the_focus(serve: Serve, page: Page) -> None:
    """As above, for articles."""
    page.goto(f"{serve(AnsweringEngine(outline=['{', Gate()])).base}/write")
    expect_state(write(page, "Ferries"), "running")
    expect(page.locator("#cancel")).to_be_visible()
    page.locator("#cancel").focus()
    page.keyboard.press("Enter")
    expect_state(page.locator("#job"), "stopped")
    expect(page.locator("#job-retry")).to_be_focused()


def test_deleting_from_the_history_keeps_the_focus_in_it(serve: Serve, page: Page) -> None:
    """The row that had the focus is gone; the next one takes it."""
    page.goto(serve(AnsweringEngine()).base)
    for number in range(3):
        page.locator("#source").fill(f"{ARTICLE} {number}")
        page.locator("#summarize").click()
        expect_state(page.locator("#card"), "done")
    expect(page.locator("#history li")).to_have_count(3)
    page.locator("#history li").nth(1).get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#history li")).to_have_count(2)
    assert page.evaluate("document.getElementById('history').contains(document.activeElement)")
