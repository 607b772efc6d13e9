"""How much of the article extraction finds, and how much else: `python -m bench.extraction`.

The score is that of https://github.com/scrapinghub/article-extraction-benchmark (evaluate.py):
shingles of four tokens counted as multisets, precision and recall averaged over the pages, F1 of
the averages. The folder holds `ground-truth.json` ({key: {"articleBody", "url"}}) and
`<key>.html.gz`, as that benchmark lays them out.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import trafilatura

from app.core.errors import ScrapeFailed
from app.services.extraction.article import read_article
from app.services.extraction.charset import decode_text
from app.services.fetching.fetch import Page

SHINGLE_TOKENS = 4
_TOKEN = re.compile(r"\w+")

Extract = Callable[[Page], str]


def ours(page: Page) -> str:
    try:
        return read_article(page).content
    except ScrapeFailed:
        return ""


def plain_trafilatura(page: Page) -> str:
    return trafilatura.extract(decode_text(page.body)) or ""


def shingles(text: str) -> Counter[tuple[str, ...]]:
    tokens = _TOKEN.findall(text)
    starts = range(max(1, len(tokens) - SHINGLE_TOKENS + 1))
    return Counter(tuple(tokens[i : i + SHINGLE_TOKENS]) for i in starts if tokens)


def score(truth: str, found: str) -> tuple[float | None, float | None]:
    """Return precision and recall of one page; None where the benchmark leaves the page out."""
    true, seen = shingles(truth), shingles(found)
    hits = (true & seen).total()
    precision = hits / seen.total() if seen else None
    recall = hits / true.total() if true else None
    return precision, recall


def measure(extract: Extract, pages: list[tuple[Page, str]]) -> tuple[float, float, float, float]:
    """Return precision, recall, F1 and the median milliseconds a page."""
    precisions, recalls, times_ms = [], [], []
    for page, truth in pages:
        started_s = time.perf_counter()
        found = extract(page)
        times_ms.append((time.perf_counter() - started_s) * 1000)
        precision, recall = score(truth, found)
        precisions += [precision] if precision is not None else []
        recalls += [recall] if recall is not None else []
    p, r = statistics.mean(precisions), statistics.mean(recalls)
    return p, r, 2 * p * r / (p + r) if p + r else 0.0, statistics.median(times_ms)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("PRECIS_ARTICLES"), metavar="DIR")
    data = parser.parse_args().data
    if not data or not (Path(data) / "ground-truth.json").is_file():
        print("No articles: give --data DIR or set PRECIS_ARTICLES to a folder with")
        print("ground-truth.json and <key>.html.gz files of the article-extraction-benchmark.")
        return 2
    folder = Path(data)
    truth = json.loads((folder / "ground-truth.json").read_text("utf-8"))
    pages = []
    for key, entry in truth.items():
        body = gzip.decompress((folder / f"{key}.html.gz").read_bytes())
        url = entry.get("url") or "https://example.com/"
        pages.append((Page(url, "text/html", None, body), entry.get("articleBody", "")))
    print(f"{len(pages)} pages")
    print(f"{'':22}{'precision':>10}{'recall':>10}{'F1':>10}{'ms/page':>10}")
    for name, extract in (("trafilatura default", plain_trafilatura), ("precis", ours)):
        extract(pages[0][0])
        p, r, f1, ms = measure(extract, pages)
        print(f"{name:22}{p:>10.3f}{r:>10.3f}{f1:>10.3f}{ms:>10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
