"""Draws Indonesian ID cards of people who do not exist, and photographs of them.

The layout is that of a real card; names, numbers and addresses are drawn from lists by a seed.
Fonts are those that the machine has (fonts-dejavu, fonts-liberation, fonts-freefont-ttf,
fonts-ocr-a of Debian). Nothing here knows the reader.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Level = Literal["clean", "mild", "hard"]
LEVELS: tuple[Level, ...] = ("clean", "mild", "hard")

FONTS = Path("/usr/share/fonts/truetype")
_FACES = (
    "liberation/LiberationSans-Regular.ttf",
    "liberation/LiberationSans-Bold.ttf",
    "liberation/LiberationSansNarrow-Bold.ttf",
    "dejavu/DejaVuSans.ttf",
    "dejavu/DejaVuSansCondensed.ttf",
    "dejavu/DejaVuSans-Bold.ttf",
    "freefont/FreeSans.ttf",
    "freefont/FreeSansBold.ttf",
)
_NIK_FACES = ("ocr-a/OCRA.ttf", "liberation/LiberationMono-Bold.ttf", "dejavu/DejaVuSansMono.ttf")

_GIVEN = {
    "L": "AGUS BUDI JOKO RIZKY DEDI HENDRA SURYA I MADE YOHANES MUHAMMAD FAJAR WAHYU ARIF TEGUH "
    "BAYU SLAMET MARTINUS ILHAM DANI ZULKIFLI",
    "P": "SITI DEWI RINA FITRI NURHAYATI MARIA NI LUH AYU LESTARI INDAH RATNA YULIANA WULAN SRI "
    "KARTIKA MEGA PUTRI HALIMAH TIARA QORIATUN",
}
_FAMILY = (
    "SANTOSO", "WIJAYA", "KUSUMA", "PRATAMA", "SIREGAR", "HUTAPEA", "NASUTION", "SIMANJUNTAK",
    "SAPUTRA", "HIDAYAT", "RAHMAN", "GUNAWAN", "SETIAWAN", "LUBIS", "PANGARIBUAN", "MAHARANI",
    "WULANDARI", "ANGGRAINI", "PUSPITA", "UTAMI",
)  # fmt: skip
_DEGREES = ("", "", "", "", ", S.PD", ", S.E", ", S.H, M.H", ", A.MD.KEB")
_PLACES = (
    ("JAWA BARAT", "32", "KABUPATEN BANDUNG", "BANDUNG"),
    ("JAWA TENGAH", "33", "KOTA SEMARANG", "SEMARANG"),
    ("DAERAH ISTIMEWA YOGYAKARTA", "34", "KABUPATEN SLEMAN", "SLEMAN"),
    ("JAWA TIMUR", "35", "KOTA MALANG", "MALANG"),
    ("DKI JAKARTA", "31", "JAKARTA SELATAN", "JAKARTA"),
    ("BALI", "51", "KABUPATEN GIANYAR", "GIANYAR"),
    ("SUMATERA UTARA", "12", "KOTA MEDAN", "MEDAN"),
    ("SULAWESI SELATAN", "73", "KOTA MAKASSAR", "UJUNG PANDANG"),
    ("KALIMANTAN TIMUR", "64", "KOTA BALIKPAPAN", "BALIKPAPAN"),
    ("PAPUA", "91", "KOTA JAYAPURA", "JAYAPURA"),
)
_STREETS = "MELATI|MERDEKA|JEND. SUDIRMAN|DIPONEGORO|KENANGA|RAYA BOGOR|HAJI NAWI|PAHLAWAN|CENDANA"
_VILLAGES = "SUKAMAJU|KEBON JERUK|TANJUNG MEKAR|MARGAHAYU|SIDOMULYO|PASAR MINGGU|UBUD|KARANGREJO"
_DISTRICTS = "COBLONG|LOWOKWARU|DEPOK|TEBET|CIWIDEY|MEDAN BARU|SUKAWATI|TAMALANREA|ABEPURA"
_RELIGIONS = ("ISLAM", "ISLAM", "KRISTEN", "KATHOLIK", "KATOLIK", "HINDU", "BUDHA", "KHONGHUCU")
_STATUSES = ("BELUM KAWIN", "KAWIN", "CERAI HIDUP", "CERAI MATI")
_JOBS = (
    "KARYAWAN SWASTA|PELAJAR/MAHASISWA|WIRASWASTA|MENGURUS RUMAH TANGGA|PEGAWAI NEGERI SIPIL|GURU|"
    "BURUH HARIAN LEPAS|PETANI/PEKEBUN|BELUM/TIDAK BEKERJA|PEDAGANG|DOKTER|KARYAWAN BUMN|SOPIR|"
    "TENTARA NASIONAL INDONESIA|PENSIUNAN|NELAYAN/PERIKANAN"
)


@dataclass(frozen=True, slots=True)
class Card:
    """What is printed on a card; `fields` by the names of contract 5, the address flat."""

    fields: dict[str, str]
    header: tuple[str, str]
    blood: str
    issued: str


def invent(rng: random.Random) -> Card:
    """Return the card of a person who does not exist."""
    province, code, regency, city = rng.choice(_PLACES)
    sex = rng.choice("LP")
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2006)
    nik_day = day + 40 * (sex == "P")
    nik = f"{code}{rng.randint(1, 79):02}{rng.randint(1, 30):02}"
    nik += f"{nik_day:02}{month:02}{year % 100:02}{rng.randint(1, 60):04}"
    names = rng.sample(_GIVEN[sex].split(), rng.randint(1, 2)) + rng.sample(_FAMILY, 1)
    foreign = rng.random() < 0.04
    street, village = rng.choice(_STREETS.split("|")), rng.choice(_VILLAGES.split("|"))
    block = rng.choice("ABC")
    address = rng.choice(
        (
            f"JL. {street} NO. {rng.randint(1, 220)}",
            f"JL {street} NO {rng.randint(1, 99)} BLOK {rng.choice('ABCD')}",
            f"DUSUN {village}",
            f"PERUM GRIYA {street} BLOK {block}{rng.randint(1, 9)} NO. {rng.randint(1, 40)}",
        )
    )
    for_ever = rng.random() < 0.75
    fields = {
        "nik": nik,
        "nama": " ".join(names) + rng.choice(_DEGREES),
        "tempat_lahir": city,
        "tgl_lahir": f"{day:02}-{month:02}-{year}",
        "jenis_kelamin": "LAKI-LAKI" if sex == "L" else "PEREMPUAN",
        "alamat": address,
        "rt_rw": f"{rng.randint(1, 20):03}/{rng.randint(1, 20):03}",
        "kel_desa": rng.choice(_VILLAGES.split("|")),
        "kecamatan": rng.choice(_DISTRICTS.split("|")),
        "agama": rng.choice(_RELIGIONS),
        "status_perkawinan": rng.choice(_STATUSES),
        "pekerjaan": rng.choice(_JOBS.split("|")),
        "kewarganegaraan": "WNA" if foreign else "WNI",
        "berlaku_hingga": "SEUMUR HIDUP" if for_ever else f"{day:02}-{month:02}-{2017 + day % 8}",
    }
    issued = f"{rng.randint(1, 28):02}-{rng.randint(1, 12):02}-{rng.randint(2012, 2023)}"
    return Card(
        fields, (f"PROVINSI {province}", regency), rng.choice(["A", "B", "AB", "O", "-"]), issued
    )


@cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    path = FONTS / face
    if not path.exists():
        path = FONTS / "dejavu/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def draw(
    card: Card, rng: random.Random, *, width: int = 1200, only: str | None = None
) -> Image.Image:
    """Return the card itself, flat, `width` pixels wide. `only`: the one font to use."""
    face, nik_face = only or rng.choice(_FACES), only or rng.choice(_NIK_FACES)
    scale = width / 1200
    image = _ground(rng, width, round(width * 0.631))
    pen = ImageDraw.Draw(image)
    black = (rng.randint(5, 40),) * 3

    def text(x: float, y: float, said: str, size: float, *, centred: bool = False, of: str = face):
        anchor = "ma" if centred else "la"
        pen.text((x * scale, y * scale), said, black, _font(of, round(size * scale)), anchor)

    middle = 500 + rng.randint(-20, 120)
    text(middle, 18, card.header[0], 40, centred=True)
    text(middle, 64, card.header[1], 40, centred=True)
    text(28, 128, "NIK", 46)
    text(250, 126, ": " + card.fields["nik"], 52, of=nik_face)
    fields = card.fields
    rows = (
        ("Nama", fields["nama"]),
        ("Tempat/Tgl Lahir", f"{fields['tempat_lahir']}, {fields['tgl_lahir']}"),
        ("Jenis kelamin", fields["jenis_kelamin"]),
        ("Alamat", fields["alamat"]),
        ("      RT/RW", fields["rt_rw"]),
        ("      Kel/Desa", fields["kel_desa"]),
        ("      Kecamatan", fields["kecamatan"]),
        ("Agama", fields["agama"]),
        ("Status Perkawinan", fields["status_perkawinan"]),
        ("Pekerjaan", fields["pekerjaan"]),
        ("Kewarganegaraan", fields["kewarganegaraan"]),
        ("Berlaku Hingga", fields["berlaku_hingga"]),
    )
    size, colon = rng.randint(29, 32), 312 + rng.randint(0, 20)
    y = 202.0
    for label, value in rows:
        text(28, y, label, size)
        lines = _wrapped(value, _font(face, round(size * scale)), (880 - colon) * scale)
        for number, line in enumerate(lines):
            text(
                colon if number == 0 else colon + 18, y, (": " if number == 0 else "") + line, size
            )
            y += 42 if number == len(lines) - 1 else 34
        if label == "Jenis kelamin":
            text(690, y - 42, f"Gol. Darah : {card.blood}", size)
    _portrait(pen, rng, scale)
    text(
        1030, 580, card.header[1].removeprefix("KABUPATEN ").removeprefix("KOTA "), 24, centred=True
    )
    text(1030, 612, card.issued, 24, centred=True)
    return image


def _wrapped(value: str, font: ImageFont.FreeTypeFont, most: float) -> list[str]:
    lines = [""]
    for word in value.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > most and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _ground(rng: random.Random, width: int, height: int) -> Image.Image:
    """The light blue of the card with its faint waves."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / width
    wave = np.sin(40 * x + 8 * np.sin(12 * y + rng.random() * 6)) * rng.uniform(2, 9)
    base = np.array([rng.randint(165, 200), rng.randint(205, 228), rng.randint(225, 245)])
    pixels = base[None, None, :] + wave[:, :, None] + 14 * (y[:, :, None] - 0.3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _portrait(pen: ImageDraw.ImageDraw, rng: random.Random, scale: float) -> None:
    left, top, right, bottom = (round(v * scale) for v in (910, 180, 1150, 500))
    pen.rectangle((left, top, right, bottom), fill=rng.choice([(190, 40, 40), (40, 70, 170)]))
    skin = (rng.randint(150, 220), rng.randint(110, 160), rng.randint(80, 120))
    pen.ellipse((left + 60 * scale, top + 50 * scale, right - 60 * scale, top + 210 * scale), skin)
    pen.pieslice(
        (left + 15 * scale, top + 205 * scale, right - 15 * scale, bottom + 110 * scale),
        180,
        360,
        (60, 60, 70),
    )
