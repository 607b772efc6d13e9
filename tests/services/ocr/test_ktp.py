"""The card parser on lines of text: contract 5 without an OCR library."""

from __future__ import annotations

import pytest

from app.services.ocr.ktp import read_card
from app.services.ocr.vocabularies import RELIGIONS, STATUSES, match_whole
from tests.services.ocr.cards import VALUES, card, line, rows, turned


def values(lines: list) -> dict[str, str]:
    return {name: read.value for name, read in read_card(lines).fields.items()}


@pytest.mark.parametrize("degrees", [0, 4, -11, 14])
def test_every_field_is_read_though_the_card_lies_askew(degrees: float) -> None:
    reading = read_card(turned(card(), degrees))
    assert {name: read.value for name, read in reading.fields.items()} == VALUES
    assert (reading.labels, reading.warnings, reading.is_ktp) == (13, (), True)


@pytest.mark.parametrize("name", ["nik", "nama", "ttl", "alamat", "agama", "kewarganegaraan"])
def test_a_label_and_its_value_may_come_as_one_line(name: str) -> None:
    assert values(card(merged=(name,))) == VALUES


def test_all_rows_may_come_as_one_line_each() -> None:
    assert values(card(merged=tuple(name for name, _, _ in rows()))) == VALUES


@pytest.mark.parametrize(
    "name",
    ["nama", "ttl", "jenis_kelamin", "rt_rw", "kecamatan", "status_perkawinan", "berlaku_hingga"],
)
def test_a_value_whose_label_was_not_read_is_told_by_its_row(name: str) -> None:
    reading = read_card(card(rows(**{name: ""})))
    assert {name: read.value for name, read in reading.fields.items()} == VALUES
    assert reading.labels == 12


@pytest.mark.parametrize("misread", ["Narna", "Nama", "NAMA", "Nam4"])
def test_a_misread_label_is_known(misread: str) -> None:
    assert values(card(rows(nama=misread)))["nama"] == VALUES["nama"]


def test_long_names_and_addresses_go_on_in_the_next_line() -> None:
    long = {
        "nama": "MARIA YULIANA PANGARIBUAN\nSIMANJUNTAK, S.H, M.H",
        "alamat": "PERUM GRIYA CENDANA\nBLOK C7 NO. 31",
    }
    read = values(card(rows(long)))
    assert read == VALUES | {name: value.replace("\n", " ") for name, value in long.items()}


def test_what_stands_under_the_photo_belongs_to_no_field() -> None:
    photo = (("BANDUNG", 1000, 9), ("11-02-2019", 990, 10), ("KOTA BANDUNG", 960, 11))
    assert values(card(more=photo)) == VALUES


@pytest.mark.parametrize("blood", ["Gol. Darah : A", "Gol Darah :AB", "Gol.Darah-"])
def test_the_blood_group_is_no_part_of_the_sex(blood: str) -> None:
    assert values(card(more=((blood, 690, 3),))) == VALUES
    merged = rows({"jenis_kelamin": f"PEREMPUAN {blood}"})
    assert values(card(merged)) == VALUES


@pytest.mark.parametrize(
    ("field", "printed", "expected"),
    [
        ("nik", "32O4l241079OOOO1", "3204124107900001"),
        ("nik", "3204 1241 0790 0001", "3204124107900001"),
        ("nik", "320412410790001", ""),
        ("nik", "32041241079000011", ""),
        ("tgl_lahir", "O1-07-199O", "01-07-1990"),
        ("tgl_lahir", "01 07 1990", "01-07-1990"),
        ("tgl_lahir", "31-02-1990", ""),
        ("rt_rw", "7/12", "007/012"),
        ("rt_rw", "OO7/O12", "007/012"),
        ("rt_rw", "007012", "007/012"),
        ("rt_rw", "-", ""),
        ("status_perkawinan", "BELUMKAWIN", "BELUM KAWIN"),
        ("status_perkawinan", "KAWIN", "KAWIN"),
        ("status_perkawinan", "CERAI MAT1", "CERAI MATI"),
        ("status_perkawinan", "UM KAWIN", ""),
        ("agama", "KATHOLIK", "KATHOLIK"),
        ("agama", "BUDHA", "BUDHA"),
        ("agama", "lSLAM", "ISLAM"),
        ("agama", "XYZXYZ", ""),
        ("jenis_kelamin", "LAKI - LAKI", "LAKI-LAKI"),
        ("kewarganegaraan", "WN1", "WNI"),
        ("kewarganegaraan", "WNA", "WNA"),
        ("pekerjaan", "KARYAWANSWASTA", "KARYAWAN SWASTA"),
        ("pekerjaan", "PAWANG HUJAN", "PAWANG HUJAN"),
        ("berlaku_hingga", "SEUMURHIDUP", "SEUMUR HIDUP"),
        ("berlaku_hingga", "22-02-2017", "22-02-2017"),
        ("nama", "DR. H. AGUS 0KTAVIAN, S.H., M.H.", "DR. H. AGUS OKTAVIAN, S.H., M.H."),
        ("nama", "NUR'AINI BINTI-SALEH", "NUR'AINI BINTI-SALEH"),
        ("alamat", "JL.MELATI NO.12", "JL. MELATI NO. 12"),
        ("alamat", "DUSUN I RT 02", "DUSUN I RT 02"),
    ],
)
def test_a_value_is_what_the_card_says(field: str, printed: str, expected: str) -> None:
    assert values(card(rows({field: printed}))) == VALUES | {field: expected}


