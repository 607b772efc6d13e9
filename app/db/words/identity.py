"""Are two listings the same good? Each gets a number, and equal numbers are offers of one good."""

from __future__ import annotations

import hashlib
import re

from app.db.words.terms import things_of, words_of

_GTIN_DIGITS = frozenset((8, 12, 13, 14))
# A shorter one is a supplier's own numbering and says nothing of another supplier's goods.
_MIN_SKU_CHARS = 5
# What sellers write around a name.
_PRAISE_WORDS = """
original ori asli murah termurah promo promosi diskon sale garansi resmi terbaru baru new best
seller ready stock stok gratis ongkir free cod bergaransi terlaris limited edition 100 bekas
second used seken dan and dengan with untuk for
"""
_PRAISE = frozenset(_PRAISE_WORDS.split())


def identity_of(*, name: str, category: str, condition: str, sku: str | None) -> int:
    """Return the number of a good: by its GTIN, else its SKU and category, else its name and specs.

    New and used ones are never the same good. Words of a name count in any order, once.
    """
    code = re.sub(r"[\s\-_.]", "", sku or "").casefold()
    if is_gtin(code):
        key = f"gtin {int(code)}"
    elif len(code) >= _MIN_SKU_CHARS:
        key = f"sku {code} {category_key(category)}"
    else:
        things = {thing for _, thing in things_of(words_of(name))}
        key = f"name {category_key(category)} {' '.join(sorted(things - _PRAISE or things))}"
    digest = hashlib.blake2b(f"{condition} {key}".encode(), digest_size=8).digest()
    # A database's integers have a sign.
    return int.from_bytes(digest, "big") >> 1


def category_key(category: str) -> str:
    """Return what equal categories have in common: `Notebook` is `laptop`."""
    return " ".join(thing for _, thing in things_of(words_of(category)))


def is_gtin(code: str) -> bool:
    """Say whether it is a GTIN with its check digit (GS1 General Specifications, 7.9)."""
    if not (code.isascii() and code.isdigit() and len(code) in _GTIN_DIGITS and int(code)):
        return False
    digits = [int(digit) for digit in reversed(code)]
    return (
        digits[0] + sum(d * (3 if n % 2 == 0 else 1) for n, d in enumerate(digits[1:]))
    ) % 10 == 0
