"""The page's own node in its JSON-LD: read leniently, references followed, neighbours left out.

A page's structured data also describe teasers, reviews, comments and lists of other articles; only
the node that stands for this page says what its title, author and text are.
Format: https://www.w3.org/TR/json-ld11/ as https://schema.org uses it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from app.services.extraction.likeness import likeness

# JSON-LD of a shop can list a thousand products; an article is found in the first few nodes.
MAX_NODES = 5_000
MAX_BLOCKS = 50
# From here on two titles are taken for the same one.
ALIKE = 0.6

_ARTICLE_TYPE = re.compile(r"(?:Article|BlogPosting|Report|Review|Recipe|DiscussionForumPosting)$")
# Where a node of the page's own may stand; what hangs on any other property is a neighbour.
_OWN_PROPERTIES = ("@graph", "mainEntity", "mainEntityOfPage")
_TRAILING_COMMA = re.compile(r",(?=\s*[}\]])")
# One that is not closed takes the rest, so that nothing is looked at twice.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?+', re.DOTALL)
_OPENINGS = ("//<![CDATA[", "/*<![CDATA[*/", "<![CDATA[", "<!--")
_CLOSINGS = ("//]]>", "/*]]>*/", "]]>", "//-->", "-->")

Node = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OwnNode:
    """What the page says of itself; empty where it says nothing. `graph`: nodes by `@id`."""

    node: Node
    graph: dict[str, Node]

    def get(self, name: str) -> Any:
        """Return a property with its references followed one step."""
        return self.resolved(self.node.get(name))

    def resolved(self, value: Any) -> Any:
        """Return the node that a reference names, in place of the reference."""
        if isinstance(value, list):
            return [self.resolved(item) for item in value[:50]]
        if isinstance(value, dict) and len(value) <= 2 and isinstance(value.get("@id"), str):
            return self.graph.get(value["@id"], value)
        return value


def own_node(tree: Any, url: str, titles: list[str]) -> OwnNode:
    """Return the article node that is the page's own.

    `url`: the page's address. `titles`: what else the page calls itself (`<title>`, og:title, h1).
    """
    blocks = list(_blocks(tree))
    graph = _graph_of(blocks)
    addresses = {_address(url), *(_address(a) for a in _canonical(tree))} - {""}
    best: Node = {}
    best_score = 0.0
    candidates = list(_candidates(blocks))
    for node in candidates:
        score = _score(node, addresses, titles, alone=len(candidates) == 1)
        if score > best_score:
            best, best_score = node, score
    return OwnNode(best, graph)


def body_of(own: OwnNode) -> str | None:
    """Return the article as its node repeats it; a live blog is its updates, in their order."""
    updates = own.get("liveBlogUpdate")
    if isinstance(updates, list) and updates:
        parts = []
        for update in updates:
            if isinstance(update, dict):
                said = (update.get("headline"), update.get("articleBody"))
                parts += [text.strip() for text in said if isinstance(text, str) and text.strip()]
        if parts:
            return "\n\n".join(parts)
    body = own.node.get("articleBody")
    return body if isinstance(body, str) else None


def is_free(own: OwnNode) -> bool | None:
    """Say whether the whole article can be read without paying; None where nothing says so."""
    value = own.node.get("isAccessibleForFree")
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower().rpartition("/")[2])
    return value if isinstance(value, bool) else None


def _blocks(tree: Any) -> Iterator[Any]:
    for number, script in enumerate(tree.iter("script")):
        if "ld+json" in (script.get("type") or "").lower() and number < MAX_BLOCKS * 20:
            block = _read(script.text or "")
            if block is not None:
                yield block


def _read(text: str) -> Any:
    """Return the value of a block as publishers write it, None where it cannot be read."""
    text = _unwrapped(text)
    for attempt in (text, _without_trailing_commas(text), html.unescape(text)):
        try:
            # strict=False: real pages have raw line breaks inside strings.
            return json.loads(attempt, strict=False)
        except (ValueError, RecursionError):
            continue
    return None


def _unwrapped(text: str) -> str:
    """Return a block without the CDATA section or comment that hides it from old parsers."""
    text = text.strip()
    for _ in range(2):
        for opening in _OPENINGS:
            text = text.removeprefix(opening).lstrip()
        for closing in _CLOSINGS:
            text = text.removesuffix(closing).rstrip()
    return text.rstrip(";")


def _without_trailing_commas(text: str) -> str:
    parts: list[str] = []
    end = 0
    for string in _STRING.finditer(text):
        parts += [_TRAILING_COMMA.sub("", text[end : string.start()]), string.group()]
        end = string.end()
    # A comma before a bracket never has a string between them, so the parts can be cut there.
    return "".join([*parts, _TRAILING_COMMA.sub("", text[end:])])


def _graph_of(blocks: list[Any]) -> dict[str, Node]:
    """Return every node that has an `@id`, the one that says most of it."""
    found: dict[str, Node] = {}
    left = MAX_NODES
    stack = list(reversed(blocks))
    while stack and left > 0:
        left -= 1
        value = stack.pop()
        if isinstance(value, dict):
            name = value.get("@id")
            if isinstance(name, str) and len(value) > len(found.get(name, {})):
                found[name] = value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value[:MAX_NODES])
    return found


def _candidates(blocks: list[Any]) -> Iterator[Node]:
    """Yield the article nodes that stand where a page's own node stands."""
    left = MAX_NODES
    stack = list(reversed(blocks))
    while stack and left > 0:
        left -= 1
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(reversed(value[:MAX_NODES]))
        elif isinstance(value, dict):
            if _is_of(value, _ARTICLE_TYPE):
                yield value
            stack.extend(value[name] for name in reversed(_OWN_PROPERTIES) if name in value)


