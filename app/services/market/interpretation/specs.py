"""Measures and parts: RAM 16GB, 43 inch, 2 PK, ukuran 42, each written in one way as a tag."""

from __future__ import annotations

import re
from collections.abc import Callable

from app.services.market.interpretation.words import Query

_N = r"(\d{1,5}(?:[.,]\d{1,2})?)"
_SIZE = r"(xxxl|xxl|xl|xs|[sml]|\d{2}(?:[.,]5)?)"
_LETTER = r"(xxxl|xxl|xl|xs|[sml])"


def _plain(number: str) -> str:
    return (
        number.replace(",", ".").lstrip("0")
        if not number.startswith("0")
        else f"{float(number.replace(',', '.')):g}"
    )


def _of(form: str) -> Callable[[re.Match[str]], list[str]]:
    return lambda match: [form.format(*(_plain(group) for group in match.groups() if group))]


def _ram_and_memory(match: re.Match[str]) -> list[str]:
    return [f"ram {match[1]}gb", f"{match[2]}gb"]


def _horsepower(match: re.Match[str]) -> list[str]:
    over = match[1].split("/")
    return [f"{int(over[0]) / int(over[1]):g} pk"] if len(over) == 2 else [f"{_plain(match[1])} pk"]


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], list[str]]], ...] = tuple(
    (re.compile(rf"(?<![\w.,/])(?:{pattern})(?![\w])"), form)
    for pattern, form in (
        (r"(\d{1,2})\s?(?:gb)?\s?/\s?(64|128|256|512)\s?(?:gb)?", _ram_and_memory),
        (rf"ram\s?(?:minimal |min |at least )?{_N}\s?(?:gb|giga|g)?", _of("ram {}gb")),
        (rf"{_N}\s?(?:gb|giga|g)\s?(?:of )?ram", _of("ram {}gb")),
        (rf"ssd\s?(\d{{3,4}})\s?(?:gb|giga)?|{_N}\s?gb\s?(?:of )?ssd", _of("ssd {}gb")),
        (rf"ssd\s?{_N}\s?tb|{_N}\s?tb\s?ssd", _of("ssd {}tb")),
        (rf"hdd\s?{_N}\s?tb|{_N}\s?tb\s?hdd", _of("hdd {}tb")),
        (rf"(?:rom|memori|memory|storage|penyimpanan)?\s?{_N}\s?(?:gb|giga)", _of("{}gb")),
        (rf"{_N}\s?(?:tb|tera)", _of("{}tb")),
        (rf"{_N}\s?-?(?:inchi|inches|inch|inci|\")", _of("{} inch")),
        (r"(\d{2})in", _of("{} inch")),
        (r"(\d/\d|\d(?:[.,]\d{1,2})?)\s?pk", _horsepower),
        (rf"(?:ukuran|uk|size|nomor|nomer|no|sz)\.?\s?{_SIZE}", _of("ukuran {}")),
        (r"(?:ring|r)\s?(1[0-9]|2[0-2])", _of("ring {}")),
        (r"(\d{2,3})\s?x\s?(\d{2,3})(?:\s?cm)?", _of("{}x{}")),
        (rf"{_N}\s?(?:kg|kilo|kilogram)", _of("{} kg")),
        (rf"{_N}\s?(?:gram|grams|gr|g)", lambda match: _grams(match[1])),
        (rf"{_N}\s?(?:liter|litre|liters|ltr|lt|l)", _of("{} liter")),
        (rf"{_N}\s?(?:ml|mililiter|cc ml)", _of("{} ml")),
        (r"(\d{1,2})[.,]?(\d{3})?\s?(?:mah)", lambda m: [f"{m[1]}{m[2] or ''}mah"]),
        (r"(\d{3,5})\s?(?:mah)", _of("{}mah")),
        (rf"{_N}\s?(?:watt|watts|w)", _of("{} watt")),
        (rf"{_N}\s?(?:hz|hertz)", _of("{}hz")),
        (rf"{_N}\s?(?:mp|megapixel|megapiksel)", _of("{}mp")),
        (rf"{_N}\s?cc", _of("{}cc")),
        (rf"{_N}\s?(?:volt|v)", _of("{} volt")),
        (rf"{_N}\s?(?:cm|centimeter)", _of("{} cm")),
        (rf"{_N}\s?(?:mm|milimeter)", _of("{} mm")),
        (rf"{_N}\s?(?:meter|metre|meters)", _of("{} meter")),
        (r"(\d)\s?-?(?:pintu|doors|door)", _of("{} pintu")),
        (r"(\d)\s?-?(?:tabung|tubs)", _of("{} tabung")),
        (r"(\d)\s?-?(?:tungku|burners|burner)", _of("{} tungku")),
        (r"(\d)\s?-?(?:seater|dudukan)", _of("{} seater")),
        (r"(?:intel )?core\s?(i[3579]|ultra [579])", _of("{}")),
        (r"ryzen\s?([3579])", _of("ryzen {}")),
        (r"(rtx|gtx|rx)\s?(\d{3,4})(?:\s?(ti|super|xt))?", _of("{} {}")),
    )
)
# An age or a number of people is no measure of the goods; nothing can be found by it.
_AGE = re.compile(
    r"(?:umur |usia )?(?<![\w.,])\d{1,2}(?:\s?-\s?\d{1,2})? (?:tahun|thn|bulan|bln"
    r"|years?|months?|orang|persons?|people)(?: old)?(?!\w)"
)


def _grams(number: str) -> list[str]:
    # 4g and 5g are networks.
    return [f"{number}g"] if number in ("3", "4", "5") else [f"{_plain(number)} gram"]


def read_specs(query: Query) -> list[str]:
    """Take the measures out of a query, in the order of the rules."""
    query.take_all(_AGE)
    tags: list[str] = []
    for pattern, form in _RULES:
        for match in query.take_all(pattern):
            tags.extend(tag for tag in form(match) if tag not in tags)
    return tags
