"""Pages that answer 200 and are no article: what each looks like, and what people are told.

One table; a row is looked at only where little text was found, since an article may speak of all
of this. Knows nothing of fetching.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from app.services.extraction.furniture import (
    consent_phrases,
    consent_share,
    speaks_of_consent,
)

# Challenges, walls and error pages say little; an article about them says more.
MAX_CHARS = 1_500
SHELL_CHARS = 600
LONG_CHARS = 8_000
TITLE_CHARS = 120
MIN_INDEX_LINKS = 12
# Challenge pages are small; half a megabyte of scripts takes 0.1 s to search.
MAX_MARKUP_CHARS = 100_000


@dataclass(frozen=True, slots=True)
class Signal:
    """A kind of page. `title`, `text`, `markup`: what it says in `<title>` or its first heading, in
    the text that a reader sees, in its source. One of those that are set is enough."""

    reason: str
    title: str = ""
    text: str = ""
    markup: str = ""
    max_chars: int = MAX_CHARS


CHALLENGE = "The site asks visitors to prove that they are human (a challenge page)"
SIGNALS = (
    Signal(
        CHALLENGE,
        title=r"^(?:just a moment|attention required|one moment,? please|please wait|"
        r"security check|checking your browser|ddos-guard|are you a robot|robot or human|"
        r"human verification|verify(?:ing)? (?:that )?you are (?:a )?human|pardon our interruption|"
        r"access to this page has been denied|access denied|request blocked|blocked|"
        r"un instant|einen moment|nur einen moment|un momento|tunggu sebentar)\b",
        text=r"verify(?:ing)? (?:that )?you are (?:a |not a )?(?:human|robot)|"
        r"checking (?:your browser|if the site connection is secure)|"
        r"review the security of your connection|complete the security check|"
        r"enable javascript and cookies to continue|"
        r"please enable js and disable any ad ?blocker|press (?:&|and) hold to confirm|"
        r"unusual (?:traffic|activity) from your (?:computer )?network|"
        r"pardon our interruption|you don't have permission to access .{0,200}reference #|"
        r"(?:incapsula|imperva) incident id|your access to this site has been limited|"
        r"made us think (?:that )?you (?:might be|are|were) a (?:bot|robot)|"
        r"automated (?:access|requests) (?:to|from)|solve the captcha|"
        r"sorry, you have been blocked|access to this page has been denied",
        markup=r"captcha-delivery\.com|_pxCaptcha|px-captcha|id=[\"']challenge-(?:form|running|"
        r"error|stage|spinner)|cf-browser-verification|cf-turnstile|/_incapsula_resource|"
        r"awswafintegration|sucuri_cloudproxy",
    ),
    Signal(
        "The page says that it does not exist (an error page)",
        title=r"(?:^|\W)(?:404|410)(?:\W|$)|(?:page|article|story|post|file|content|url) (?:was |"
        r"is |could |can |has )?(?:not|n't|no longer|cannot|been) ?(?:be )?(?:found|available|"
        r"exist|removed|deleted)|^not found$|nothing found|"
        r"(?:this )?page (?:does|doesn)(?: not|'t|’t) exist|"
        r"seite (?:wurde )?nicht gefunden|page (?:introuvable|non trouvée)|página no encontrada|"
        r"página não encontrada|pagina non trovata|halaman tidak ditemukan|pagina niet gevonden|"
        r"sidan (?:kunde inte|hittades inte)|страница не найдена|ページが見つかりません|页面不存在|"
        r"找不到(?:页面|網頁)|페이지를 찾을 수 없",
        text=r"^(?:oops|sorry|whoops|uh[- ]oh)[^.]{0,40}(?:page|article|link)[^.]{0,60}(?:not|"
        r"no longer|doesn|can't|cannot|couldn)|the (?:page|article) you(?:'re| are|'ve)? (?:were )?"
        r"(?:looking for|requested|are trying to)[^.]{0,60}(?:not|no longer|moved|"
        r"removed|doesn|can't|couldn)|we (?:can't|can’t|cannot|couldn't|couldn’t|could not) find "
        r"(?:the|that|this) page",
    ),
    Signal(
        "The page has no text without JavaScript",
        text=r"(?:enable|turn on|activate|requires?|need(?:s)?) (?:to (?:enable|run) )?javascript|"
        r"javascript (?:is |must be )?(?:disabled|required|enabled)|javascript aktivieren|"
        r"activer javascript|habilit(?:e|ar) (?:o )?javascript|"
        r"doesn't work properly without javascript",
        max_chars=SHELL_CHARS,
    ),
    Signal(
        "The article can only be read after signing in (a log-in page)",
        title=r"^(?:log ?[io]n|sign ?[io]n|sign ?up|register|create (?:an |your )?account|"
        r"anmelden|connexion|iniciar sesión|acceder|entrar|masuk|inloggen|login)\b",
        text=r"(?:you (?:must|need to|have to)|please) (?:be |first )?"
        r"(?:log(?:ged)? ?in|sign(?:ed)? ?in)(?: |\.)|(?:log|sign) in to (?:continue|your account|"
        r"see|view|access)|"
        r"join (?:now )?to (?:view|see)|forgot(?:ten)? (?:your )?password",
    ),
)


def _compiled(pattern: str) -> re.Pattern[str] | None:
    return re.compile(pattern, re.IGNORECASE) if pattern else None


_PATTERNS = [(s, _compiled(s.title), _compiled(s.text), _compiled(s.markup)) for s in SIGNALS]
CONSENT = "The page only asks for consent to cookies"
EMPTY_SHELL = "The page is an empty shell that scripts fill in a browser"
INDEX = "The page lists other pages and is no article itself"


def why_no_article(
    found: str, *, titles: list[str], visible: str, markup: str, tree: Any, scripted: bool
) -> str | None:
    """Return what a page is that is no article, None where it seems to be one.

    `found`: the text that extraction found. `titles`: `<title>` and first headings. `visible`: all
    text that a reader sees. `markup`: the source. `scripted`: it has scripts or styles.
    """
    chars = len(found)
    markup = markup[:MAX_MARKUP_CHARS]
    if chars > LONG_CHARS:
        return None
    visible = visible[: 4 * LONG_CHARS]
    if _asks_for_consent(found):
        return CONSENT
    for signal, title, text, source in _PATTERNS:
        if chars >= signal.max_chars or len(visible) >= 4 * signal.max_chars:
            continue
        if title is not None and any(title.search(one[:TITLE_CHARS]) for one in titles):
            return signal.reason
        if text is not None and len(found or visible) < signal.max_chars and text.search(visible):
            return signal.reason
        if (
            source is not None
            and chars < SHELL_CHARS
            and source.search(markup, 0, MAX_MARKUP_CHARS)
        ):
            return signal.reason
    if _asks_for_consent(visible):
        return CONSENT
    if chars < 100 and len(visible) < 200 and scripted:
        return EMPTY_SHELL
    if _is_index(found, tree, titles):
        return INDEX
    return None


def _asks_for_consent(text: str) -> bool:
    return speaks_of_consent(text) and consent_phrases(text) >= 3 and consent_share(text) > 0.6


def _is_index(found: str, tree: Any, titles: list[str]) -> bool:
    """Say whether a page is mostly headings that link elsewhere, with no running text.

    A page that calls itself an article, or has a heading of its own, is believed.
    """
    types = tree.xpath("//meta[@property='og:type']/@content")
    if len(titles) > 1 or any("article" in kind or "video" in kind for kind in types):
        return False
    linked = tree.xpath("count(//h2//a | //h3//a | //a//h2 | //a//h3)")
    if linked < MIN_INDEX_LINKS:
        return False
    # An article has paragraphs; a list of teasers has lines of a sentence or less.
    longest = sorted((len(line) for line in found.splitlines()), reverse=True)[:3]
    return sum(longest) < 600