def _is_of(node: Node, pattern: re.Pattern[str]) -> bool:
    types = node.get("@type")
    names = types if isinstance(types, list) else [types]
    return any(isinstance(name, str) and pattern.search(name) for name in names)


def _score(node: Node, addresses: set[str], titles: list[str], *, alone: bool) -> float:
    """Return how surely a node is the page's own; 0 when it is another one's."""
    named = {_address(a) for a in _addresses_of(node)} - {""}
    called = [node[name] for name in ("headline", "name") if isinstance(node.get(name), str)]
    best = max((likeness(one, title) for one in called for title in titles), default=0.0)
    here = bool(named & addresses)
    alike = best >= ALIKE
    if not here and not alike:
        # A single node that says nothing else of itself is believed.
        return 0.1 if alone and not (named and called) else 0.0
    body = node.get("articleBody")
    return 2.0 * here + best + 0.2 * isinstance(body, str)


def _addresses_of(node: Node) -> Iterator[str]:
    for name in ("@id", "url", "mainEntityOfPage"):
        value = node.get(name)
        if isinstance(value, dict):
            value = value.get("@id") or value.get("url")
        if isinstance(value, str):
            yield value


def _canonical(tree: Any) -> Iterator[str]:
    for link in tree.iter("link"):
        if "canonical" in (link.get("rel") or "").lower().split() and link.get("href"):
            yield link.get("href")
    for meta in tree.iter("meta"):
        if (meta.get("property") or "").lower() == "og:url" and meta.get("content"):
            yield meta.get("content")


def _address(url: str) -> str:
    """Return what two spellings of one address have in common, "" for the front page of a site."""
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        return ""
    path = unquote(parts.path).rstrip("/").casefold()
    # Without a path only a query can tell one page from another.
    if not path and not parts.query:
        return ""
    host = (parts.hostname or "").removeprefix("www.").removeprefix("m.").removeprefix("amp.")
    query = f"?{parts.query}" if re.search(r"(?:^|&)(?:p|id|article|story)=", parts.query) else ""
    return f"{host}{path}{query}"