@pytest.mark.parametrize("name", sorted(set(VALUES) - {"tempat_lahir", "tgl_lahir"}))
def test_what_is_missing_is_empty_and_never_a_default(name: str) -> None:
    assert values(card(rows({name: ""}))) == VALUES | {name: ""}


def test_half_of_a_word_is_no_other_word() -> None:
    assert match_whole("UM KAWIN", STATUSES) == ""
    assert match_whole("BELUM KAVIN", STATUSES) == "BELUM KAWIN"
    assert [match_whole(word, RELIGIONS) for word in RELIGIONS] == list(RELIGIONS)


@pytest.mark.parametrize(
    ("changed", "warning"),
    [
        ({"tgl_lahir": "02-07-1990"}, "nik_birth_date_differs"),
        ({"jenis_kelamin": "LAKI-LAKI"}, "nik_sex_differs"),
        ({"nik": "9904124107900001"}, "nik_province_unknown"),
        ({"nik": ""}, "nik_unreadable"),
    ],
)
def test_a_difference_is_a_warning_and_never_a_repair(
    changed: dict[str, str], warning: str
) -> None:
    reading = read_card(card(rows(changed)))
    assert warning in reading.warnings
    assert {name: read.value for name, read in reading.fields.items()} == VALUES | changed


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        # Month 97 or 87 looks like the card's 07; month 17 and day 71 look like nothing there is.
        ("3204124197900001", "3204124107900001"),
        ("3204124187900001", "3204124107900001"),
        ("3204124117900001", ""),
        ("3204127187900001", ""),
        ("3204129999990001", ""),
    ],
)
def test_an_impossible_date_is_mended_by_two_digits_or_the_number_is_left_out(
    printed: str, expected: str
) -> None:
    reading = read_card(card(rows({"nik": printed})))
    assert reading.fields["nik"].value == expected
    assert reading.warnings


def test_a_card_needs_five_labels_and_a_number_or_a_header() -> None:
    assert read_card(card(header=False)).is_ktp
    assert read_card(card(rows({"nik": ""}))).is_ktp
    assert not read_card(card(rows({"nik": ""}), header=False)).is_ktp
    few = {name: "" for name, _, _ in rows()[4:]}
    assert not read_card(card(rows(**few))).is_ktp


def test_a_form_with_the_words_of_a_card_is_none() -> None:
    words = ["Nama", "Alamat", "Agama", "Pekerjaan", "Kewarganegaraan", "Kecamatan"]
    form = [line("FORMULIR PENDAFTARAN", 300, 0)]
    form += [line(word, 40, 100 + 60 * at) for at, word in enumerate(words)]
    assert not read_card(form).is_ktp


@pytest.mark.parametrize("lines", [[], [line("", 0, 0)], [line("NIK", 0, 0)], [line(":", 9, 9)]])
def test_little_or_nothing_is_no_card(lines: list) -> None:
    reading = read_card(lines)
    assert not reading.is_ktp
    assert set(reading.fields) == set(VALUES)


def test_most_fields_missing_is_unclear() -> None:
    empty = dict.fromkeys(("nama", "alamat", "rt_rw", "kel_desa", "agama"), "")
    assert "unclear" in read_card(card(rows(empty))).warnings
