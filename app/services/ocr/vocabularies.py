"""The closed vocabularies of a KTP, and text matched against them as whole strings.

Printed spellings are kept. Occupations are those of form F-1.01 (Permendagri 109/2019) as cards
print them; the list need not be complete, since an occupation that is not in it stays as read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rapidfuzz import fuzz, process

RELIGIONS = (
    "ISLAM",
    "KRISTEN",
    "KRISTEN PROTESTAN",
    "KATOLIK",
    "KATHOLIK",
    "KRISTEN KATOLIK",
    "HINDU",
    "BUDDHA",
    "BUDHA",
    "KONGHUCU",
    "KHONGHUCU",
    "KONG HU CU",
    "KEPERCAYAAN",
    "KEPERCAYAAN TERHADAP TUHAN YANG MAHA ESA",
    "KEPERCAYAAN TERHADAP TUHAN YME",
    "PENGHAYAT KEPERCAYAAN",
)
STATUSES = ("BELUM KAWIN", "KAWIN", "CERAI HIDUP", "CERAI MATI")
SEXES = ("LAKI-LAKI", "PEREMPUAN")
NATIONALITIES = ("WNI", "WNA")
FOR_LIFE = ("SEUMUR HIDUP",)
OCCUPATIONS = (
    "BELUM/TIDAK BEKERJA", "MENGURUS RUMAH TANGGA", "PELAJAR/MAHASISWA", "PENSIUNAN",
    "PEGAWAI NEGERI SIPIL", "PEGAWAI NEGERI SIPIL (PNS)", "TENTARA NASIONAL INDONESIA",
    "TENTARA NASIONAL INDONESIA (TNI)", "KEPOLISIAN RI", "KEPOLISIAN RI (POLRI)",
    "PERDAGANGAN", "PETANI/PEKEBUN", "PETERNAK", "NELAYAN/PERIKANAN", "INDUSTRI",
    "KONSTRUKSI", "TRANSPORTASI", "KARYAWAN SWASTA", "KARYAWAN BUMN", "KARYAWAN BUMD",
    "KARYAWAN HONORER", "BURUH HARIAN LEPAS", "BURUH TANI/PERKEBUNAN",
    "BURUH NELAYAN/PERIKANAN", "BURUH PETERNAKAN", "PEMBANTU RUMAH TANGGA", "TUKANG CUKUR",
    "TUKANG LISTRIK", "TUKANG BATU", "TUKANG KAYU", "TUKANG SOL SEPATU",
    "TUKANG LAS/PANDAI BESI", "TUKANG JAHIT", "TUKANG GIGI", "PENATA RIAS", "PENATA BUSANA",
    "PENATA RAMBUT", "MEKANIK", "SENIMAN", "TABIB", "PARAJI", "PERANCANG BUSANA",
    "PENTERJEMAH", "IMAM MASJID", "PENDETA", "PASTOR", "WARTAWAN", "USTADZ/MUBALIGH",
    "JURU MASAK", "PROMOTOR ACARA", "ANGGOTA DPR-RI", "ANGGOTA DPD", "ANGGOTA BPK",
    "PRESIDEN", "WAKIL PRESIDEN", "ANGGOTA MAHKAMAH KONSTITUSI",
    "ANGGOTA KABINET/KEMENTERIAN", "DUTA BESAR", "GUBERNUR", "WAKIL GUBERNUR", "BUPATI",
    "WAKIL BUPATI", "WALIKOTA", "WAKIL WALIKOTA", "ANGGOTA DPRD PROVINSI",
    "ANGGOTA DPRD KABUPATEN/KOTA", "DOSEN", "GURU", "PILOT", "PENGACARA", "NOTARIS",
    "ARSITEK", "AKUNTAN", "KONSULTAN", "DOKTER", "BIDAN", "PERAWAT", "APOTEKER",
    "PSIKIATER/PSIKOLOG", "PENYIAR TELEVISI", "PENYIAR RADIO", "PELAUT", "PENELITI", "SOPIR",
    "PIALANG", "PARANORMAL", "PEDAGANG", "PERANGKAT DESA", "KEPALA DESA", "BIARAWATI",
    "WIRASWASTA",
)  # fmt: skip
# The first two digits of a NIK: provinces by the codes of the Ministry of Home Affairs.
PROVINCE_CODES = frozenset((
    "11", "12", "13", "14", "15", "16", "17", "18", "19", "21", "31", "32", "33", "34", "35",
    "36", "51", "52", "53", "61", "62", "63", "64", "65", "71", "72", "73", "74", "75", "76",
    "81", "82", "91", "92", "93", "94", "95", "96", "97",
))  # fmt: skip

_NOT_LETTERS = re.compile(r"[^A-Z]")
# Read as letters, since no word of a vocabulary has a digit.
_DIGITS_AS_LETTERS = str.maketrans("01458|", "OIASBI")


def letters(text: str) -> str:
    """Return a text's letters alone, in capitals, digits taken for the letters they look like."""
    return _NOT_LETTERS.sub("", text.upper().translate(_DIGITS_AS_LETTERS))


def match_whole(text: str, words: Sequence[str], *, least: float = 72.0) -> str:
    """Return the entry that is the whole text but for misread letters; empty where none is."""
    if (plain := " ".join(text.upper().split())) in words:
        return plain
    read = letters(text)
    if not read:
        return ""
    keys = {letters(word): word for word in reversed(words)}
    if read in keys:
        return keys[read]
    # Half of `BELUM KAWIN` is no `KAWIN`: what is much longer or shorter is another word.
    near = [key for key in keys if min(len(key), len(read)) >= 0.75 * max(len(key), len(read))]
    found = process.extractOne(read, near, scorer=fuzz.ratio, score_cutoff=least)
    return keys[found[0]] if found else ""
