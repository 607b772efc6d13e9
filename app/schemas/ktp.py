"""An Indonesian ID card (KTP) as contract 5 has it: every value a string, empty if not read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

ADDRESS = {"alamat": "name", "rt_rw": "rt_rw", "kel_desa": "kel_desa", "kecamatan": "kecamatan"}


class Address(BaseModel):
    """Where the holder lives. `rt_rw`: `000/000`."""

    name: str = ""
    rt_rw: str = ""
    kel_desa: str = ""
    kecamatan: str = ""


class Card(BaseModel):
    """A card. `nik`: 16 digits or empty; dates are DD-MM-YYYY."""

    nik: str = ""
    nama: str = ""
    tempat_lahir: str = ""
    tgl_lahir: str = ""
    jenis_kelamin: str = ""
    alamat: Address = Field(default_factory=Address)
    agama: str = ""
    status_perkawinan: str = ""
    pekerjaan: str = ""
    kewarganegaraan: str = ""
    berlaku_hingga: str = ""


class CardField(BaseModel):
    """How sure a value is, and where it stands: x, y, width, height in the pixels of the image."""

    confidence: float = Field(ge=0, le=1)
    box: list[int] | None = Field(default=None, min_length=4, max_length=4)


class CardDetails(BaseModel):
    """A card, what is known of each value that was read, and what is doubtful."""

    card: Card
    fields: dict[str, CardField]
    warnings: list[str]
    engine: Literal["vision", "ocr"]


def card_of(values: Mapping[str, str]) -> Card:
    """Return the card of flat values, the address by the names of `ADDRESS`."""
    address = {inner: values.get(name, "") for name, inner in ADDRESS.items()}
    flat = {name: value for name, value in values.items() if name not in ADDRESS}
    return Card(**flat, alamat=Address(**address))


def flat_values(card: Mapping[str, Any]) -> dict[str, str]:
    """Return the flat values of a card as JSON has it; what is no string is left out."""
    address = card.get("alamat")
    inner = address if isinstance(address, Mapping) else {"name": address}
    values = {name: value for name, value in card.items() if name != "alamat"}
    values |= {name: inner.get(key, card.get(name)) for name, key in ADDRESS.items()}
    return {name: value for name, value in values.items() if isinstance(value, str)}
