"""From the texts beside labels to the values of contract 5, and what is doubtful about them.

A value is what the card says or empty, never a default. It knows nothing of geometry.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from app.services.ocr.labels import without_blood_group
from app.services.ocr.lines import Box, Line
from app.services.ocr.nik import (
    agrees,
    before_date,
    birth_of_nik,
    known_province,
    read_date,
    read_nik,
    read_rt_rw,
    repair_date,
)
from app.services.ocr.vocabularies import (
    FOR_LIFE,
    NATIONALITIES,
    OCCUPATIONS,
    RELIGIONS,
    SEXES,
    STATUSES,
    match_whole,
)

FIELDS = (
    "nik", "nama", "tempat_lahir", "tgl_lahir", "jenis_kelamin", "alamat", "rt_rw", "kel_desa",
    "kecamatan", "agama", "status_perkawinan", "pekerjaan", "kewarganegaraan", "berlaku_hingga",
)  # fmt: skip
# So many empty fields make a card unclear.
UNCLEAR = 4

_EDGES = " \t:;,=~_*'\"`^|-"
_FOREIGN = re.compile(r"[^A-Z0-9 .,'’()/&+:\-]")
_BETWEEN_WORDS = re.compile(r"(?<=[A-Z]{2})\.(?=[A-Z]{3})")


@dataclass(frozen=True, slots=True)
class FieldRead:
    """A value, how sure it is (0 to 1) and where it stands; empty where it was not read."""

    value: str = field(default="", repr=False)
    confidence: float = 0.0
    box: Box | None = None


Texts = Mapping[str, Sequence[tuple[str, Line]]]


def read_fields(texts: Texts) -> dict[str, FieldRead]:
    """Return every field; `texts`: by label, what stands beside it, in reading order."""
    read: dict[str, FieldRead] = {}
    for name, label, rule in _RULES:
        said = texts.get(label, ())
        value = rule([text for text, _ in said]) if said else ""
        read[name] = _field(value, [line for _, line in said]) if value else FieldRead()
    return read


def value_of(name: str, text: str) -> str:
    """Return one text as the value of a field, by the rules of what OCR reads."""
    rule = next(rule for field_name, _, rule in _RULES if field_name == name)
    return rule([text])


def check(read: Mapping[str, FieldRead]) -> tuple[dict[str, FieldRead], tuple[str, ...]]:
    """Return the fields with the NIK checked against the card, and the warnings."""
    fields = dict(read)
    warnings: list[str] = []
    nik, birth = fields["nik"].value, fields["tgl_lahir"].value
    if nik and birth_of_nik(nik) is None:
        repaired = repair_date(nik, birth, fields["jenis_kelamin"].value)
        found = fields["nik"]
        # Half as sure: two digits are the birth date's and not the number's.
        fields["nik"] = (
            FieldRead(repaired, found.confidence / 2, found.box) if repaired else FieldRead()
        )
        warnings.append("nik_repaired" if repaired else "nik_unreadable")
        nik = repaired
    elif not nik:
        warnings.append("nik_unreadable")
    if nik:
        warnings += _doubts(nik, birth, fields["jenis_kelamin"].value)
    if sum(not fields[name].value for name in FIELDS) >= UNCLEAR:
        warnings.append("unclear")
    return fields, tuple(warnings)


def _doubts(nik: str, birth: str, sex: str) -> list[str]:
    """Return what differs between a NIK and the rest of its card; nothing is changed."""
    told = birth_of_nik(nik)
    found = []
    if not known_province(nik):
        found.append("nik_province_unknown")
    if birth and not agrees(nik, birth):
        found.append("nik_birth_date_differs")
    if told and sex and (sex == "PEREMPUAN") != told[3]:
        found.append("nik_sex_differs")
    return found


def clean(text: str) -> str:
    """Return a text in capitals without what no card prints and without stray marks at its ends."""
    plain = unicodedata.normalize("NFKC", text).upper().replace("’", "'")
    return re.sub(r"\s+", " ", _FOREIGN.sub(" ", plain)).strip(_EDGES).lstrip(".").strip(_EDGES)


def _joined(texts: Sequence[str]) -> str:
    return clean(" ".join(texts))


def _name(texts: Sequence[str]) -> str:
    """Return a name: no digits, one space after a comma."""
    said = _joined(texts).replace("0", "O").replace("1", "I")
    # Before a degree stands a comma, which is read as a dot now and then.
    said = re.sub(r"(?<=[A-Z]{4})\.(?= ?[ASM]\.[A-Z])", ",", said)
    said = re.sub(r"\s*,\s*", ", ", said)
    return re.sub(r"[0-9:]", "", said).strip(_EDGES)


def _place_name(texts: Sequence[str]) -> str:
    return re.sub(r"\s*/\s*", "/", _joined(texts)).strip(_EDGES + ".")


def _address(texts: Sequence[str]) -> str:
    said = re.sub(r"\s*,\s*", ", ", _joined(texts))
    # `JL.MELATI` and `NO.7` are printed with a space.
    said = re.sub(r"\b(NO|BLOK|GG|KAV)\.(?=[A-Z0-9])", r"\1. ", said)
    return _BETWEEN_WORDS.sub(". ", said).strip(_EDGES)


def _birth_place(texts: Sequence[str]) -> str:
    said = clean(before_date(unicodedata.normalize("NFKC", " ".join(texts)).strip()))
    return re.sub(r"\s*,\s*", ", ", re.sub(r"[0-9]+$", "", said)).strip(_EDGES + ".")


def _date(texts: Sequence[str]) -> str:
    return read_date(unicodedata.normalize("NFKC", " ".join(texts)))


def _first_nik(texts: Sequence[str]) -> str:
    plain = [unicodedata.normalize("NFKC", text) for text in texts]
    return next((nik for nik in map(read_nik, [*plain, "".join(plain)]) if nik), "")


def _rt_rw(texts: Sequence[str]) -> str:
    return read_rt_rw(unicodedata.normalize("NFKC", " ".join(texts)).strip(_EDGES))


def _whole(words: Sequence[str], least: float) -> Callable[[Sequence[str]], str]:
    """Return a rule: all that was read, or one piece of it, is a word of the vocabulary."""

    def rule(texts: Sequence[str]) -> str:
        plain = [clean(without_blood_group(text)) for text in texts]
        tried = [" ".join(plain), *plain]
        return next((w for w in (match_whole(t, words, least=least) for t in tried) if w), "")

    return rule


def _occupation(texts: Sequence[str]) -> str:
    said = re.sub(r"\s*/\s*", "/", _joined(texts)).strip(".")
    return match_whole(said, OCCUPATIONS, least=88.0) or said


_for_life = _whole(FOR_LIFE, 70.0)


def _valid_until(texts: Sequence[str]) -> str:
    return _for_life(texts) or _date(texts)


_Rule = tuple[str, str, Callable[[Sequence[str]], str]]
# Field, label, rule.
_RULES: tuple[_Rule, ...] = (
    ("nik", "nik", _first_nik),
    ("nama", "nama", _name),
    ("tempat_lahir", "ttl", _birth_place),
    ("tgl_lahir", "ttl", _date),
    ("jenis_kelamin", "jenis_kelamin", _whole(SEXES, 65.0)),
    ("alamat", "alamat", _address),
    ("rt_rw", "rt_rw", _rt_rw),
    ("kel_desa", "kel_desa", _place_name),
    ("kecamatan", "kecamatan", _place_name),
    ("agama", "agama", _whole(RELIGIONS, 72.0)),
    ("status_perkawinan", "status_perkawinan", _whole(STATUSES, 74.0)),
    ("pekerjaan", "pekerjaan", _occupation),
    ("kewarganegaraan", "kewarganegaraan", _whole(NATIONALITIES, 60.0)),
    ("berlaku_hingga", "berlaku_hingga", _valid_until),
)


def _field(value: str, lines: Sequence[Line]) -> FieldRead:
    boxes = [line.box() for line in lines]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, bottom = max(x + w for x, _, w, _ in boxes), max(y + h for _, y, _, h in boxes)
    confidence = round(min(line.score for line in lines), 3)
    return FieldRead(value, confidence, (left, top, right - left, bottom - top))
