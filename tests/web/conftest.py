"""One Chromium for all tests; every page is watched, and what it should not do fails the test."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from app.engine.base import Engine
from bench.page import ARGUMENTS
from tests.programs import missing, program
from tests.servers import Running, serving
from tests.web.cable import Cable, cable
from tests.web.views import WAIT_MS

DESK = {"width": 1280, "height": 800}
AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"

expect.set_options(timeout=WAIT_MS)

Serve = Callable[..., Running]
OpenPage = Callable[..., Page]
Connect = Callable[[Running], Cable]


class Watch:
    """What pages did that no page should: errors, broken policies, requests to other hosts."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self._expected: list[re.Pattern[str]] = []

    def expects(self, *patterns: str) -> None:
        """Say which complaints belong to this test."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    def follow(self, page: Page) -> None:
        """Write down what the page does from now on."""
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("console", self._on_console)
        page.on("request", lambda request: self._on_request(page, request))
        # A dialog that nobody answers would hang the page; the tests open none on purpose.
        page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))

    def unexpected(self) -> list[str]:
        """Return the complaints that no test asked for."""
        return [
            text
            for text in self.complaints
            if not any(pattern.search(text) for pattern in self._expected)
        ]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            where = message.location["url"]
            self.complaints.append(f"console {message.type}: {message.text} ({where})")

    def _on_request(self, page: Page, request: Request) -> None:
        target, own = urlsplit(request.url), urlsplit(page.url)
        if target.scheme in ("http", "https") and own.netloc and target.netloc != own.netloc:
            self.complaints.append(f"request to {target.netloc}")


# Chromium without the parts of a desktop browser: a third of the CPU time for the same engine.
LIGHT = "chromium-headless-shell"


@pytest.fixture(scope="session")
def chromium() -> Iterator[tuple[Browser, asyncio.AbstractEventLoop]]:
    """The system's Chromium, and the event loop of the driver that controls it."""
    path = shutil.which(LIGHT) or program("chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield launched, loop
        asyncio._set_running_loop(loop)
        launched.close()


@pytest.fixture(scope="package")
def browser(chromium: tuple[Browser, asyncio.AbstractEventLoop]) -> Iterator[Browser]:
    """The browser, for the tests of this folder.

    The driver leaves its event loop as the thread's running one, and no other loop can run beside
    it, so it is set aside while asynchronous tests of other folders have their turn.
    """
    launched, loop = chromium
    asyncio._set_running_loop(loop)
    yield launched
    asyncio._set_running_loop(None)


@pytest.fixture
def watch() -> Watch:
    """What the pages of this test did; `watch.expects(...)` allows some of it."""
    return Watch()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Run servers until the test's pages are closed: `serve(engine, **settings)`."""
    with ExitStack() as stack:

        def start(engine: Engine | None = None, **values: Any) -> Running:
            return stack.enter_context(serving(engine, **values))

        yield start


@pytest.fixture
def open_page(browser: Browser, watch: Watch, serve: Serve, connect: Connect) -> Iterator[OpenPage]:
    """Open pages, each in a context of its own: `open_page(url, locale="id-ID", …)`.

    They are closed before the servers and cables that they talk to.
    """
    with ExitStack() as stack:

        def opened(url: str | None = None, **options: Any) -> Page:
            chosen = {"viewport": DESK, "locale": "en-US", **options}
            context = stack.enter_context(browser.new_context(**chosen))
            context.set_default_timeout(WAIT_MS)
            page = context.new_page()
            watch.follow(page)
            if url is not None:
                page.goto(url)
            return page

        yield opened
        found = watch.unexpected()
    assert not found, found


@pytest.fixture
def connect(serve: Serve) -> Iterator[Connect]:
    """Put a cable between the browser and a server: `connect(server).base` is its address."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(cable(server.base))


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    """A page of 1280 by 800 that speaks English."""
    return open_page()


@pytest.fixture(scope="package")
def axe() -> str:
    """The source of axe-core."""
    if not AXE.is_file():
        missing("axe-core is not installed: npm install --prefix tests/web")
    return AXE.read_text(encoding="utf-8")
