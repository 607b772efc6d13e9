"""Languages, colours, motion, keys: what a browser or a server asks of the page."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.engines import ARTICLE, SUMMARY_TEXT, Gate
from tests.web.answering import AnsweringEngine, held
from tests.web.conftest import OpenPage, Serve, Watch
from tests.web.views import expect_state, expect_summary, send_message, summarize

BACKGROUND = "getComputedStyle(document.body).backgroundColor"
RUNNING = 'document.getAnimations().filter((one) => one.playState === "running").length'


def brightness(page: Page) -> float:
    """Return how bright the page's background is, 0 to 255."""
    numbers = re.findall(r"[\d.]+", page.evaluate(BACKGROUND))
    return sum(map(float, numbers[:3])) / 3


def test_an_indonesian_browser_gets_indonesian(serve: Serve, open_page: OpenPage) -> None:
    """The words, the lang attribute, the title; a choice of the person is kept."""
    page = open_page(serve(AnsweringEngine()).base, locale="id-ID")
    expect(page.locator("html")).to_have_attribute("lang", "id")
    expect(page.get_by_role("button", name="Ringkas", exact=True)).to_be_visible()
    expect(page).to_have_title(re.compile("Ringkas"))
    page.get_by_label("Tautan atau teks").fill(ARTICLE)
    page.get_by_role("button", name="Ringkas", exact=True).click()
    expect_state(page.locator("#card"), "done")
    expect(page.locator("#card-sentiment")).to_have_text("positif")
    page.get_by_label("Bahasa").select_option("en")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.locator("#card-sentiment")).to_have_text("positive")
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("button", name="Summarize", exact=True)).to_be_visible()


def test_any_other_browser_gets_english(serve: Serve, open_page: OpenPage) -> None:
    """English is what is spoken when nothing else is known."""
    page = open_page(serve(AnsweringEngine()).base, locale="fi-FI")
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.get_by_label("Language").select_option("id")
    expect(page.get_by_role("navigation")).to_contain_text("Obrolan")


def test_every_word_is_there_in_every_language(serve: Serve, page: Page) -> None:
    """A word that is missing would show in English, or as its own name."""
    page.goto(serve(AnsweringEngine()).base)
    texts = page.evaluate("import('/assets/web/texts.js').then((module) => module.TEXTS)")
    assert set(texts) == {"en", "id"}
    assert set(texts["en"]) == set(texts["id"])
    for name, words in texts["en"].items():
        other = texts["id"][name]
        assert type(words) is type(other)
        assert other
        if isinstance(words, str):
            places = re.compile(r"\{\w+\}")
            assert sorted(places.findall(words)) == sorted(places.findall(other)), name
    asked = page.locator("[data-t], [data-t-label], [data-t-placeholder]").evaluate_all(
        "(nodes) => nodes.flatMap(({dataset: {t, tLabel, tPlaceholder}}) => "
        "[t, tLabel, tPlaceholder].filter(Boolean))"
    )
    assert set(asked) <= set(texts["en"])


def test_the_theme_follows_the_system_until_it_is_chosen(serve: Serve, page: Page) -> None:
    """Dark where the system is dark, and the choice survives a reload."""
    page.goto(serve(AnsweringEngine()).base)
    assert brightness(page) > 200
    page.emulate_media(color_scheme="dark")
    assert brightness(page) < 60
    page.get_by_label("Theme").select_option("light")
    assert brightness(page) > 200
    page.get_by_label("Theme").select_option("dark")
    page.emulate_media(color_scheme="light")
    assert brightness(page) < 60
    page.reload()
    expect(page.get_by_label("Theme")).to_have_value("dark")
    assert brightness(page) < 60


def test_nothing_moves_for_who_asked_for_less_motion(serve: Serve, open_page: OpenPage) -> None:
    """prefers-reduced-motion: while a summary and a chat are being written."""
    server = serve(
        AnsweringEngine(summary=held(SUMMARY_TEXT, Gate(), after=60), chat=["Hello ", Gate()])
    )
    moving = open_page(server.base)
    still = open_page(server.base, reduced_motion="reduce")
    for page in (moving, still):
        summarize(page, ARTICLE)
        expect(page.locator("#card-title")).not_to_be_empty()
    assert moving.evaluate(RUNNING) > 0
    assert still.evaluate(RUNNING) == 0
    still.get_by_role("link", name="Chat").click()
    expect(send_message(still, "Hello").locator(".text")).to_have_text("Hello")
    assert still.evaluate(RUNNING) == 0


def test_a_key_is_asked_for_once_and_kept_for_the_tab(
    serve: Serve, page: Page, watch: Watch
) -> None:
    """Contract 8: 401 opens the dialog, a wrong key opens it again, the right one asks again."""
    watch.expects("status of 401")
    engine = AnsweringEngine()
    server = serve(engine, api_keys=("right",))
    page.goto(server.base)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_hidden()
    card = summarize(page, ARTICLE)
    field = dialog.get_by_label("API key")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("type", "password")
    field.fill("wrong")
    dialog.get_by_role("button", name="Use key").click()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_empty()
    field.fill("right")
    field.press("Enter")
    expect(dialog).to_be_hidden()
    expect_state(card, "done")
    expect_summary(page)
    assert "right" not in page.url
    assert "right" not in page.evaluate("JSON.stringify({...localStorage})")
    assert "right" not in page.evaluate("JSON.stringify({...document.cookie})")
    page.reload()
    expect_state(card, "done")
    expect(dialog).to_be_hidden()
    page.get_by_role("link", name="Chat").click()
    expect_state(send_message(page, "Hello"), "done")
    assert len(engine.requests) == 2


def test_who_has_no_key_is_told_so(serve: Serve, page: Page, watch: Watch) -> None:
    """Escape closes the dialog; the refusal is shown where the summary would be."""
    watch.expects("status of 401")
    engine = AnsweringEngine()
    page.goto(serve(engine, api_keys=("right",)).base)
    card = summarize(page, ARTICLE)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect_state(card, "failed")
    expect(page.locator("#card-error")).to_contain_text("API key")
    assert not engine.requests
