"""From lines of text to the fields of an ID card; it knows no OCR library and no image.

Values stand right of their labels in rows. A value whose label was not read is told by its place
in the order of rows; what stands under the photo belongs to no field.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from rapidfuzz import fuzz

from app.services.ocr.fields import FIELDS, FieldRead, check, read_fields
from app.services.ocr.labels import ORDER, find_label, is_blood_group
from app.services.ocr.lines import Line, Placed, lay_straight
from app.services.ocr.nik import known_province, read_nik
from app.services.ocr.vocabularies import letters

MIN_LABELS = 5
MIN_ROWS = 3
WHOLE_SCORE = len(ORDER) + len(FIELDS) + 3
# Where the photo begins: so many times as far from the labels as the values are.
_PHOTO = 2.7
# Rows are about as far from each other as lines are high; indented labels by under four heights.
_SAME_ROW = 0.45
_INDENT = 4.5
_GAP = 2.2


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one image.

    `labels`: how many of 13 were found; `rows`: how many of them have a value beside them;
    `lines`: by label, the lines of its value.
    """

    fields: dict[str, FieldRead] = field(repr=False)
    warnings: tuple[str, ...] = ()
    labels: int = 0
    rows: int = 0
    header: bool = False
    lines: dict[str, list[Line]] = field(default_factory=dict, repr=False)

    @property
    def is_ktp(self) -> bool:
        """Five labels, values beside them, and a NIK or the header."""
        nik = self.fields["nik"].value
        told = self.header or (bool(nik) and known_province(nik))
        return self.labels >= MIN_LABELS and self.rows >= MIN_ROWS and told

    @property
    def score(self) -> int:
        """How much was found, of `WHOLE_SCORE`."""
        found = sum(1 for read in self.fields.values() if read.value)
        return self.labels + found + 3 * bool(self.fields["nik"].value)


@dataclass(slots=True)
class _Row:
    """A label, `rest` what its own line says after it, and the lines of its value."""

    name: str
    label: Placed
    likeness: float
    rest: str
    values: list[Placed] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Columns:
    labels: float
    values: float
    height: float
    pitch: float

    @property
    def photo(self) -> float:
        return self.labels + _PHOTO * (self.values - self.labels)


def read_card(lines: Sequence[Line]) -> Reading:
    """Return the fields of a card; all empty where the lines are of no card."""
    placed = lay_straight(lines)
    rows = _label_rows(placed)
    labels = {id(row.label) for row in rows}
    others = [item for item in placed if id(item) not in labels]
    header = any(_is_header(item.text) for item in others)
    texts: dict[str, list[tuple[str, Line]]] = {}
    if rows:
        columns = _columns(rows, others)
        told = _beside(rows, others, columns)
        missed = _without_label(rows, [o for o in others if id(o) not in told], columns)
        for row in rows:
            said = [(row.rest, row.label.line)] if row.rest.strip(" :;.-") else []
            texts[row.name] = said + [(item.text, item.line) for item in row.values]
        texts |= missed
    if not read_fields(texts)["nik"].value:
        texts["nik"] = _loose_nik(others) or texts.get("nik", [])
    fields, warnings = check(read_fields(texts))
    return Reading(
        fields,
        warnings,
        labels=len(rows),
        rows=sum(bool(texts[row.name]) for row in rows),
        header=header,
        lines={name: [line for _, line in said] for name, said in texts.items()},
    )


def _label_rows(placed: Sequence[Placed]) -> list[_Row]:
    """Return the labels, each once, in the order of the card and in one column."""
    found = []
    for item in placed:
        label = find_label(item.text)
        if label is not None:
            found.append(_Row(label.name, item, label.likeness, label.rest))
    if not found:
        return []
    left = median(row.label.left for row in found)
    height = median(row.label.height for row in found)
    return _in_order([r for r in found if abs(r.label.left - left) < _INDENT * height])


def _in_order(rows: Sequence[_Row]) -> list[_Row]:
    """Return the likeliest rows whose labels come in the order of the card, each once."""
    best: list[tuple[float, list[_Row]]] = []
    for row in rows:
        before = [chain for chain in best if ORDER.index(chain[1][-1].name) < ORDER.index(row.name)]
        weight, chain = max(before, key=lambda chain: chain[0], default=(0.0, []))
        best.append((weight + row.likeness, [*chain, row]))
    return max(best, key=lambda chain: chain[0], default=(0.0, []))[1]


