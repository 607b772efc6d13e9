"""A model's answer about a card, in every form it comes in, and its merging with OCR: S2.33."""

from __future__ import annotations

import json

import pytest

from app.core.errors import Unsupported
from app.services.ocr.ktp import read_card
from app.services.ocr.vision import card_schema, read_object, see_card, with_seen
from tests.engines import ScriptedEngine
from tests.services.ocr.cards import VALUES, card, rows

ADDRESS = {"name": "JL. MELATI NO. 12", "rt_rw": "007/012", "kel_desa": "SUKAMAJU"}
ANSWER = {
    **{n: VALUES[n] for n in ("nik", "nama", "agama", "pekerjaan")},
    "alamat": {**ADDRESS, "kecamatan": "COBLONG"},
}
TEXT = json.dumps(ANSWER)


@pytest.mark.parametrize(
    "answer",
    [
        TEXT,
        f"```json\n{json.dumps(ANSWER, indent=2)}\n```",
        f"Berikut hasilnya:\n{TEXT}\nSemoga membantu!",
        f"<think>Ini {{sebuah}} KTP.</think>{TEXT}",
        TEXT[:-1],
    ],
)
def test_an_answer_is_read_in_whatever_form_it_comes(answer: str) -> None:
    assert read_object(answer) == ANSWER


def test_half_an_answer_gives_what_it_has() -> None:
    told = read_object(TEXT[: TEXT.index("kel_desa")])
    assert told["nama"] == VALUES["nama"]
    assert told["alamat"] == {"name": ADDRESS["name"], "rt_rw": ADDRESS["rt_rw"]}
    assert read_object("Maaf, saya tidak bisa.") == {}


async def test_the_model_is_asked_with_the_schema_and_does_not_think() -> None:
    engine = ScriptedEngine([TEXT])
    seen = await see_card(engine, b"jpeg")
    (request,) = engine.requests
    assert (request.images, request.thinking) == ((b"jpeg",), False)
    assert request.json_schema == card_schema()
    assert (seen["nama"], seen["kecamatan"]) == (VALUES["nama"], "COBLONG")


async def test_an_engine_without_grammar_is_asked_without_schema() -> None:
    class Plain(ScriptedEngine):
        async def fit(self, request, *, may_drop=False):  # type: ignore[no-untyped-def]
            if request.json_schema is not None:
                raise Unsupported("no grammar here", code="no_grammar")
            return await super().fit(request)

    engine = Plain([f"```json\n{TEXT}\n```"])
    assert (await see_card(engine, b"jpeg"))["nik"] == VALUES["nik"]


def test_the_model_fills_what_is_empty_and_a_valid_number_stays() -> None:
    reading = read_card(card(rows({"nama": "", "agama": ""})))
    seen = {"nama": "SITI KUSUMA", "agama": "ISLAM", "nik": "3204124107900009"}
    merged = with_seen(reading, seen)
    assert merged.fields["nama"].value == "SITI KUSUMA"
    assert merged.fields["agama"].value == "ISLAM"
    assert merged.fields["nik"].value == VALUES["nik"]
    assert "nik_differs" in merged.warnings


def test_disagreement_is_a_warning_and_ocr_stays_where_it_is_sure() -> None:
    merged = with_seen(read_card(card()), {"pekerjaan": "GURU", "agama": "ISLAM"})
    assert merged.fields["pekerjaan"].value == VALUES["pekerjaan"]
    assert merged.warnings == ("pekerjaan_differs",)
