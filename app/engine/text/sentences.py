"""Where sentences and words end, in any script; knows nothing of models, prompts or summaries.

pysbd splits short paragraphs of the languages it knows. Everything else goes through one linear
scan with rules for the terminators of Latin, CJK, Indic, Arabic, Ethiopic and Khmer writing, and
scripts that write no full stop (Thai, Lao, Khmer, Burmese) are cut at spaces into bounded chunks.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from itertools import pairwise

from app.engine.text.graphemes import grapheme_border

WORDS_A_MINUTE = 200

# pysbd is quadratic in the paragraph: 4,000 characters of "1. 1. 1." take 0.14 s, 1,500 take 0.02.
PYSBD_PARAGRAPH_CHARS = 1_500
PYSBD_TOTAL_CHARS = 20_000
# A call costs a millisecond whatever its length: as much as this many characters.
PYSBD_CALL_CHARS = 20
# A text of fewer sentences has no three different things to say.
FEW_SENTENCES = 5
SHORT_TEXT_CHARS = 3_000
# What has no stop and not more words than this is a headline, a label or a caption.
LABEL_WORDS = 12
CHUNK_MIN_CHARS = 60
CHUNK_MAX_CHARS = 200

# ar, fa and ur are left out because pysbd cuts at their commas; zh and ja because the scan below
# keeps closing quotes with the sentence and pysbd does not.
PYSBD_LANGUAGES = frozenset(
    ("am", "bg", "da", "de", "el", "en", "es", "fr", "hi", "hy", "it", "kk", "mr", "nl", "pl", "ru")
)

HAN_KANA = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SOUTH_EAST_ASIAN = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_HAN_KANA = re.compile(f"[{HAN_KANA}]")
_SOUTH_EAST_ASIAN = re.compile(f"[{SOUTH_EAST_ASIAN}]")
_SCRIPTS = (
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("hy", re.compile("[\u0530-\u058f]")),
    ("am", re.compile("[\u1200-\u137f]")),
)

_WIDE_ENDS = "。！？｡．"
# Stops of Urdu, Hindi, Armenian, Ethiopic, Khmer and Burmese, which may have no space after them.
_INDIC_ENDS = "\u06d4\u0964\u0965\u0589\u1362\u17d4\u104b"
_CLOSERS = "\"'”’»›)\\]」』）】》〉"
# Nothing follows the two runs, so the scan never backtracks.
_END = re.compile(f"[.!?…‥؟{_INDIC_ENDS}{_WIDE_ENDS}]+[{_CLOSERS}]*")
_ENDS = re.compile("[.!?…。！？।॥։።។؟۔][\"'”’»)\\]」』）】]*$")
# What pysbd has rules for beyond abbreviations: quotes, brackets, lists, dots in a row, dashes.
_INTRICATE = re.compile(
    r"--|[\"“”„«»‘\[\](){}*\\/@_=<>|•⁃…!]|(?<!\w)'|\b\d{1,2}\. |\.\.|[^\x00-\u024f‘’“”–—€]"
)
_PLAIN_BORDER = re.compile(r"(?:^|(?<= ))([A-Z]?[a-z]{2,}|\d{4})[.?] (?=[A-Z])")
_LIST_NUMBER = re.compile(r"(\d{1,3}\.)\s+")
_QUOTATIVE = frozenset("とっで、，,")
_ABBREVIATION_LIST = """
    mr mrs ms dr prof rev gen sen rep gov capt col lt sgt st jr sr hon pres vs etc al fig no nos vol
    inc corp co ltd llc plc dept est approx jan feb mar apr jun jul aug sep sept oct nov dec mon tue
    wed thu fri sat sun ave blvd rd mt ft dll dsb dst tsb hlm jl jln ir drs dra hj tbk pt cv yth kab
    kec kel bpk sdr rp bzw usw ca evtl ggf nr str abs bd hrsg inkl max min mio mrd sog vgl dipl mme
    mlle sra srta dña ej pág av ing dott sig г гг ул им др пр тыс млн руб стр см тел
