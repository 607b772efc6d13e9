"""The number of a card (NIK), its dates and RT/RW: look-alike letters, checks, repairs."""

from __future__ import annotations

import re
from datetime import date
from itertools import combinations, product

from app.services.ocr.vocabularies import PROVINCE_CODES

NIK_DIGITS = 16
# Where six digits of a birth date (day, month, year) stand in a NIK.
_BIRTH = range(6, 12)
_AS_DIGITS = str.maketrans(
    {"O": "0", "o": "0", "Q": "0", "D": "0", "U": "0", "I": "1", "i": "1", "l": "1", "L": "1",
     "|": "1", "!": "1", "]": "1", "[": "1", "J": "1", "Z": "2", "z": "2", "S": "5", "s": "5",
     "B": "8", "G": "6", "b": "6", "T": "7", "?": "7", "A": "4", "q": "9", "g": "9", "Y": "7"}
)  # fmt: skip
_DATE = re.compile(r"(?<!\d)(\d{2})\W{0,3}(\d{2})\W{0,3}((?:19|20)\d\d)(?!\d)")
_RT_RW = re.compile(r"(\d{1,3})\D{1,3}(\d{1,3})")
# Digits that print and sensors confuse.
_LIKE = {
    "0": "869", "1": "74", "2": "7", "3": "89", "4": "1", "5": "68", "6": "580", "7": "12",
    "8": "0369", "9": "083",
}  # fmt: skip


def as_digits(text: str) -> str:
    """Return a text with the letters that look like digits written as those."""
    return text.translate(_AS_DIGITS)


def read_nik(text: str) -> str:
    """Return the 16 digits of a text, empty if there are more, fewer or other characters."""
    joined = re.sub(r"[\s:;.,'`\"_-]", "", text)
    # Words are no number: most of it must have been read as digits.
    if sum(char.isdigit() for char in joined) < 9:
        return ""
    digits = as_digits(joined)
    return digits if re.fullmatch(rf"[0-9]{{{NIK_DIGITS}}}", digits) else ""


def read_date(text: str) -> str:
    """Return the last date of a text as DD-MM-YYYY, empty if there is none that exists."""
    for candidate in (text, as_digits(text)):
        for found in reversed(list(_DATE.finditer(candidate))):
            day, month, year = (int(part) for part in found.groups())
            if _exists(day, month, year):
                return f"{day:02}-{month:02}-{year}"
    return ""


def before_date(text: str) -> str:
    """Return what stands before a date that a text ends with; all of it if there is none."""
    # A letter becomes one digit, so that places in the text stay the same.
    for candidate in (text, as_digits(text)):
        found = list(_DATE.finditer(candidate))
        if found:
            return text[: found[-1].start()]
    return text


def read_rt_rw(text: str) -> str:
    """Return RT and RW as `000/000`, empty if they cannot be told apart."""
    digits = as_digits(text.replace("\\", "/")).strip()
    found = _RT_RW.search(digits)
    if found:
        return f"{int(found[1]):03}/{int(found[2]):03}"
    bare = re.sub(r"\D", "", digits)
    if len(bare) == 7 and bare[3] in "17":
        # A slash that was read as a digit.
        bare = bare[:3] + bare[4:]
    return f"{bare[:3]}/{bare[3:]}" if len(bare) == 6 else ""


def birth_of_nik(nik: str) -> tuple[int, int, int, bool] | None:
    """Return day, month, two digits of the year, and whether a woman's; None if impossible."""
    day, month, year = (int(nik[at : at + 2]) for at in (6, 8, 10))
    woman = day > 40
    day -= 40 * woman
    # 2000 was a leap year: a day that exists in one century is enough.
    possible = _exists(day, month, 2000 + year) or _exists(day, month, 1900 + year)
    return (day, month, year, woman) if possible else None


def known_province(nik: str) -> bool:
    """Say whether the NIK begins with the code of a province."""
    return nik[:2] in PROVINCE_CODES


def agrees(nik: str, birth: str) -> bool:
    """Say whether a NIK has a birth date of the form DD-MM-YYYY, of a man or a woman."""
    told = birth_of_nik(nik)
    return told is not None and birth == f"{told[0]:02}-{told[1]:02}-{birth[6:8]}{told[2]:02}"


def repair_date(nik: str, birth: str, sex: str) -> str:
    """Return the NIK with an impossible date mended by at most two look-alike digits.

    Mended only to the date and the sex that the card itself has; empty if that is not reached.
    """
    if not birth:
        return ""
    for count in (1, 2):
        for places in combinations(_BIRTH, count):
            for digits in product(*(_LIKE[nik[place]] for place in places)):
                tried = list(nik)
                for place, digit in zip(places, digits, strict=True):
                    tried[place] = digit
                told = birth_of_nik("".join(tried))
                same_sex = not sex or (told is not None and told[3] == (sex == "PEREMPUAN"))
                if same_sex and agrees("".join(tried), birth):
                    return "".join(tried)
    return ""


def _exists(day: int, month: int, year: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return 1900 <= year <= 2100
