"""Where a page that refreshes itself at once leads: the `Refresh` header and its `<meta>`.

Format: https://html.spec.whatwg.org/multipage/semantics.html#attr-meta-http-equiv-refresh
"""

from __future__ import annotations

import html
import re

# A page that waits longer is one to be read first, or one that only reloads itself.
MAX_WAIT_S = 10.0
_LOOKED_AT_BYTES = 65_536

_REFRESH = re.compile(
    r"\s*(\d{1,6})(?:\.\d*)?\s*[;,\s]\s*(?:url\s*=\s*)?(.+)", re.IGNORECASE | re.DOTALL
)
_META = re.compile(rb"<meta\b[^<>]{0,2000}>", re.IGNORECASE)
_EQUIV = re.compile(rb"""http-equiv\s*=\s*["']?\s*refresh\b""", re.IGNORECASE)
_CONTENT = re.compile(rb"""content\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))""", re.IGNORECASE)
# What only a browser without scripts does, and what is commented out.
_LEFT_OUT = re.compile(rb"<noscript\b|<!--", re.IGNORECASE)
_NOSCRIPT_END = re.compile(rb"</noscript", re.IGNORECASE)


def refresh_target(header: str, body: bytes) -> str | None:
    """Return the address that a page sends its reader to within 10 s, None where it stays."""
    if (found := _target_of(header)) is not None:
        return found
    for meta in _META.finditer(_without_alternatives(body[:_LOOKED_AT_BYTES])):
        if _EQUIV.search(meta.group()) and (content := _CONTENT.search(meta.group())):
            value = next(group for group in content.groups() if group is not None)
            found = _target_of(html.unescape(value.decode("utf-8", "replace")))
            if found is not None:
                return found
    return None


def _without_alternatives(head: bytes) -> bytes:
    """Drop comments and `noscript`; one that is not closed takes the rest, so time is linear."""
    parts: list[bytes] = []
    end = 0
    while (start := _LEFT_OUT.search(head, end)) is not None:
        parts.append(head[end : start.start()])
        closing = b"-->" if start.group() == b"<!--" else None
        if closing is not None:
            at = head.find(closing, start.end())
        else:
            found = _NOSCRIPT_END.search(head, start.end())
            at = found.start() if found else -1
        if at < 0:
            return b"".join(parts)
        end = at + 1
    return b"".join([*parts, head[end:]])


def _target_of(value: str) -> str | None:
    match = _REFRESH.match(value)
    if match is None or int(match[1]) > MAX_WAIT_S:
        return None
    target = match[2].strip()
    if target[:1] in ("'", '"'):
        target = target[1:].partition(target[0])[0]
    return target.strip() or None
