"""Bytes of a web page to text that can be stored and sent; knows nothing of HTML beyond <meta>."""

from __future__ import annotations

import codecs
import re
import unicodedata

from charset_normalizer import from_bytes

# The labels pages really use (https://encoding.spec.whatwg.org/#names-and-labels) and the superset
# that browsers decode them with. A closed list: Python also "decodes" rot13, utf-7 and zip.
_LABELS = {
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8",
    "utf-16-le": "utf-16 utf-16le unicode ucs-2",
    "utf-16-be": "utf-16be",
    "gb18030": "gb18030 gbk gb2312 gb_2312-80 x-gbk chinese csgb2312",
    "big5hkscs": "big5 big5-hkscs x-x-big5 cn-big5 csbig5",
    "cp932": "shift_jis shift-jis sjis x-sjis windows-31j ms932 csshiftjis",
    "euc_jp": "euc-jp x-euc-jp",
    "iso2022_jp": "iso-2022-jp csiso2022jp",
    "cp949": "euc-kr ks_c_5601-1987 ksc5601 korean windows-949 cseuckr",
    "cp874": "tis-620 windows-874 iso-8859-11 dos-874",
    "koi8_r": "koi8-r koi8 koi",
    "koi8_u": "koi8-u koi8-ru",
    "mac_roman": "macintosh mac x-mac-roman",
    "cp866": "ibm866 cp866 866",
    "cp1252": "windows-1252 cp1252 iso-8859-1 latin1 latin-1 l1 ascii us-ascii x-cp1252",
    "cp1254": "windows-1254 iso-8859-9 latin5 x-cp1254",
    **{f"iso8859_{n}": f"iso-8859-{n} iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15)},
    **{f"cp125{n}": f"windows-125{n} cp125{n} x-cp125{n}" for n in (0, 1, 3, 5, 6, 7, 8)},
}
_CODECS = {label: codec for codec, labels in _LABELS.items() for label in labels.split()}
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_META_BYTES = 4096
_META = re.compile(rb"""<meta[^>]{0,500}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_XML = re.compile(rb"""^\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{2,40})""")
_BETWEEN_TAGS = re.compile(rb"[^<>]+")
_SAMPLE_BYTES = 16_384
# A real page in its own charset has a stray byte or two; in a wrong one, one in every few letters.
_DAMAGE = 1 / 100
_STRAY = 1 / 10
_WESTERN = frozenset(("cp1252", "cp1254", "iso8859_15", "mac_roman"))
_ACCENTS = re.compile("[\x80-\xff]")
_ACCENT_RUN = re.compile("(?<=[\x80-\xff])[\x80-\xff]")
_JIS_ESCAPE = re.compile(rb"\x1b\$[@B]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufeff\ufffe\uffff]")


def decode_text(body: bytes, declared: str | None = None, *, markup: bool = True) -> str:
    """Decode by byte order mark, by what is provably UTF-8, by declaration, then by detection.

    Never raises. `declared` is the header's charset; `markup` lets a <meta> speak too.
    """
    for bom, codec in _BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(codec, "replace")
    if (wide := _unmarked_utf16(body)) is not None:
        return body.decode(wide, "replace")
    if body.isascii():
        # The one charset of the web that is spelled in ASCII, with escapes.
        return body.decode("iso2022_jp" if _JIS_ESCAPE.search(body) else "ascii", "replace")
    # Other charsets are valid UTF-8 only by accident, while "iso-8859-1" is what a server says
    # that was never told anything.
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        text = body.decode("utf-8", "replace")
    if _is_damaged_little(text, _STRAY):
        return text
    for codec in dict.fromkeys(_named_codecs(body, declared, markup=markup)):
        text = body.decode(codec, "replace")
        if _is_damaged_little(text, _DAMAGE) and not (codec in _WESTERN and _is_unlikely(text)):
            return text
    return _detect(body)


def _named_codecs(body: bytes, declared: str | None, *, markup: bool) -> list[str]:
    """Return the codecs that the header and the page name, the likelier one first."""
    labels = [declared or ""]
    if markup:
        head = body[:_META_BYTES]
        found = (pattern.search(head) for pattern in (_META, _XML))
        # A <meta> that could be read as ASCII cannot be in UTF-16 (HTML standard, prescan).
        labels += [m[1].decode("ascii").lower().replace("utf-16", "utf-8") for m in found if m]
    named = [c for label in labels if (c := _CODECS.get(label.strip("\"' ").lower()))]
    # A header that says Latin-1 is a default, and every byte is legal in it: the page knows better.
    return sorted(named, key=lambda codec: codec in _WESTERN)


def _is_damaged_little(text: str, share: float) -> bool:
    letters = len(text) - len(text.encode("ascii", "ignore"))
    damaged = text.count("\ufffd")
    return damaged <= max(letters > 20, (letters - damaged) * share)


def _is_unlikely(text: str) -> bool:
    """Say whether a text read as Western European is none: there accents stand alone in a word."""
    accents = len(_ACCENTS.findall(text))
    return accents > 20 and len(_ACCENT_RUN.findall(text)) * 2 > accents


def _unmarked_utf16(body: bytes) -> str | None:
    """Name the byte order of UTF-16 without a mark: every other byte of Latin text is zero."""
    sample = body[:512]
    odd, even = sample[1::2].count(0), sample[::2].count(0)
    if (
        len(sample) >= 8
        and max(odd, even) * 8 > len(sample)
        and min(odd, even) * 20 < max(odd, even)
    ):
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def clean_text(text: str) -> str:
    """Return the text in NFC without lone surrogates, NUL and other controls."""
    return unicodedata.normalize("NFC", _UNPRINTABLE.sub("", text))


def _detect(body: bytes) -> str:
    # Tags and scripts are ASCII in every charset: only the text between them tells them apart.
    runs = (match[0] for match in _BETWEEN_TAGS.finditer(body))
    sample = b"\n".join(run for run in runs if not run.isascii())[:_SAMPLE_BYTES]
    best = from_bytes(sample).best() if sample else None
    codec = _CODECS.get(best.encoding.replace("_", "-"), best.encoding) if best else "cp1252"
    return body.decode(codec, "replace")
