"""A drawn card of a person who does not exist, and files that are none; drawn once."""

from __future__ import annotations

import io
import random
from functools import cache

from PIL import Image

from bench.ktp_cards import Card, draw, invent
from bench.ktp_photos import photograph

# The one that .ci/run sees to.
FONT = "dejavu/DejaVuSans.ttf"


@cache
def card_photo() -> tuple[Card, bytes]:
    """Return a card and a JPEG of it, small so that it is read fast."""
    rng = random.Random("tests 1")
    card = invent(rng)
    return card, photograph(draw(card, rng, width=900, only=FONT), "clean", rng)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return an image as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def values(card: Card) -> dict[str, object]:
    """Return a card as contract 5 answers it."""
    flat = dict(card.fields)
    names = {"name": "alamat", "rt_rw": "rt_rw", "kel_desa": "kel_desa", "kecamatan": "kecamatan"}
    address = {inner: flat.pop(name) for inner, name in names.items()}
    return {**flat, "alamat": address}
