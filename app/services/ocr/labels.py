"""The labels that are printed on every card, found at the start of lines though misread.

A line may be a label alone, or a label and its value; labels are compared by their letters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz import fuzz

from app.services.ocr.vocabularies import letters

# In the order of the card; `ttl` is place and date of birth.
LABELS: dict[str, tuple[str, ...]] = {
    "nik": ("NIK",),
    "nama": ("NAMA",),
    "ttl": ("TEMPATTGLLAHIR", "TEMPATTGILAHIR", "TEMPATTANGGALLAHIR"),
    "jenis_kelamin": ("JENISKELAMIN",),
    "alamat": ("ALAMAT",),
    "rt_rw": ("RTRW",),
    "kel_desa": ("KELDESA", "KELURAHANDESA"),
    "kecamatan": ("KECAMATAN",),
    "agama": ("AGAMA",),
    "status_perkawinan": ("STATUSPERKAWINAN",),
    "pekerjaan": ("PEKERJAAN",),
    "kewarganegaraan": ("KEWARGANEGARAAN",),
    "berlaku_hingga": ("BERLAKUHINGGA",),
}
ORDER = tuple(LABELS)
_LEAST = {3: 66.0, 4: 75.0, 5: 80.0}
_BLOOD = re.compile(
    r"[GC6]\s?[O0Q]\s?[LI1|](?:ONGAN)?\W*D\s?[AO4]\s?R\s?[AO4]\s?[HNM]?.*$", re.IGNORECASE
)
_SEPARATOR = re.compile(r"\s*[:;：]\s*")


@dataclass(frozen=True, slots=True)
class Label:
    """A label at the start of a line. `rest`: what the line says after it."""

    name: str
    likeness: float
    rest: str


def find_label(text: str) -> Label | None:
    """Return the label that a line begins with, if it begins with one."""
    best: Label | None = None
    before, colon, after = _split(text)
    for name, spellings in LABELS.items():
        for spelling in spellings:
            found = _whole(before, spelling, after) if colon else _prefix(text, spelling)
            if found is None and colon:
                found = _prefix(text, spelling)
            if found is None:
                continue
            likeness, rest = found
            if best is None or likeness > best.likeness + 1e-6:
                best = Label(name, likeness, rest)
    return best


def without_blood_group(text: str) -> str:
    """Return a text without the blood group that stands beside the sex."""
    return _BLOOD.sub("", text).rstrip(" :;-")


def is_blood_group(text: str) -> bool:
    """Say whether the text is the blood group and nothing else."""
    return bool(text.strip()) and not without_blood_group(text).strip()


def _split(text: str) -> tuple[str, bool, str]:
    found = _SEPARATOR.search(text)
    if found is None or found.start() == 0:
        return text, False, ""
    return text[: found.start()], True, text[found.end() :]


def _whole(before: str, spelling: str, after: str) -> tuple[float, str] | None:
    """Compare all that stands before a colon."""
    read = letters(before)
    likeness = fuzz.ratio(read, spelling)
    least = _LEAST.get(len(spelling), 72.0)
    return (likeness, after) if likeness >= least else None


def _prefix(text: str, spelling: str) -> tuple[float, str] | None:
    """Compare the first letters, some more or fewer than the label has."""
    read = letters(text)
    size = len(spelling)
    best, cut = 0.0, 0
    for length in range(max(1, size - 2), min(len(read), size + 2) + 1):
        likeness = fuzz.ratio(read[:length], spelling)
        # Of equals the one whose end is the label's end, so that no letter of the value is lost.
        likeness += 0.5 * (read[:length][-1:] == spelling[-1:])
        if likeness > best:
            best, cut = likeness, length
    alone = len(read) <= size + 1
    least = _LEAST.get(size, 74.0) + (0.0 if alone else 12.0)
    if best < least:
        return None
    if not alone and size <= 5 and not _ends_a_word(text, cut):
        # `NAMA` begins names, `ALAMAT` does not.
        return None
    return min(best, 100.0), _after_letters(text, cut).lstrip(" :;.,-：")


def _ends_a_word(text: str, count: int) -> bool:
    rest = _after_letters(text, count)
    return not rest or not rest[0].isalpha()


def _after_letters(text: str, count: int) -> str:
    """Return what follows the first `count` letters of a text."""
    seen = 0
    for at, char in enumerate(text):
        seen += bool(letters(char))
        if seen == count:
            return text[at + 1 :]
    return ""
