"""What the web page weighs, how soon it is painted, and whether anything jumps while words come.

Starts `python -m app` with a scripted model server behind it, drives the system's Chromium (one
fresh profile a round), prints a table, and takes pictures of every view in every state, at 375 and
1440 pixels, light and dark. Everything is on loopback, so the times are those of the page alone.

    python -m bench.page [--rounds 5] [--words-per-second 40] [--no-pictures]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from app.demo import PAGE, ROOT, article_site, free_port, server
from bench.upstream import Script, Step, running_upstream

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = ROOT / "bench" / "out" / "page"
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = (375, 1440)
HEIGHT = 900
WAIT_MS = 60_000
# A shift within half a second of an input does not count, so the first word comes after that.
QUIET_S = 0.8
# Written down by the browser itself, from the page's first moment.
WATCH = """
window.shifts = [];
window.longTasks = [];
new PerformanceObserver((list) => {
  const box = ({x, y, width, height}) => [x, y, width, height].map(Math.round).join(" ");
  for (const {value, hadRecentInput, sources, startTime} of list.getEntries()) {
    if (hadRecentInput) continue;
    const moved = sources.map(({node, previousRect, currentRect}) => {
      const name = node?.id || node?.className || node?.nodeName || "pseudo-element";
      return `${name}: ${box(previousRect)} -> ${box(currentRect)}`;
    });
    window.shifts.push([Math.round(startTime), value, ...moved]);
  }
}).observe({type: "layout-shift", buffered: true});
new PerformanceObserver((list) => {
  for (const {duration} of list.getEntries()) window.longTasks.push(duration);
}).observe({type: "longtask", buffered: true});
"""
TIMES = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const paints = performance.getEntriesByType("paint").map((one) => [one.name, one.startTime]);
  const scripts = performance.getEntriesByType("resource").filter((one) =>
    one.initiatorType === "script" || one.name.endsWith(".js"));
  return {
    ...Object.fromEntries(paints),
    "DOM content loaded": page.domContentLoadedEventEnd,
    load: page.loadEventEnd,
    blocking: scripts.filter((one) => one.renderBlockingStatus === "blocking").length
      + document.querySelectorAll("script:not([type=module]):not([src])").length,
  };
}"""

SUMMARY = {
    "title": "Harbour town swaps its diesel ferry for two electric boats",
    "main_summary": (
        "Brannock Harbour will retire its 41-year-old diesel ferry next April and run two battery "
        "boats instead, after a vote that split the council five to four. The boats charge at the "
        "pier between crossings and are expected to cost a third less to run within three years."
    ),
    "key_points": [
        "The council approved 18.4 million for two boats of eighty seats and a charging pier",
        "Running costs are expected to fall by a third within three years",
        "Four members wanted to wait for a second offer and voted against it",
        "Residents who depend on the night service will watch the new timetable closely",
    ],
    "category": "Public transport",
    "sentiment": "positive",
    "read_time_min": 4,
}
ANSWER = """An electric ferry is a boat with a **battery instead of a fuel tank**. It suits short \
crossings best, because it can charge at every call.

### What it needs

1. A battery for two crossings, so that one missed charge stops nothing
2. A cable of about 1 MW at one pier
3. A crew that knows how to *coast*

| boat | seats | crossing |
|---|---|---|
| Tern | 80 | 12 min |
| Petrel | 80 | 12 min |

The energy of a crossing is power times time:

```python
def energy_kwh(power_kw: float, minutes: float) -> float:
    return power_kw * minutes / 60
```

More in the [timetable](https://example.org/ferry)."""
QUESTION = "How does an electric ferry work?"
TOPIC = "Why cities plant trees"
BROKEN: Step = {"error": {"message": "the model server ran out of memory", "code": "oom"}}


def pieces(text: str) -> list[Step]:
    """Return a text as a model sends it."""
    return [text[at : at + 5] for at in range(0, len(text), 5)]


@dataclass(frozen=True, slots=True)
class View:
    """One view: its path, what a person does in it, and the part that shows how far it is."""

    path: str
    part: str
    text: str | None
    act: Callable[[Page, str], None]


def summarize(page: Page, url: str) -> None:
    page.locator("#source").fill(url)
    page.locator("#summarize").click()


def ask(page: Page, _: str) -> None:
    page.locator("#message").fill(QUESTION)
    page.locator("#send").click()


def write(page: Page, _: str) -> None:
    page.locator("#topic").fill(TOPIC)
    page.locator("#write").click()


VIEWS = {
    "summarize": View("/", "#card", json.dumps(SUMMARY), summarize),
    "chat": View("/chat", "article[data-role=assistant]", ANSWER, ask),
    # Three kinds of requests, which the model server knows apart by itself.
    "write": View("/write", "#job", None, write),
}


