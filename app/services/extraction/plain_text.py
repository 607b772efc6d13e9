"""Plain text and Markdown as paragraphs: a hard-wrapped line is joined to the one that goes on.

A line break is a border where the text says so: a blank line, an indent, a bullet, a short last
line, a table, code. Hyphens that only split a word at the end of a line are taken back.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

# Files are wrapped at 60 to 100 columns; below that a line that ends early says nothing.
MIN_WRAP_CHARS = 38
# Chinese and Japanese say as much on half as many columns.
MIN_WIDE_CHARS = 20
MAX_TITLE_CHARS = 160
MAX_CHARS = 400_000
# Where a line ends is told from its last characters, however long it is.
END_CHARS = 80
MAX_WORDS = 40_000

_BULLET = re.compile(r"^\s*(?:[-*+•·▪–—‣]\s+|\(?\d{1,3}[.)]\s+|\(?[a-z][.)]\s+|>\s?|#{1,6}\s|\|)")
_RULE = re.compile(r"^\s*(?:[-=_*~^]\s?){3,}\s*$")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_HEADING = re.compile(r"^\s*#{1,6}\s+(.+?)\s*#*\s*$")
_SENTENCE_END = re.compile(r"[.!?…:;。！？।۔][\"'”’»)\]]*$")
_BROKEN_WORD = re.compile(r"([^\W\d_]+)[-\u2010\u00ad]$")
_FIRST_WORD = re.compile(r"^([^\W\d_]+)")
_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010][^\W\d_]+)*")
_WIDE = re.compile("[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff00-\uffef]")


def read_plain_text(text: str) -> tuple[str, str | None]:
    """Return the text with a line for every paragraph, and its title if its first line is one."""
    text = text[:MAX_CHARS].replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    title = _title_of(lines)
    return "\n\n".join(paragraphs_of(lines)), title


def paragraphs_of(lines: Sequence[str]) -> list[str]:
    """Return the paragraphs of lines that may be wrapped, each on one line; code keeps its own."""
    words = _words_of(lines)
    width = _wrap_width(lines)
    found: list[str] = []
    block: list[str] = []
    fenced = False

    def close() -> None:
        if block:
            found.append(_joined(block, words))
            block.clear()

    for line in lines:
        if _FENCE.match(line):
            close()
            fenced = not fenced
            continue
        if fenced:
            if line.strip():
                found.append(line)
            continue
        if not line.strip() or _RULE.match(line):
            close()
            continue
        if block and not _goes_on(block[-1], line, width):
            close()
        block.append(line)
    close()
    return found


def _goes_on(before: str, line: str, width: int) -> bool:
    """Say whether a line continues the one before it."""
    if _BULLET.match(line) or _HEADING.match(before) or _is_tabular(before) or _is_tabular(line):
        return False
    text = before.strip()
    indent, indent_before = _indent(line), _indent(before)
    bulleted = bool(_BULLET.match(before))
    if indent > indent_before + 1 and not bulleted:
        return False
    end = text[-END_CHARS:]
    if _BROKEN_WORD.search(end):
        return True
    if not width:
        # Each line is a paragraph here, but for one that plainly goes on.
        wide = len(text) >= MIN_WIDE_CHARS and _WIDE.match(text[-1]) and _WIDE.match(line.lstrip())
        return not _SENTENCE_END.search(end) and bool(line.lstrip()[:1].islower() or wide)
    first = line.split(maxsplit=1)[0]
    # Had the next word fitted on this line, whoever wrapped it would have put it there.
    fitted = len(before) + 1 + len(first) <= width - 2
    if not fitted:
        return True
    if _SENTENCE_END.search(end):
        return False
    return line.lstrip()[:1].islower() or len(before) >= 0.75 * width


def _wrap_width(lines: Sequence[str]) -> int:
    """Return the column at which most lines are wrapped; 0 where each line is a paragraph."""
    lengths = sorted(len(line) for line in lines if line.strip() and not _is_tabular(line))
    if len(lengths) < 3:
        return 0
    longest = lengths[max(0, int(len(lengths) * 0.95) - 1)]
    near = sum(0.75 * longest <= length <= longest + 4 for length in lengths)
    # Wrapped text has many lines of nearly the same length; paragraphs on a line each have not.
    return longest if MIN_WRAP_CHARS <= longest <= 140 and near * 3 >= len(lengths) else 0


def _joined(block: Sequence[str], words: Counter[str]) -> str:
    parts = [block[0].strip()]
    for line in block[1:]:
        following, end = line.strip(), parts[-1][-END_CHARS:]
        broken = _BROKEN_WORD.search(end)
        first = _FIRST_WORD.match(following)
        if broken and first and following[:1].islower():
            if _is_one_word(broken[1], first[1], words):
                parts[-1] = parts[-1][:-1]
            parts.append(following)
        elif _WIDE.match(end[-1:]) and _WIDE.match(following[:1]):
            parts.append(following)
        else:
            parts += [" ", following]
    return "".join(parts)


def _is_one_word(head: str, tail: str, words: Counter[str]) -> bool:
    """Say whether a hyphen at a line's end only splits a word: the text itself knows the word."""
    plain, hyphened = (head + tail).casefold(), f"{head}-{tail}".casefold()
    if words[hyphened] != words[plain]:
        return words[plain] > words[hyphened]
    # Both halves stand by themselves elsewhere: a compound. Else it was split by a type-setter.
    return not (words[head.casefold()] and words[tail.casefold()] and len(head) > 3)


def _words_of(lines: Iterable[str]) -> Counter[str]:
    """Count the words inside lines; what a line's end may have split does not count."""
    counts: Counter[str] = Counter()
    for line in lines:
        found = [match.group().casefold() for match in _WORD.finditer(line)]
        counts.update(found[:-1] if line.rstrip().endswith(("-", "\u2010", "\u00ad")) else found)
        if len(counts) > MAX_WORDS:
            break
    return counts


def _is_tabular(line: str) -> bool:
    return "\t" in line.strip() or len(re.findall(r"\S {3,}\S", line)) >= 2


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _title_of(lines: Sequence[str]) -> str | None:
    """Return the first line where it is a heading: underlined, marked, or short and by itself."""
    filled = [(number, line) for number, line in enumerate(lines) if line.strip()]
    if len(filled) < 2:
        return None
    number, first = filled[0]
    if match := _HEADING.match(first):
        return match[1][:MAX_TITLE_CHARS]
    text = " ".join(first.split())
    following = lines[number + 1] if number + 1 < len(lines) else ""
    by_itself = not following.strip() or bool(_RULE.match(following))
    if not by_itself or len(text) > MAX_TITLE_CHARS or _BULLET.match(first):
        return None
    return text if not _SENTENCE_END.search(text) and len(text.split()) <= 20 else None
