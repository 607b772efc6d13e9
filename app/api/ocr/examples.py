"""What `/docs` shows of ID cards: the form, and the events of a card of nobody."""

from __future__ import annotations

from typing import Any

from app.api.docs.frames import Examples, named_endings, on_wire
from app.api.ocr.wire import card_failure
from app.schemas.ktp import CardDetails, CardField, card_of
from app.stream.event import Draft

_SPECIMEN = {
    "nik": "3204124107900001",
    "nama": "CONTOH SAJA",
    "tempat_lahir": "BANDUNG",
    "tgl_lahir": "01-07-1990",
    "jenis_kelamin": "PEREMPUAN",
    "alamat": "JL. CONTOH NO. 1",
    "rt_rw": "001/002",
    "kel_desa": "SUKAMAJU",
    "kecamatan": "COBLONG",
    "agama": "ISLAM",
    "status_perkawinan": "BELUM KAWIN",
    "pekerjaan": "GURU",
    "kewarganegaraan": "WNI",
    "berlaku_hingga": "SEUMUR HIDUP",
}
SPECIMEN = CardDetails(
    card=card_of(_SPECIMEN),
    fields={"nik": CardField(confidence=0.99, box=[226, 131, 548, 52])},
    warnings=[],
    engine="ocr",
)


def request_body() -> dict[str, Any]:
    """Return the described form of an image."""
    image = {
        "type": "string",
        "format": "binary",
        "description": "JPEG, PNG or WebP, at most 10 MB and 40 megapixels",
    }
    session = {
        "type": "string",
        "pattern": "^[A-Za-z0-9_-]{1,64}$",
        "description": "The stream's session; the server makes one",
    }
    schema = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": image, "session_id": session},
    }
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    }


CARD_EVENTS: Examples | str = named_endings(
    on_wire(
        (0, Draft("status", {"stage": "reading"})),
        (1, Draft("result", SPECIMEN.model_dump(exclude_none=True))),
        session_id="my-card",
    ),
    card_failure,
    "my-card",
)
