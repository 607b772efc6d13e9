"""A card by a model that sees: the prompt, its answer in whatever form it came, and the merging.

OCR reads digits better, a model reads blurred words better: what OCR read stays unless it is weak.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.core.errors import Unsupported
from app.engine.base import Engine
from app.schemas.ktp import ADDRESS, Card, flat_values
from app.services.call_llm import call_llm
from app.services.ocr.fields import FIELDS, FieldRead, check, value_of
from app.services.ocr.ktp import Reading
from app.services.ocr.nik import birth_of_nik, known_province
from app.services.ocr.vocabularies import letters

SYSTEM = "Anda membaca KTP Indonesia dengan teliti dan hanya menulis yang benar-benar tercetak."
PROMPT = (
    "Baca kartu tanda penduduk (KTP) pada gambar ini. Jawab hanya dengan satu objek JSON dengan "
    "kunci: nik, nama, tempat_lahir, tgl_lahir, jenis_kelamin, alamat (objek: name, rt_rw, "
    "kel_desa, kecamatan), agama, status_perkawinan, pekerjaan, kewarganegaraan, berlaku_hingga. "
    "NIK 16 digit; tanggal DD-MM-YYYY; RT/RW 000/000. Jangan menebak: yang tidak terbaca ditulis "
    'sebagai string kosong "".'
)
MAX_TOKENS = 512
# A value that OCR is less sure of gives way to the model's.
WEAK = 0.6
CONFIDENCE = 0.7
_PAIR = re.compile(r'"(\w+)"\s*:\s*"((?:[^"\\]|\\.)*)"?')
_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)


def card_schema() -> dict[str, Any]:
    """Return the JSON schema of a model's answer: every key, only strings, nothing else."""
    text: dict[str, Any] = {"type": "string", "maxLength": 120}

    def of(names: list[str], **other: Any) -> dict[str, Any]:
        properties = {name: other.get(name, text) for name in names}
        return {
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": False,
        }

    return of(list(Card.model_fields), alamat=of(list(ADDRESS.values())))


async def see_card(engine: Engine, image: bytes) -> dict[str, str]:
    """Return what a model reads on a card, checked value by value like OCR's.

    Raises:
        Unsupported, EngineUnavailable, Overloaded, GenerationFailed: as `call_llm` does.
    """
    try:
        answer = await _ask(engine, image, card_schema())
    except Unsupported as refused:
        if refused.code not in ("no_grammar", "unsupported_schema", "schema_too_long"):
            raise
        answer = await _ask(engine, image, None)
    told = flat_values(read_object(answer))
    values = {name: value_of(name, told[name]) for name in FIELDS if told.get(name, "").strip()}
    return {name: value for name, value in values.items() if value}


async def _ask(engine: Engine, image: bytes, schema: Mapping[str, Any] | None) -> str:
    return await call_llm(
        engine,
        PROMPT,
        system=SYSTEM,
        max_tokens=MAX_TOKENS,
        temperature=0.0,
        json_schema=schema,
        images=[image],
    )


def read_object(answer: str) -> dict[str, Any]:
    """Return the JSON object of an answer: in a code fence, with prose around it, or cut short."""
    text = _THOUGHT.sub("", answer)
    decoder = json.JSONDecoder(strict=False)
    for found in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, found.start())
        except ValueError:
            break
        if isinstance(value, dict) and value:
            return value
    return _pairs(text)


def _pairs(text: str) -> dict[str, Any]:
    """Return the members of an object that never ends, or ends too late."""
    card: dict[str, Any] = {}
    address: dict[str, str] = {}
    inner = set(ADDRESS.values())
    for key, value in _PAIR.findall(text):
        try:
            plain = json.loads(f'"{value}"', strict=False)
        except ValueError:
            continue
        (address if key in inner else card).setdefault(key, plain)
    return card | ({"alamat": address} if address else {})


def with_seen(reading: Reading, seen: Mapping[str, str]) -> Reading:
    """Return a reading with what a model saw where OCR read nothing, or was not sure."""
    fields = dict(reading.fields)
    differing: list[str] = []
    for name, value in seen.items():
        read = fields[name]
        if read.value and not _same(name, read.value, value):
            differing.append(f"{name}_differs")
        if name == "nik" and is_valid(read.value):
            continue
        if not read.value or (read.confidence < WEAK and not _same(name, read.value, value)):
            fields[name] = FieldRead(value, CONFIDENCE, read.box)
    checked, warnings = check(fields)
    return replace(reading, fields=checked, warnings=(*warnings, *differing))


def is_valid(nik: str) -> bool:
    """Say whether a number can be a NIK: of a province, with a birth date."""
    return bool(nik) and known_province(nik) and birth_of_nik(nik) is not None


def _same(name: str, one: str, two: str) -> bool:
    digits = name in ("nik", "tgl_lahir", "rt_rw", "alamat")
    if digits:
        return re.sub(r"\W", "", one) == re.sub(r"\W", "", two)
    return letters(one) == letters(two)
