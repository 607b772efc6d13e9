"""PDF files drawn here, as type-setters draw them: columns, running heads, marks, split words."""

from __future__ import annotations

import pytest

from app.services.extraction.pdf.text import read_pdf

Drawn = tuple[float, float, float, str]
BODY = 10.0


def pdf(*pages: list[Drawn], info: str = "") -> bytes:
    """Return a PDF whose pages show texts at (x, y, size)."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>"]
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(len(pages)))
    objects.append(f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>")
    font = "<< /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
    for n, page in enumerate(pages):
        shown = "\n".join(
            f"BT /F1 {size} Tf 1 0 0 1 {x} {y} Tm ({text}) Tj ET" for x, y, size, text in page
        )
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {4 + 2 * n} 0 R "
            f"/Resources << /Font {font} >> >>"
        )
        objects.append(f"<< /Length {len(shown)} >>\nstream\n{shown}\nendstream")
    objects.append(f"<< {info} >>")
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(out)
    size = len(objects) + 1
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}".encode()
    out += f"trailer\n<< /Size {size} /Root 1 0 R /Info {size - 1} 0 R >>\n".encode()
    return out + f"startxref\n{start}\n%%EOF".encode()


def column(x: float, top: float, *lines: str, size: float = BODY) -> list[Drawn]:
    return [(x, top - 12 * n, size, line) for n, line in enumerate(lines)]


LEFT = (
    "The night ferry sailed again on Monday",
    "after nine winters in the dry dock, with",
    "three hundred people on board and a",
    "brass band on the quay.",
)
RIGHT = (
    "It had been taken out of service when",
    "the council closed the northern berth,",
    "which left the island with one crossing",
    "a day in the dark months.",
)
LEFT_SENTENCE, RIGHT_SENTENCE = " ".join(LEFT), " ".join(RIGHT)


def test_columns_are_read_one_after_the_other() -> None:
    head = [(60.0, 760.0, 18.0, "Night ferry returns")]
    text, title, *_ = read_pdf(pdf([*head, *column(60, 700, *LEFT), *column(320, 700, *RIGHT)]))
    assert LEFT_SENTENCE in text
    assert RIGHT_SENTENCE in text
    assert text.index("brass band") < text.index("It had been")
    assert title == "Night ferry returns"


def test_one_column_stays_one() -> None:
    text, *_ = read_pdf(pdf(column(60, 700, *LEFT, *RIGHT)))
    assert LEFT_SENTENCE in text
    assert RIGHT_SENTENCE in text


def test_running_heads_and_page_numbers_are_no_text() -> None:
    """Pitfalls: every PDF gave false sentences."""
    pages = [
        [(60.0, 780.0, 8.0, "OSTRAND REVIEW"), *column(60, 700, *lines), (300.0, 30.0, 8.0, number)]
        for lines, number in ((LEFT, "1"), (RIGHT, "2"), (LEFT, "3"), (RIGHT, "Page 4"))
    ]
    text, *_ = read_pdf(pdf(*pages))
    assert "OSTRAND" not in text
    assert not any(line.strip().isdigit() or "Page" in line for line in text.splitlines())


def test_a_sentence_goes_on_over_the_page_break() -> None:
    text, *_ = read_pdf(pdf(column(60, 700, *LEFT[:2]), column(60, 700, *LEFT[2:])))
    assert LEFT_SENTENCE in text


def test_a_word_that_a_line_splits_is_one_word_and_a_footnotes_mark_is_none() -> None:
    lines = ["The boat carried many passen-", "gers over the sound on every day of it."]
    drawn = [*column(60, 700, *lines, *RIGHT), (205.0, 704.0, 6.0, "12")]
    text, *_ = read_pdf(pdf(drawn))
    assert "many passengers over" in text
    assert "12" not in text


@pytest.mark.parametrize(
    ("info", "title", "author"),
    [
        ("/Title (untitled) /Author (anonymous)", "Night ferry returns", None),
        ("/Title (Microsoft Word - ferry_v3.docx) /Author (jsmith)", "Night ferry returns", None),
        ("/Title (ferry_final.indd)", "Night ferry returns", None),
        ("/Title (The ferry of Ostrand) /Author (Runa Dahl)", "The ferry of Ostrand", "Runa Dahl"),
    ],
)
def test_a_title_that_a_program_made_up_is_none(info: str, title: str, author: str | None) -> None:
    drawn = [(60.0, 760.0, 18.0, "Night ferry returns"), *column(60, 700, *LEFT)]
    assert read_pdf(pdf(drawn, info=info))[1:3] == (title, author)
