"""How much of the article extraction finds, how much else, and how long it takes.

    python -m bench.extraction --data FOLDER [--rounds 3]

The score is that of https://github.com/scrapinghub/article-extraction-benchmark (evaluate.py):
shingles of four tokens counted as multisets, precision and recall averaged over the pages, F1 of
the averages. The folder holds `ground-truth.json` ({key: {"articleBody", "url"}}) and
`<key>.html.gz`, as that benchmark lays them out.

The range beside F1 is what 95 of 100 draws of as many pages, with repetition, give. Last comes a
number that was chosen by hand, when a page's JSON-LD wins over its text, cross-validated: each fold
is scored with the value that is best on the other folds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import trafilatura
from lxml import html

from app.core.errors import ScrapeFailed
from app.services.extraction import html_article
from app.services.extraction.article import read_article
from app.services.extraction.charset import decode_text
from app.services.fetching.fetch import Page

SHINGLE_TOKENS = 4
DRAWS = 2_000
FOLDS = 5
JSON_LD_WINS = (1.2, 1.5, 2.0, 3.0, 5.0)
_TOKEN = re.compile(r"\w+")

Extract = Callable[[Page], str]
# Precision and recall of one page; None where the benchmark leaves the page out.
Score = tuple[float | None, float | None]


def ours(page: Page) -> str:
    try:
        return read_article(page).content
    except ScrapeFailed:
        return ""


def plain_trafilatura(page: Page) -> str:
    return trafilatura.extract(decode_text(page.body)) or ""


def plain_readability(page: Page) -> str:
    # Not among the requirements, since old pip versions fail on its extras:
    # pip install --no-deps readability-lxml cssselect chardet
    import readability

    summary = readability.Document(decode_text(page.body)).summary()
    return str(html.fromstring(summary).text_content())


TOOLS: dict[str, Extract] = {
    "precis": ours,
    "trafilatura default": plain_trafilatura,
    "readability-lxml": plain_readability,
}


def shingles(text: str) -> Counter[tuple[str, ...]]:
    tokens = _TOKEN.findall(text)
    starts = range(max(1, len(tokens) - SHINGLE_TOKENS + 1))
    return Counter(tuple(tokens[i : i + SHINGLE_TOKENS]) for i in starts if tokens)


def score(truth: str, found: str) -> Score:
    true, seen = shingles(truth), shingles(found)
    hits = (true & seen).total()
    precision = hits / seen.total() if seen else None
    recall = hits / true.total() if true else None
    return precision, recall


def averages(scores: Sequence[Score]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of the pages together."""
    p = statistics.mean([p for p, _ in scores if p is not None] or [0.0])
    r = statistics.mean([r for _, r in scores if r is not None] or [0.0])
    return p, r, 2 * p * r / (p + r) if p + r else 0.0


def drawn_range(scores: Sequence[Score]) -> tuple[float, float]:
    """Return the range of F1 in 95 of 100 draws of pages with repetition."""
    chance = random.Random(0)
    drawn = sorted(averages(chance.choices(scores, k=len(scores)))[2] for _ in range(DRAWS))
    return drawn[int(DRAWS * 0.025)], drawn[int(DRAWS * 0.975)]


def cross_validated(scores_of: dict[float, list[Score]]) -> tuple[float, Counter[float]]:
    """Return F1 over all pages, each scored with the value that is best on the other folds."""
    count = len(next(iter(scores_of.values())))
    scored: list[Score] = []
    chosen: Counter[float] = Counter()
    for fold in range(FOLDS):
        others = [page for page in range(count) if page % FOLDS != fold]
        best = max(scores_of, key=lambda v: averages([scores_of[v][page] for page in others])[2])
        chosen[best] += 1
        scored += [scores_of[best][page] for page in range(fold, count, FOLDS)]
    return averages(scored)[2], chosen


def timed(extract: Extract, page: Page, rounds: int) -> tuple[str, float, float]:
    """Return what was found, and the best milliseconds of `rounds`: by the clock, of the CPU."""
    walls, cpus = [], []
    for _ in range(rounds):
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = extract(page)
        cpus.append((time.process_time() - cpu_s) * 1000)
        walls.append((time.perf_counter() - wall_s) * 1000)
    return found, min(walls), min(cpus)


def p50_p95(values: list[float]) -> str:
    ordered = sorted(values)
    return (
        f"{statistics.median(ordered):.0f}/{ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]:.0f}"
    )


def read_pages(folder: Path) -> list[tuple[Page, str]]:
    pages = []
    for key, entry in json.loads((folder / "ground-truth.json").read_text("utf-8")).items():
        body = gzip.decompress((folder / f"{key}.html.gz").read_bytes())
        url = entry.get("url") or "https://example.com/"
        pages.append((Page(url, "text/html", None, body), entry.get("articleBody", "")))
    return pages


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("PRECIS_ARTICLES"), metavar="DIR")
    parser.add_argument("--rounds", type=int, default=3, help="how often each page is timed")
    options = parser.parse_args()
    data = options.data
    if not data or not (Path(data) / "ground-truth.json").is_file():
        print("No articles: give --data DIR or set PRECIS_ARTICLES to a folder with")
        print("ground-truth.json and <key>.html.gz files of the article-extraction-benchmark.")
        return 2
    pages = read_pages(Path(data))
    print(f"{len(pages)} pages; milliseconds a page, p50/p95, best of {options.rounds}")
    head = ("precision", "recall", "F1", "95 % of draws", "clock", "CPU")
    print(f"{'':22}{head[0]:>10}{head[1]:>8}{head[2]:>8}{head[3]:>16}{head[4]:>10}{head[5]:>10}")
    for name, extract in TOOLS.items():
        scores, walls, cpus = [], [], []
        for page, truth in pages:
            found, wall_ms, cpu_ms = timed(extract, page, max(1, options.rounds))
            scores.append(score(truth, found))
            walls.append(wall_ms)
            cpus.append(cpu_ms)
        p, r, f1 = averages(scores)
        low, high = drawn_range(scores)
        print(
            f"{name:22}{p:>10.3f}{r:>8.3f}{f1:>8.3f}{f'{low:.3f} to {high:.3f}':>16}"
            f"{p50_p95(walls):>10}{p50_p95(cpus):>10}"
        )
    scores_of: dict[float, list[Score]] = {}
    for value in JSON_LD_WINS:
        html_article.JSON_LD_WINS = value
        scores_of[value] = [score(truth, ours(page)) for page, truth in pages]
    f1, chosen = cross_validated(scores_of)
    print(
        f"precis, {FOLDS} folds, JSON-LD wins from that many times the text on: F1 {f1:.3f}", end=""
    )
    print(" (chosen: " + ", ".join(f"{value:g} in {n}" for value, n in chosen.items()) + ")")
    return 0


if __name__ == "__main__":
    sys.exit(main())
