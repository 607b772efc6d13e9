"""Draws things that are no ID card: noise, scenes, other cards, forms, receipts, screenshots."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.ktp_cards import FONTS

_LABELS = "Nama|Alamat|Agama|Pekerjaan|Kewarganegaraan|Status Perkawinan|Kecamatan|Jenis Kelamin"


def others(count: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield so many (kind, file), every kind in turn."""
    for number in range(count):
        make = KINDS[number % len(KINDS)]
        out = io.BytesIO()
        make(rng).save(out, "JPEG" if number % 2 else "PNG")
        yield make.__name__.strip("_"), out.getvalue()


def _sheet(
    lines: list[str], rng: random.Random, *, size: tuple[int, int] = (1000, 700), step: int = 46
) -> Image.Image:
    image = Image.new("RGB", size, (rng.randint(200, 255), rng.randint(200, 255), 235))
    pen = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(FONTS / "dejavu/DejaVuSans.ttf"), 28)
    for at, text in enumerate(lines):
        pen.text((40, 30 + step * at), text, (20, 20, 20), font)
    return image


def _number(rng: random.Random, digits: int = 16) -> str:
    return "".join(rng.choice("0123456789") for _ in range(digits))


def _noise(rng: random.Random) -> Image.Image:
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (500, 800, 3), np.uint8)
    return Image.fromarray(pixels)


def _blank(rng: random.Random) -> Image.Image:
    return Image.new("RGB", (900, 570), (rng.randint(0, 255),) * 3)


def _scene(rng: random.Random) -> Image.Image:
    image = Image.new("RGB", (900, 600), (120, 180, 230))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 380, 900, 600), (60, 120, 60))
    for _ in range(12):
        x, y = rng.randint(0, 900), rng.randint(200, 560)
        pen.ellipse((x, y, x + rng.randint(20, 160), y + 90), (rng.randint(0, 255), 90, 60))
    return image


def _driving_licence(rng: random.Random) -> Image.Image:
    return _sheet(
        ["INDONESIA", "SURAT IZIN MENGEMUDI", "DRIVING LICENSE  A", "1. BUDI SANTOSO",
         "2. BANDUNG, 04-05-1988", "3. O - PRIA", "4. JL. MELATI NO. 3, COBLONG",
         "5. KARYAWAN SWASTA", "6. JAWA BARAT", f"No. {_number(rng, 12)}", "10-11-2027"],
        rng,
    )  # fmt: skip


def _bank_card(rng: random.Random) -> Image.Image:
    number = _number(rng)
    groups = " ".join(number[at : at + 4] for at in range(0, 16, 4))
    return _sheet(
        ["BANK NUSANTARA", "DEBIT", groups, "VALID THRU 11/29", "RINA WIJAYA"], rng, step=90
    )


def _passport(rng: random.Random) -> Image.Image:
    return _sheet(
        ["REPUBLIK INDONESIA", "PASPOR PASSPORT", "Jenis/Type P   Kode Negara IDN",
         "Nama Lengkap / Full Name", "DEWI LESTARI", "Kewarganegaraan / Nationality", "INDONESIA",
         "Tgl. Lahir / Date of birth", "12 JAN 1990", "Tempat Lahir / Place of birth", "SURABAYA",
         "P<IDNDEWI<LESTARI<<<<<<<<<<<<<<<<<<<<<<<<<<<<", f"{_number(rng, 9)}IDN9001121F2801014"],
        rng,
    )  # fmt: skip


def _receipt(rng: random.Random) -> Image.Image:
    lines = ["TOKO MAKMUR JAYA", "JL. DIPONEGORO NO. 8, SEMARANG", f"NO {_number(rng, 10)}"]
    lines += [f"BARANG {n}   2 x {rng.randint(1, 99)}.000" for n in range(7)]
    return _sheet([*lines, "TOTAL  412.000", "TUNAI  500.000"], rng)


def _form(rng: random.Random) -> Image.Image:
    lines = [f"{label} : ........................" for label in _LABELS.split("|")]
    return _sheet(["FORMULIR PENDAFTARAN SISWA BARU", "PEMERINTAH KOTA", *lines], rng)


def _application(rng: random.Random) -> Image.Image:
    lines = ["Data Kependudukan", "Nomor Induk Kependudukan", "Silakan unggah foto KTP Anda",
             "Nama Lengkap", "Tulis nama sesuai KTP", "Tempat Lahir", "Tanggal Lahir", "Alamat",
             "Agama", "Pilih agama", "Pekerjaan", "Simpan"]  # fmt: skip
    return _sheet(lines, rng, size=(720, 1280), step=90)


def _article(rng: random.Random) -> Image.Image:
    text = "Pemerintah provinsi mengumumkan nama penerima bantuan di kecamatan"
    return _sheet([f"{text} {n}" for n in range(13)], rng, size=(1300, 700))


KINDS: tuple[Callable[[random.Random], Image.Image], ...] = (
    _noise, _blank, _scene, _driving_licence, _bank_card, _passport, _receipt, _form, _application,
    _article,
)  # fmt: skip
