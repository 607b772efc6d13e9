"""Which texts of a list say what the list as a whole says, and how alike two of them are.

Centrality is LexRank's continuous form (Erkan & Radev 2004): the stationary distribution of a walk
over the sentence graph of TextRank (Mihalcea & Tarau 2004), whose edges are TF-IDF cosines. Picking
without repetition is maximal marginal relevance (Carbonell & Goldstein 1998).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engine.text.sentences import HAN_KANA, SOUTH_EAST_ASIAN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DAMPING = 0.85
ITERATIONS = 50
TOLERANCE = 1e-6
RELEVANCE = 0.75

_UNSPACED = re.compile(f"[{HAN_KANA}{SOUTH_EAST_ASIAN}]+")
_EDGES = "\"'“”‘’«»‹›()[]{}<>.,;:!?…-–—*/\\|。、，！？；：「」『』（）【】《》،؛؟।"


@dataclass(frozen=True, slots=True)
class Ranking:
    """What is known of n texts.

    `centrality`: (n,), mean 1. `title_similarity`: (n,), 0 to 1. `similarity`: (n, n), 0 to 1.
    """

    centrality: NDArray[np.float64]
    title_similarity: NDArray[np.float64]
    similarity: NDArray[np.float64]


def terms(text: str) -> Iterator[str]:
    """Yield the terms of a text: words, and 2- and 3-grams where the script has no spaces."""
    folded = text.casefold()
    for run in _UNSPACED.findall(folded):
        if len(run) == 1:
            yield run
        for size in (2, 3):
            for start in range(len(run) - size + 1):
                yield run[start : start + size]
    for token in _UNSPACED.sub(" ", folded).split():
        word = token.strip(_EDGES).removesuffix("'s").removesuffix("’s")
        if word:
            yield word


def rank(texts: Sequence[str], title: str = "") -> Ranking:
    """Rank `texts` by how central they are, and compare each with `title` and with each other."""
    import numpy as np
    from scipy import sparse

    counts = [Counter(terms(text)) for text in texts]
    frequency: Counter[str] = Counter()
    for count in counts:
        frequency.update(count.keys())
    column = {term: number for number, term in enumerate(frequency)}
    # 0.5 keeps a term of every text just above zero, so that twins stay alike.
    weight = {term: math.log((len(texts) + 0.5) / df) for term, df in frequency.items()}
    rows, columns, values = [], [], []
    for row, count in enumerate([*counts, Counter(terms(title))]):
        weighted = {t: (1 + math.log(n)) * weight[t] for t, n in count.items() if t in column}
        norm = math.sqrt(sum(value * value for value in weighted.values())) or 1.0
        for term, value in weighted.items():
            rows.append(row)
            columns.append(column[term])
            values.append(value / norm)
    shape = (len(texts) + 1, max(1, len(column)))
    matrix = sparse.csr_matrix((values, (rows, columns)), shape=shape, dtype=np.float64)
    vectors = matrix[: len(texts)]
    cosines = (vectors @ vectors.T).tocsr()
    similarity = np.asarray(cosines.toarray(), dtype=np.float64)
    np.fill_diagonal(similarity, 1.0)
    return Ranking(
        centrality=_page_rank(cosines),
        title_similarity=np.asarray((vectors @ matrix[len(texts) :].T).toarray()).reshape(-1),
        similarity=similarity,
    )


def _page_rank(cosines: object) -> NDArray[np.float64]:
    """Walk the graph of `cosines` (a sparse (n, n) matrix) until the distribution stands still."""
    import numpy as np
    from scipy import sparse

    graph = sparse.csr_matrix(cosines)
    size = graph.shape[0]
    graph = graph - sparse.diags(graph.diagonal())
    degree = np.asarray(graph.sum(axis=1)).reshape(-1)
    dangling = degree <= 1e-12
    inverse = np.where(dangling, 0.0, 1.0 / np.where(dangling, 1.0, degree))
    step = (sparse.diags(inverse) @ graph).T.tocsr()
    score = np.full(size, 1.0 / size)
    for _ in range(ITERATIONS):
        spread = step @ score + score[dangling].sum() / size
        moved = DAMPING * spread + (1 - DAMPING) / size
        change = float(np.abs(moved - score).sum())
        score = moved
        if change < TOLERANCE:
            break
    result: NDArray[np.float64] = score * size
    return result


def pick(
    scores: NDArray[np.float64],
    similarity: NDArray[np.float64],
    candidates: Sequence[int],
    *,
    avoid: Sequence[int] = (),
) -> Iterator[int]:
    """Yield `candidates`, best first, each weighed against what was yielded before and `avoid`."""
    import numpy as np

    left = list(candidates)
    if not left:
        return
    best = max(float(scores[left].max()), 1e-12)
    nearest = similarity[:, list(avoid)].max(axis=1) if avoid else np.zeros(len(scores))
    while left:
        gains = RELEVANCE * scores[left] / best - (1 - RELEVANCE) * nearest[left]
        chosen = left.pop(int(gains.argmax()))
        yield chosen
        nearest = np.maximum(nearest, similarity[:, chosen])
