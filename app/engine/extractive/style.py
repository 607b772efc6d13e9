"""How each style is to read, and how well a passage suits it (C14).

skimmer: short, with the hard facts. executive: what it means for business, so figures, money and
names. eli5: the shortest plain sentences.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import TYPE_CHECKING

from app.engine.extractive.passages import Passage
from app.engine.extractive.ranking import Ranking

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FIGURE = re.compile(r"\d+")
_MONEY = re.compile(
    r"[$€£¥₹₩%％]|\bRp\b|\b(?:percent|per cent|persen|prozent|million|billion|trillion|juta|miliar|"
    r"triliun|millionen|milliarden|dollars?|euros?|yuan|yen)\b|[万亿億]|млн|млрд|процент",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?<=[\w,] )(?:[A-Z][\w&.’'-]+ ){1,4}[A-Z][\w&’'-]+|(?<=[\w,] )[A-Z]{2,}\b")
_STOCK = re.compile(
    r"\b(?:declined|refused) to comment|did(?: not|n.t) (?:immediately )?(?:respond|reply)|"
    r"could not be reached|menolak berkomentar",
    re.IGNORECASE,
)
# A short sentence with one of these says little away from the sentence before it.
_POINTING = re.compile(r"\b(?:it|them|him|they|there|so|too)\b")
_LEANING = re.compile(
    r"^(?:[\"'“‘«]|(?:he|she|it|they|we|you|i|this|that|these|those|but|and|so|or|then|however|also|"
    r"his|her|their|its|there|here|meanwhile|dia|ia|mereka|itu|ini|tetapi|tapi|namun|dan|er|sie|es|"
    r"aber|und|он|она|они|это|но|и|а)\b|但|而且|しかし|また|แต่)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Style:
    """What a style's reader wants. The weights are 0 (does not matter) to 1."""

    summary_sentences: int
    summary_chars: int
    points: int
    point_chars: int
    figures: float
    names: float
    brevity: float
    plainness: float


EXECUTIVE = Style(3, 560, 5, 220, figures=1.0, names=1.0, brevity=0.0, plainness=0.0)
STYLES = {
    "executive": EXECUTIVE,
    "skimmer": Style(2, 250, 3, 130, figures=0.8, names=0.3, brevity=0.3, plainness=0.0),
    "eli5": Style(2, 240, 3, 130, figures=0.0, names=0.0, brevity=0.3, plainness=1.0),
}


def score(parts: Sequence[Passage], ranking: Ranking, style: Style) -> NDArray[np.float64]:
    """Weigh centrality by place, likeness to the title, form, and what the style wants."""
    import numpy as np

    scores = np.ones(max(1, len(parts)))
    for i, part in enumerate(parts):
        weight = float(ranking.centrality[i]) * (1 + exp(-i / 3))
        weight *= 1 + 0.8 * float(ranking.title_similarity[i])
        scores[i] = weight * form(part) * _taste(part, style)
    return scores


def form(part: Passage) -> float:
    """Weigh a passage by its form alone: whole, self-contained, of a readable length."""
    weight = 1.0 if part.whole else 0.45
    weight *= min(1.0, (part.words + 2) / 12)
    if part.words > 38:
        weight *= 0.7
    if _STOCK.search(part.text):
        weight *= 0.3
    if _LEANING.match(part.text):
        weight *= 0.65 if part.words >= 14 else 0.4
    elif part.words < 14 and _POINTING.search(part.text):
        weight *= 0.7
    if part.text.rstrip("\"'”’»)」』）").endswith(("?", "？", "؟")):
        weight *= 0.5
    return weight


def _taste(part: Passage, style: Style) -> float:
    text = part.text
    figures = 0.5 * bool(_FIGURE.search(text)) + 0.5 * bool(_MONEY.search(text))
    names = min(2, len(_NAME.findall(text))) / 2
    taste = (1 + 0.5 * style.figures * figures) * (1 + 0.3 * style.names * names)
    taste *= exp(-style.brevity * max(0, part.words - 12) / 10)
    letters = sum(map(str.isalpha, text)) / max(1, part.words)
    plain = exp(-0.4 * max(0.0, letters - 4.6)) * (1 - 0.3 * names)
    plain *= 0.75 ** len(_FIGURE.findall(text))
    return taste * (1 - style.plainness + style.plainness * plain)
