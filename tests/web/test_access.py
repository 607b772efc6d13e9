"""axe-core on every view in every state: light and dark, on a phone and on a desk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from app.core.errors import GenerationFailed
from tests.engines import ARTICLE, SUMMARY_TEXT, Gate
from tests.web.answering import ANSWER, STYLED, AnsweringEngine, held
from tests.web.conftest import Serve, Watch
from tests.web.views import expect_state, send_message, summarize, wide_by, write

SIZES = ({"width": 375, "height": 740}, {"width": 1440, "height": 900})
BROKEN = GenerationFailed("the model broke")
RUN = """async (rules) => {
  const options = {resultTypes: ["violations"], ...(rules && {runOnly: rules})};
  const found = await axe.run(document, options);
  return found.violations
    .filter(({impact}) => impact === "serious" || impact === "critical")
    .map(({id, impact, nodes}) => ({
      id, impact, nodes: nodes.map((node) => [node.html, node.failureSummary]),
    }));
}"""


View = tuple[str, str, Callable[[Page], object], Callable[[Gate], list[str | Gate]]]
# Path, the part that has a state, what a person does, and an answer with a gate in the middle.
VIEWS: dict[str, View] = {
    "summary": (
        "/",
        "#card",
        lambda page: summarize(page, f"{ARTICLE} {page.locator('#history li').count()}"),
        lambda gate: held(SUMMARY_TEXT, gate, after=120),
    ),
    "chat": (
        "/chat",
        "article.message[data-role=assistant]",
        lambda page: send_message(page, "Tell me about boats"),
        lambda gate: held(ANSWER, gate, after=60),
    ),
    "article": (
        "/write",
        "#job",
        lambda page: write(page, "Electric ferries"),
        lambda gate: held(STYLED, gate, after=60),
    ),
}
SHOWN = {"summary": "#card-title", "chat": ".message[data-role=assistant]", "article": "#article"}


def violations(page: Page) -> list[Any]:
    """Return the serious and critical ones of the page as it stands, in all sizes and colours."""
    found: list[Any] = []
    for size in SIZES:
        page.set_viewport_size(size)  # type: ignore[arg-type]
        # Colours are all that the theme changes.
        for colours, rules in (("light", None), ("dark", ["color-contrast"])):
            page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
            found += [(size["width"], colours, one) for one in page.evaluate(RUN, rules)]
        assert wide_by(page) <= 0, f"the page scrolls sideways at {size['width']} pixels"
    return found


@pytest.mark.parametrize("kind", VIEWS)
def test_no_serious_violation_in_any_state(serve: Serve, page: Page, axe: str, kind: str) -> None:
    """WCAG as far as a program can tell, and no sideways scrolling."""
    path, part, begin, answer = VIEWS[kind]
    engine, gate = AnsweringEngine(), Gate()
    setattr(engine, kind, answer(gate))
    page.emulate_media(reduced_motion="reduce")
    page.goto(serve(engine).base + path)
    page.evaluate(axe)
    found = {"empty": violations(page)}
    begin(page)
    expect(page.locator(SHOWN[kind])).not_to_be_empty()
    found["running"] = violations(page)
    gate.open()
    expect_state(page.locator(part).last, "done")
    found["done"] = violations(page)
    setattr(engine, kind, [*answer(gate)[:1], BROKEN])
    begin(page)
    expect_state(page.locator(part).last, "failed")
    found["failed"] = violations(page)
    assert not any(found.values()), found


def test_the_dialog_for_a_key_has_no_violation(
    serve: Serve, page: Page, axe: str, watch: Watch
) -> None:
    """The one part of the page that covers the rest."""
    watch.expects("status of 401")
    page.goto(serve(AnsweringEngine(), api_keys=("k",)).base)
    summarize(page, ARTICLE)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.evaluate(axe)
    assert violations(page) == []


def test_axe_would_find_something(serve: Serve, page: Page, axe: str) -> None:
    """The check itself can fail: a button without a name, words that cannot be read."""
    page.goto(serve(AnsweringEngine()).base)
    page.evaluate(axe)
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    page.locator(".lead").first.evaluate("(node) => node.style.setProperty('color', '#888')")
    assert {one["id"] for _, _, one in violations(page)} >= {"button-name", "color-contrast"}