def _columns(rows: Sequence[_Row], others: Sequence[Placed]) -> _Columns:
    height = median(row.label.height for row in rows)
    labels = median(row.label.left for row in rows)
    steps = [
        (below.label.row - above.label.row) / (ORDER.index(below.name) - ORDER.index(above.name))
        for above, below in itertools.pairwise(rows)
        if above.name != "nik"
    ]
    pitch = median(steps) if steps else 1.2 * height
    firsts = []
    for row in rows:
        right = [
            item.left
            for item in others
            if abs(item.row - row.label.row) < _SAME_ROW * pitch and item.left > row.label.right
        ]
        firsts += [min(right)] if right else []
    values = median(firsts) if firsts else labels + 7.5 * height
    return _Columns(labels, values, height, max(pitch, 0.6 * height))


def _beside(rows: Sequence[_Row], others: Sequence[Placed], columns: _Columns) -> set[int]:
    """Put each line that stands in a label's row to it; return which were."""
    told: set[int] = set()
    by_row: dict[int, list[Placed]] = {}
    for item in others:
        nearest = min(range(len(rows)), key=lambda i: abs(rows[i].label.row - item.row))
        row = rows[nearest]
        if abs(row.label.row - item.row) > max(_SAME_ROW * columns.pitch, 0.3 * item.height):
            continue
        told.add(id(item))
        if item.left > row.label.left + columns.height and item.left < columns.photo:
            by_row.setdefault(nearest, []).append(item)
    for index, items in by_row.items():
        rows[index].values = _together(items, columns.height)
    return told


def _together(items: Iterable[Placed], height: float) -> list[Placed]:
    """Return the lines of one row without the blood group and what stands far behind."""
    kept: list[Placed] = []
    for item in sorted(items, key=lambda item: item.left):
        if is_blood_group(item.text):
            break
        far = kept and item.left - kept[-1].right > _GAP * height
        if far and kept[-1].text.strip(" :;.-"):
            break
        kept.append(item)
    return kept


def _without_label(
    rows: Sequence[_Row], others: Sequence[Placed], columns: _Columns
) -> dict[str, list[tuple[str, Line]]]:
    """Put the lines of the value column that stand in no label's row where they belong.

    Between two labels that follow each other they continue the upper value; else they are the
    values of the labels that were not read, in order.
    """
    missed: dict[str, list[tuple[str, Line]]] = {}
    near = 3 * columns.height
    loose = [o for o in others if abs(o.left - columns.values) < near and o.left < columns.photo]
    for at in range(-1, len(rows)):
        above = rows[at] if at >= 0 else None
        below = rows[at + 1] if at + 1 < len(rows) else None
        between = [
            item
            for item in loose
            if (above is None or item.row > above.label.row)
            and (below is None or item.row < below.label.row)
        ]
        first = ORDER.index(above.name) + 1 if above else 0
        names = ORDER[first : ORDER.index(below.name) if below else len(ORDER)]
        groups = _by_row(between, columns)
        if above is None and below is not None:
            # Above the first label stands the header too: what is nearest to the label counts.
            groups = (
                [g for g in groups if not _is_header(g[0].text)][-len(names) :] if names else []
            )
        spare = len(groups) - len(names)
        for number, group in enumerate(groups):
            if above is not None and number < spare and number < 2:
                above.values += group
            elif names:
                name = _name_at(group[0].row, number - max(spare, 0), names, above, below, columns)
                missed.setdefault(name, []).extend((i.text, i.line) for i in group)
    return missed


def _by_row(items: Sequence[Placed], columns: _Columns) -> list[list[Placed]]:
    groups: list[list[Placed]] = []
    for item in items:
        if groups and item.row - groups[-1][0].row < _SAME_ROW * columns.pitch:
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups


def _name_at(
    at: float,
    number: int,
    names: Sequence[str],
    above: _Row | None,
    below: _Row | None,
    columns: _Columns,
) -> str:
    """Return which of the labels that were not read a row has, by how far it is from those read."""
    if above is not None:
        step = round((at - above.label.row) / columns.pitch) - 1
    elif below is not None:
        step = len(names) - round((below.label.row - at) / columns.pitch)
    else:
        step = number
    return names[min(max(step, 0), len(names) - 1)]


def _loose_nik(others: Sequence[Placed]) -> list[tuple[str, Line]]:
    """Return the line that is a NIK though no label was read beside it."""
    return next(([(o.text, o.line)] for o in others if read_nik(o.text)), [])


def _is_header(text: str) -> bool:
    read = letters(text)
    return len(read) > 9 and fuzz.ratio(read[:8], "PROVINSI") >= 80