"""
_ABBREVIATIONS = frozenset(_ABBREVIATION_LIST.split())
_ENGLISH = re.compile(
    r"\b(?:the|of|and|to|is|was|that|for|with|are|has|have|this|it|from|by|an?|at|on|he|they)\b",
    re.IGNORECASE,
)
_CONTINUATIONS = "—–,;:)]»"


def split_sentences(text: str, language: str | None = None) -> list[str]:
    """Return the sentences of `text`, each a verbatim part of it without outer white space.

    A line break is a border. `language` is a tag such as "de" or "en-US"; without it the script
    decides. Takes time linear in the text.
    """
    code = _language_of(text, language)
    chunked = code == "th"
    pysbd_left = PYSBD_TOTAL_CHARS if code in PYSBD_LANGUAGES else 0
    found: list[str] = []
    for line in text.splitlines():
        paragraph = line.strip()
        if not paragraph:
            continue
        sentences = None
        if len(paragraph) <= min(PYSBD_PARAGRAPH_CHARS, pysbd_left):
            pysbd_left -= max(len(paragraph), PYSBD_CALL_CHARS)
            sentences = _pysbd(paragraph, code)
        if sentences is None:
            sentences = list(_scan(paragraph, ordinals=code != "en"))
        for sentence in sentences:
            found.extend(_chunks(sentence) if chunked else [sentence])
    return found


def count_sentences(text: str, language: str | None = None) -> int:
    """Count sentences by the linear scan alone, which is within a few of `split_sentences`."""
    code = _language_of(text, language)
    found = (s for line in text.splitlines() for s in _scan(line.strip(), ordinals=code != "en"))
    return sum(sum(1 for _ in _chunks(one)) if code == "th" else 1 for one in found)


def has_few_sentences(text: str, language: str | None = None) -> bool:
    """Say whether a text has under five sentences; a headline or a label is none."""
    if len(text) > SHORT_TEXT_CHARS:
        return False
    found = split_sentences(text, language)
    if _language_of(text, language) == "th":
        return len(found) < FEW_SENTENCES
    whole = [one for one in found if ends_sentence(one) or count_words(one) > LABEL_WORDS]
    return len(whole) < FEW_SENTENCES


def ends_sentence(text: str) -> bool:
    """Say whether a text ends the way a sentence ends."""
    return bool(_ENDS.search(text))


def count_words(text: str) -> int:
    """Count words; scripts without spaces are estimated from their letters.

    Two Han or Kana characters count as one word and so do five Thai, Lao, Khmer or Burmese letters,
    their average lengths in running text. Everything else, Korean too, is counted by white space.
    """
    spaced, wide = _HAN_KANA.subn(" ", text)
    spaced, letters = _SOUTH_EAST_ASIAN.subn(" ", spaced)
    words = sum(1 for token in spaced.replace("—", " ").split() if any(map(str.isalnum, token)))
    return words + -(-wide // 2) + -(-letters // 5)


def read_time_min(text: str) -> int:
    """Return the minutes it takes to read `text`: 200 words a minute, rounded, at least 1 (C20)."""
    return max(1, int(count_words(text) / WORDS_A_MINUTE + 0.5))


def looks_english(text: str) -> bool:
    """Say whether the text is English, by its share of function words (a quarter is usual)."""
    sample = text[:4_000]
    return len(_ENGLISH.findall(sample)) >= max(1, sample.count(" ")) * 0.14


def _language_of(text: str, language: str | None) -> str:
    sample = text[:4_000]
    letters = max(1, sum(map(str.isalpha, sample)))
    if len(_SOUTH_EAST_ASIAN.findall(sample)) > letters * 0.3:
        return "th"
    if len(_HAN_KANA.findall(sample)) > letters * 0.2:
        return "zh"
    if language:
        return re.split("[-_]", language.strip().lower(), maxsplit=1)[0]
    for code, script in _SCRIPTS:
        if len(script.findall(sample)) > letters * 0.4:
            return code
    return "en" if looks_english(sample) else ""


def _pysbd(paragraph: str, code: str) -> list[str] | None:
    """Split with pysbd, or return None where it raises, or loses or repeats text."""
    first = _END.search(paragraph)
    if first is None or first.end() == len(paragraph):
        return [paragraph]
    if code == "en" and (plain := _plainly(paragraph)) is not None:
        return plain
    import pysbd

    try:
        # A segmenter keeps the text it works on, so threads must not share one; making it is free.
        parts = pysbd.Segmenter(language=code, clean=False).segment(paragraph)
    except Exception:
        return None
    if "".join("".join(parts).split()) != "".join(paragraph.split()):
        return None
    spans: list[list[int]] = []
    position = 0
    for part in filter(None, map(str.strip, parts)):
        at = paragraph.find(part, position)
        if at < 0:
            return None
        position = at + len(part)
        # It takes the dot of an abbreviation it has not heard of for the end of a sentence.
        if spans and (part[0].islower() or part[0] in _CONTINUATIONS):
            spans[-1][1] = position
            continue
        # It takes the figure that ends a sentence ("day 3. The next") for a list's number.
        number = _LIST_NUMBER.match(part)
        if spans and number and not ends_sentence(paragraph[spans[-1][0] : spans[-1][1]]):
            spans[-1][1] = at + number.end(1)
            at += number.end()
        spans.append([at, position])
    return [paragraph[start:end] for start, end in spans if end > start]


def _plainly(paragraph: str) -> list[str] | None:
    """Split an English paragraph in which nothing but a word's full stop is a mark, else None.

    That is where pysbd can find nothing else, at a hundredth of its time.
    """
    if _INTRICATE.search(paragraph):
        return None
    borders = list(_PLAIN_BORDER.finditer(paragraph))
    if any(border[1].lower() in _known_abbreviations() for border in borders):
        return None
    inside = re.sub(r"(?<=\d)\.(?=\d)", "", paragraph)
    marks = sum(map(inside.count, ".?"))
    if marks != len(borders) + paragraph.endswith((".", "?")):
        return None
    ends = [0, *(border.end() - 1 for border in borders), len(paragraph)]
    return [paragraph[start:end].strip() for start, end in pairwise(ends)]


@functools.cache
def _known_abbreviations() -> frozenset[str]:
    from pysbd.languages import Language

    listed = Language.get_language_code("en").Abbreviation.ABBREVIATIONS
    return _ABBREVIATIONS | {word.strip().lower() for word in listed}


def _scan(paragraph: str, *, ordinals: bool) -> Iterator[str]:
    start = 0
    for match in _END.finditer(paragraph):
        if _ends_sentence(paragraph, match, ordinals=ordinals):
            if sentence := paragraph[start : match.end()].strip():
                yield sentence
            start = match.end()
    if rest := paragraph[start:].strip():
        yield rest


def _ends_sentence(text: str, match: re.Match[str], *, ordinals: bool) -> bool:
    mark, end = match.group(), match.end()
    following = text[end : end + 1]
    if not following:
        return True
    if any(char in _WIDE_ENDS for char in mark):
        return mark[-1] in _WIDE_ENDS or following not in _QUOTATIVE
    if not following.isspace():
        return mark[0] in _INDIC_ENDS and following.isalpha()
    upcoming = text[end : end + 12].lstrip().lstrip("\"'“‘«‹([„-–—")
    if upcoming[:1].islower():
        return False
    if mark != ".":
        return True
    before = text[max(0, match.start() - 24) : match.start()].split()
    word = before[-1].lstrip("\"'“‘«([„") if before else ""
    if len(word) == 1 and word.isalpha():
        return False
    if "." in word and len(word) <= 5:
        return False
    if ordinals and word.isdigit() and len(word) <= 2:
        return False
    return word.lower() not in _ABBREVIATIONS


def _chunks(sentence: str) -> Iterator[str]:
    """Cut writing that has no full stops at its spaces, which there separate clauses."""
    chunk = ""
    for piece in sentence.split():
        while len(piece) > CHUNK_MAX_CHARS:
            if chunk:
                yield chunk
                chunk = ""
            border = grapheme_border(piece, CHUNK_MAX_CHARS)
            yield piece[:border]
            piece = piece[border:]
        if chunk and len(chunk) + 1 + len(piece) > CHUNK_MAX_CHARS:
            yield chunk
            chunk = ""
        chunk = f"{chunk} {piece}" if chunk else piece
        if len(chunk) >= CHUNK_MIN_CHARS:
            yield chunk
            chunk = ""
    if chunk:
        yield chunk
