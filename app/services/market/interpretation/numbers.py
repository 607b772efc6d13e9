"""Numbers in words, Indonesian and English, as digits; the words of scale stay ("500 ribu")."""

from __future__ import annotations

import re

_UNITS = {
    word: number
    for row in (
        "nol satu dua tiga empat lima enam tujuh delapan sembilan",
        "zero one two three four five six seven eight nine",
    )
    for number, word in enumerate(row.split())
}
_WHOLE = {"sepuluh": 10, "sebelas": 11, "seratus": 100} | {
    word: number
    for row, first, step in (
        ("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen", 10, 1),
        ("twenty thirty forty fifty sixty seventy eighty ninety", 20, 10),
    )
    for word, number in zip(row.split(), range(first, 100, step), strict=False)
}
_TIMES = {"puluh": 10, "ratus": 100, "hundred": 100}
_ANY = "|".join([*_UNITS, *_WHOLE, *_TIMES, "belas", "koma", "setengah"])
_RUN = re.compile(rf"\b(?:{_ANY})(?:[ -](?:{_ANY}))*\b")

# What is said in one word, as number and scale; the slang for money comes from Hokkien.
_SAID = [
    (re.compile(pattern), said)
    for pattern, said in (
        (r"\bse(juta|ribu|miliar|lusin|kodi)(an)?\b", r"1 \1\2"),
        (r"\b(?:a )?dozen\b", "1 lusin"),
        (r"\bse(?:buah|pasang|unit)\b", "1 unit"),
        (r"\bhalf a (million|billion)\b", r"0.5 \1"),
        (r"\band a half\b", "koma lima"),
        (r"\ba (hundred|thousand|million|couple)\b", r"one \1"),
        (r"\bone couple\b", "two"),
        (r"\b(juta|jt|ribu|rb) setengah\b", r"\1 tengah"),
        (r"\bseceng\b", "1 ribu"),
        (r"\bgoceng\b", "5 ribu"),
        (r"\bceban\b", "10 ribu"),
        (r"\bnoban\b", "20 ribu"),
        (r"\bgoban\b", "50 ribu"),
        (r"\bbelasan juta\b", "11-19 juta"),
        (r"\bbelasan ribu\b", "11-19 ribu"),
        (r"\bpuluhan ribu\b", "10-99 ribu"),
        (r"\bratusan ribu\b", "100-999 ribu"),
        (r"\bpuluhan juta\b", "10-99 juta"),
    )
]


def with_digits(text: str) -> str:
    """Return a folded text with its number words as digits."""
    for pattern, said in _SAID:
        text = pattern.sub(said, text)
    return _RUN.sub(lambda run: _digits(re.split("[ -]", run[0])), text)


def _digits(words: list[str]) -> str:
    """Return a run of number words as digits, as several numbers where it is no single one."""
    numbers: list[str] = []
    value, pending, said, decimals = 0.0, None, False, ""
    point = False

    def close() -> None:
        nonlocal value, pending, said, decimals, point
        if said:
            whole = f"{value + (pending or 0):g}"
            numbers.append(f"{whole}.{decimals}" if decimals else whole)
        value, pending, said, decimals, point = 0.0, None, False, "", False

    for word in words:
        if word in _UNITS:
            if point:
                decimals += str(_UNITS[word])
                continue
            if pending is not None:
                close()
            pending, said = _UNITS[word], True
        elif word in _WHOLE:
            if pending is not None:
                close()
            value, said = value + _WHOLE[word], True
        elif word == "belas":
            value, pending, said = value + 10 + (pending or 0), None, True
        elif word in _TIMES:
            times = _TIMES[word]
            if word == "hundred":
                value, pending = (value + (pending or 0) or 1) * times, None
            else:
                value, pending = value + (pending or 1) * times, None
            said = True
        elif word == "koma":
            point = said
        else:
            value, said = value + 0.5, True
    close()
    return " ".join(numbers) or " ".join(words)
