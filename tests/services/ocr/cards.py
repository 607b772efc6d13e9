"""Lines of text as OCR would return them for the card of a person who does not exist."""

from __future__ import annotations

import math

from app.services.ocr.lines import Line

VALUES = {
    "nik": "3204124107900001",
    "nama": "SITI KUSUMA, S.PD",
    "tempat_lahir": "BANDUNG",
    "tgl_lahir": "01-07-1990",
    "jenis_kelamin": "PEREMPUAN",
    "alamat": "JL. MELATI NO. 12",
    "rt_rw": "007/012",
    "kel_desa": "SUKAMAJU",
    "kecamatan": "COBLONG",
    "agama": "ISLAM",
    "status_perkawinan": "BELUM KAWIN",
    "pekerjaan": "KARYAWAN SWASTA",
    "kewarganegaraan": "WNI",
    "berlaku_hingga": "SEUMUR HIDUP",
}
LABELS = {
    "nik": "NIK",
    "nama": "Nama",
    "ttl": "Tempat/Tgl Lahir",
    "jenis_kelamin": "Jenis kelamin",
    "alamat": "Alamat",
    "rt_rw": "RT/RW",
    "kel_desa": "Kel/Desa",
    "kecamatan": "Kecamatan",
    "agama": "Agama",
    "status_perkawinan": "Status Perkawinan",
    "pekerjaan": "Pekerjaan",
    "kewarganegaraan": "Kewarganegaraan",
    "berlaku_hingga": "Berlaku Hingga",
}
PITCH, HEIGHT, VALUE_X = 42, 36, 310


def line(text: str, x: float, y: float, *, score: float = 0.98) -> Line:
    """Return a line of usual letters at a place."""
    width = 17.0 * len(text)
    corners = ((x, y), (x + width, y), (x + width, y + HEIGHT), (x, y + HEIGHT))
    return Line(text, score, corners)


def rows(values: dict[str, str] | None = None, **labels: str) -> list[tuple[str, str, str]]:
    """Return name, label and value of each row; `labels` replaces labels, "" leaves one out."""
    values = VALUES | (values or {})
    values["ttl"] = f"{values['tempat_lahir']}, {values['tgl_lahir']}".strip(", ")
    return [(name, labels.get(name, label), values[name]) for name, label in LABELS.items()]


def card(
    card_rows: list[tuple[str, str, str]] | None = None,
    *,
    header: bool = True,
    merged: tuple[str, ...] = (),
    more: tuple[tuple[str, float, int], ...] = (),
) -> list[Line]:
    """Return the lines of a card.

    `merged`: rows whose label and value came as one line. `more`: text, x and row of further lines;
    a value may hold line breaks.
    """
    found = [line("PROVINSI JAWA BARAT", 300, 0), line("KABUPATEN BANDUNG", 310, 44)]
    found = found if header else []
    y = 130.0
    starts: list[float] = []
    for name, label, value in card_rows or rows():
        starts.append(y)
        x = 60 if name in ("rt_rw", "kel_desa", "kecamatan") else 28
        if name in merged:
            found.append(line(f"{label} : {value}", x, y))
        else:
            found += [line(label, x, y)] if label else []
            for number, part in enumerate(value.split("\n")):
                y += 35 * (number > 0)
                found += [line(f": {part}" if not number else part, VALUE_X, y)] if part else []
        y += PITCH
    found += [line(text, x, starts[row]) for text, x, row in more]
    return found


def turned(lines: list[Line], degrees: float) -> list[Line]:
    """Return the lines on a sheet that lies askew."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def point(x: float, y: float) -> tuple[float, float]:
        return x * cos - y * sin, x * sin + y * cos

    return [
        Line(one.text, one.score, tuple(point(x, y) for x, y in one.points))  # type: ignore[arg-type]
        for one in lines
    ]
