"""A parsed page made ready for extraction: what a reader would not see is gone, white space is one.

Works on an lxml tree in place; knows nothing of articles, metadata or trafilatura.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

# CSS Text 3, section 4.1: what collapses. A no-break space does not.
_SPACE = re.compile(r"[ \t\n\r\f]+")
_KEPT = frozenset(("pre", "textarea", "script", "style", "template"))
# A line break between two Chinese or Japanese letters is no space (CSS Text 3, segment breaks).
_WIDE = "\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
_WIDE_BREAK = re.compile(rf"(?<=[{_WIDE}])[ \t]*[\r\n][ \t\r\n\f]*(?=[{_WIDE}])")
_HIDDEN_STYLE = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"[.!?:;…。！？।۔][\"'”’»)\]]*$")
_INLINE_PARENTS = ("p", "li", "td", "dd", "blockquote", "figcaption", "div", "section", "article")
_SENTENCE_PARENTS = ("p", "li", "td", "dd", "blockquote", "figcaption")
MAX_LINK_CHARS = 200
SENTENCE_CHARS = 60
# A line that was wrapped by hand is about this long at least; shorter ones stand by themselves.
WRAPPED_CHARS = 50
LINE_CHARS = 300
MAX_BREAKS = 2_000
_INLINE = frozenset(
    ("a", "abbr", "b", "cite", "code", "em", "i", "mark", "q", "span", "strong", "u")
)


def text_lengths(tree: Any) -> dict[Any, int]:
    """Return how many characters of text each element holds, in time linear in the tree.

    Asking every element for its text would take the square of it.
    """
    lengths: dict[Any, int] = {}
    for element in reversed(list(tree.iter())):
        own = len(element.text or "") if isinstance(element.tag, str) else 0
        below = sum(lengths.get(child, 0) + len(child.tail or "") for child in element)
        lengths[element] = own + below
    return lengths


def collapse_white_space(tree: Any) -> None:
    """Make each run of white space one space, outside `pre` and `textarea`, as browsers do."""
    stack: list[tuple[Any, bool]] = [(tree, False)]
    while stack:
        element, kept = stack.pop()
        kept = kept or element.tag in _KEPT
        if element.text and not kept:
            element.text = _collapsed(element.text)
        for child in element:
            if child.tail and not kept:
                child.tail = _collapsed(child.tail)
            stack.append((child, kept))


def _collapsed(text: str) -> str:
    return _SPACE.sub(" ", _WIDE_BREAK.sub("", text))


def join_wrapped_lines(tree: Any) -> None:
    """Replace a `<br>` that only wraps a line by a space; two in a row are a border and stay."""
    # Each one that goes copies the text before it: a page of very many is left as it is.
    for br in list(itertools.islice(tree.iter("br"), MAX_BREAKS)):
        after = (br.tail or "").lstrip()
        before = _text_before(br)
        if after and before and _is_wrapped(before, after):
            br.tail = f" {after}"
            br.drop_tag()


def _text_before(br: Any) -> str:
    """Return the end of the line that a `<br>` ends, at most a few hundred characters of it."""
    parts: list[str] = []
    left = LINE_CHARS
    node = br
    while left > 0:
        previous = node.getprevious()
        text = previous.tail if previous is not None else node.getparent().text
        parts.append((text or "")[-left:])
        left -= len(parts[-1])
        if previous is None or previous.tag not in _INLINE:
            break
        parts.append("".join(itertools.islice(previous.itertext(), 50))[-max(left, 1) :])
        left -= len(parts[-1])
        node = previous
    return "".join(reversed(parts)).strip()


def _is_wrapped(before: str, after: str) -> bool:
    if _SENTENCE_END.search(before):
        return False
    return len(before) >= WRAPPED_CHARS or after[:1].islower()


def drop_hidden(tree: Any) -> None:
    """Remove what no reader sees; a page may hide most of its text until a script runs."""
    for template in list(tree.iter("template")):
        template.drop_tree()
    hidden = [e for e in tree.iter() if isinstance(e.tag, str) and _is_hidden(e)]
    lengths = text_lengths(tree) if hidden else {}
    for element in hidden:
        if element.getparent() is not None and 2 * lengths[element] < lengths[tree]:
            element.drop_tree()


def _is_hidden(element: Any) -> bool:
    if element.get("hidden") is not None and element.get("hidden") != "until-found":
        return True
    if (element.get("aria-hidden") or "").strip().lower() == "true":
        return True
    return bool(_HIDDEN_STYLE.search(element.get("style") or ""))


def drop_scripts(tree: Any) -> bool:
    """Remove scripts and styles, which parsers behind this would read; say if there were any."""
    found = list(tree.iter("script", "style"))
    for element in found:
        if element.getparent() is not None:
            element.drop_tree()
    return bool(found)


def spell_formulas(tree: Any) -> None:
    """Put a formula's text where it stands: MathML as its TeX or letters; KaTeX says it twice."""
    for math in list(tree.iter("math", "{http://www.w3.org/1998/Math/MathML}math")):
        written = next(
            (
                note.text
                for note in math.iter()
                if isinstance(note.tag, str)
                and note.tag.rpartition("}")[2] == "annotation"
                and "tex" in (note.get("encoding") or "").lower()
            ),
            None,
        )
        text = (written or math.get("alttext") or "".join(math.itertext())).strip()
        tail = math.tail
        for child in list(math):
            math.remove(child)
        math.tag, math.text, math.tail = "span", text, tail
        math.attrib.clear()


def spell_definitions(tree: Any) -> None:
    """Make paragraphs of definitions that are sentences: extraction knows them in few places."""
    for meaning in list(tree.iter("dd")):
        if meaning.find("p") is None and len(meaning.text_content()) >= SENTENCE_CHARS:
            meaning.tag = "p"
            group = meaning.getparent()
            if group is not None and group.tag == "dl":
                group.tag = "div"


def keep_inline_links(tree: Any) -> None:
    """Turn a link inside a sentence into its words: extraction drops links that it distrusts."""
    lengths = text_lengths(tree)
    linked: dict[Any, int] = {}
    found = []
    for link in list(tree.iter("a")):
        block = next((a for a in link.iterancestors() if a.tag in _INLINE_PARENTS), None)
        if block is not None:
            linked[block] = linked.get(block, 0) + lengths[link]
            found.append((link, block))
    for link, block in found:
        if not 0 < lengths[link] <= MAX_LINK_CHARS or 2 * linked[block] > lengths[block]:
            continue
        if block.tag not in _SENTENCE_PARENTS and not _has_own_words(block):
            continue
        # Another element instead of none: text that is joined again and again is copied.
        link.tag = "span"
        link.attrib.clear()
        wrapper = link.getparent()
        if wrapper is not block and wrapper.tag == "span":
            wrapper.attrib.clear()


def _has_own_words(block: Any) -> bool:
    """Say whether a container has running text of its own beside its children."""
    own = len((block.text or "").strip())
    for child in block:
        own += len((child.tail or "").strip())
        if own >= 40:
            return True
    return False