class Bench:
    """A browser, a server and its model, and the address of an article."""

    def __init__(self, browser: Browser, base: str, script: Script, url: str) -> None:
        self.browser = browser
        self.base = base
        self.script = script
        self.url = url

    @contextmanager
    def page(self, width: int, **options: Any) -> Iterator[Page]:
        """Open an empty page in a fresh profile."""
        size = {"width": width, "height": HEIGHT}
        with self.browser.new_context(viewport=size, locale="en-US", **options) as context:  # type: ignore[arg-type]
            context.set_default_timeout(WAIT_MS)
            context.add_init_script(WATCH)
            yield context.new_page()

    def reach(self, page: Page, view: View, state: str) -> None:
        """Bring a view into a state."""
        page.locator(f"{view.part}[data-state={state}]").wait_for()


def weigh(bench: Bench) -> None:
    """Print what is transferred for one visit."""
    with bench.page(1440) as page:
        requests: list[Any] = []
        page.on("requestfinished", lambda request: requests.append(request))
        page.goto(bench.base, wait_until="networkidle")
        sizes = {urlsplit(one.url).path: one.sizes() for one in requests}
    total = 0
    for path, size in sorted(sizes.items()):
        transferred = size["responseHeadersSize"] + size["responseBodySize"]
        total += transferred
        print(f"  {path:<40}{transferred:>8} bytes")
    print(f"transferred, headers included, in {len(sizes)} requests{total:>17} bytes")


def paint(bench: Bench, rounds: int) -> None:
    """Print how soon the page is there."""
    seen: list[dict[str, float]] = []
    for _ in range(rounds):
        with bench.page(1440) as page:
            page.goto(bench.base, wait_until="load")
            seen.append(page.evaluate(TIMES))
    print(f"scripts that block the first paint{int(max(one['blocking'] for one in seen)):>20}")
    for name in ("first-paint", "first-contentful-paint", "DOM content loaded", "load"):
        values = [one[name] for one in seen]
        middle, worst = statistics.median(values), max(values)
        print(f"{name.replace('-', ' ')}, p50 / max of {rounds}{middle:>17.0f} / {worst:.0f} ms")


def watch(bench: Bench, words_per_second: float) -> None:
    """Print what moves, and what keeps the page busy, while each view is written."""
    for name, view in VIEWS.items():
        for width in WIDTHS:
            steps = None if view.text is None else [QUIET_S, *pieces(view.text)]
            bench.script.steps = steps
            bench.script.words_per_second = words_per_second
            with bench.page(width) as page:
                page.goto(bench.base + view.path, wait_until="networkidle")
                view.act(page, f"{bench.url}?{name}-{width}")
                bench.reach(page, view, "done")
                shifts = page.evaluate("window.shifts")
                tasks = page.evaluate("window.longTasks")
            moved = sum(shift[1] for shift in shifts)
            longest = f"{max(tasks):.0f} ms" if tasks else "none"
            print(
                f"{name:<10} {width:>5} px  layout shift {moved:.5f}  longest long task {longest}"
            )
            for shift in shifts:
                print(f"    {shift}")


def picture(bench: Bench, name: str, state: str) -> None:
    """Take the four pictures of a view in a state."""
    view = VIEWS[name]
    text, gate = view.text or "", threading.Event()
    script = bench.script
    script.words_per_second = 0.0
    script.steps = None if view.text is None else pieces(text)
    half = pieces(text)[: len(pieces(text)) // 2]
    if state == "running":
        script.steps, script.words_per_second = ([*half, gate], 0.0) if text else (None, 60.0)
    if state == "failed":
        script.steps = [*half, BROKEN] if text else [BROKEN]
    with bench.page(1440, reduced_motion="reduce") as page:
        page.goto(bench.base + view.path, wait_until="networkidle")
        if state != "empty":
            view.act(page, f"{bench.url}?{state}")
            bench.reach(page, view, state)
        if state == "running" and text:
            page.wait_for_timeout(500)
        if state == "running" and not text:
            page.locator("#sections li[data-state=done]").first.wait_for()
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            for colours in ("light", "dark"):
                page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
                path = PICTURES / f"{name}-{state}-{width}-{colours}.png"
                page.screenshot(path=path, full_page=True, animations="disabled")
    gate.set()


def main() -> None:
    """Print the tables and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words-per-second", type=float, default=40.0)
    parser.add_argument("--no-pictures", action="store_true")
    options = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise SystemExit("playwright is missing: pip install -r requirements-dev.txt") from None
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is not installed")
    PICTURES.mkdir(parents=True, exist_ok=True)
    with article_site() as site_port, running_upstream() as (engine_url, script):
        variables = {
            "ENGINE_URL": engine_url,
            "FETCH_ALLOW_HOSTS": f"127.0.0.1:{site_port}",
            # The same article is asked for again and again, and each time it is to be written.
            "SUMMARY_CACHE_SIZE": "0",
            "LOG_LEVEL": "error",
        }
        with server(free_port(), variables=variables) as one, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
            url = f"http://127.0.0.1:{site_port}/{Path(PAGE).name}"
            bench = Bench(browser, one.base, script, url)
            weigh(bench)
            paint(bench, options.rounds)
            watch(bench, options.words_per_second)
            if not options.no_pictures:
                for name in VIEWS:
                    for state in ("empty", "running", "done", "failed"):
                        picture(bench, name, state)
                print(f"pictures are in {PICTURES.relative_to(ROOT)}")
            browser.close()


if __name__ == "__main__":
    main()
