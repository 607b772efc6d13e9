"""What stands around and inside an article and is none of it: consent, calls to subscribe, teasers.

Works on an lxml tree in place. Whatever holds most of the page's text stays, whatever it is called.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Any

from app.services.extraction.json_ld import ALIKE
from app.services.extraction.likeness import likeness
from app.services.extraction.page_tree import text_lengths

MAX_LOOKED_AT = 4_000
# A box that asks for consent is a few paragraphs, a call to subscribe a few lines.
CONSENT_CHARS = 6_000
CALL_CHARS = 700
BESIDE_CHARS = 100

# Phrases of consent dialogues (IAB TCF texts and the large vendors'), one for each thing they say.
_CONSENT = (
    r"we (?:value|care about|respect) your privacy|your privacy (?:is important|choices|matters)",
    r"\b(?:\d+ )?partners (?:store|process|use|may)|our (?:\d+ )?(?:trusted )?partners\b",
    r"store (?:and/or|and|or) access information on (?:your|a) device|information stored on",
    r"process(?:ing)? (?:of )?(?:your )?personal data|personal(?:ised|ized) (?:ads|content)",
    r"precise geolocation|device scanning|unique identifiers",
    r"legitimate interest|object to such processing|withdraw your consent|consent to (?:our|the)",
    r"(?:accept|reject|manage) (?:all )?(?:cookies|preferences|choices)|use (?:of )?cookies|"
    r"uses? cookies|cookie (?:policy|settings|consent|preferences)",
    r"wir (?:und unsere partner )?(?:verwenden|nutzen|setzen) cookies|einwilligung|datenschutzerkl",
    r"nous (?:et nos partenaires )?utilisons des cookies|respectons votre vie privée",
    r"utilizamos (?:cookies|tecnologías)|su privacidad|a sua privacidade|usamos cookies",
    r"kami menggunakan cookie|kebijakan privasi",
)
# Tried only where a word begins, a pattern takes a fifth of the time.
_CONSENT_PHRASES = tuple(re.compile(rf"\b(?:{phrase})", re.IGNORECASE) for phrase in _CONSENT)
# Whatever asks for consent has one of these; looking for the phrases takes much longer.
_CONSENT_WORDS = (
    "cooki", "privacy", "partner", "consent", "einwillig", "partenaires", "privacidad", "kebijakan",
)  # fmt: skip
_CONSENT_NAMES = re.compile(
    r"cookie[-_ ]?(?:banner|consent|notice|law|bar|wall|policy|message)|consent|gdpr|onetrust|"
    r"didomi|cmp-|-cmp\b|usercentrics|cookiebot|trustarc|qc-cmp",
    re.IGNORECASE,
)
_INSERT_NAMES = re.compile(
    r"(?:^|[\s_-])(?:newsletter|sign-?up|related-?(?:posts?|articles?|stories|links)|read-?more|"
    r"share-?(?:bar|buttons?|tools?)|social-?(?:share|links|media)|most-?read|recirc\w*)(?:$|[\s_-])",
    re.IGNORECASE,
)
CALL_TO_SUBSCRIBE = re.compile(
    r"\b(?:subscribe (?:now )?(?:to|for|and) (?:continue|keep|read|unlock|get)|"
    r"(?:to|and) (?:continue|keep) reading|continue reading (?:this|with|for)|"
    r"already (?:a|have a|an?) (?:subscriber|subscription|member|account)|"
    r"(?:sign|log) in to (?:continue|read|keep)|register (?:to|for free to) (?:continue|read)|"
    r"(?:article|story|content) is (?:only )?(?:for|available to|reserved for|exclusive to) "
    r"(?:our |paying |premium )?(?:subscribers|members)|subscriber[- ]only|"
    r"(?:get|enjoy) unlimited access|start your (?:free )?(?:trial|subscription)|"
    r"you(?:'|’)ve (?:reached|read) (?:your|all)|free articles? (?:left|remaining|this month)|"
    r"create (?:a free|an) account to|unlock this article|subscribe to continue|"
    r"weiterlesen mit|jetzt (?:abonnieren|weiterlesen)|nur für abonnenten|"
    r"réservé aux abonnés|abonnez-vous pour|suscríbete para|solo para suscriptores|"
    r"para continuar (?:leyendo|lendo)|exclusivo para assinantes|berlangganan untuk)",
    re.IGNORECASE,
)
_CONTAINERS = ("div", "section", "aside", "form", "dialog")
_BOXES = (
    "div",
    "section",
    "aside",
    "dialog",
    "form",
    "article",
    "p",
    "h2",
    "h3",
    "h4",
    "ul",
    "span",
)


Lengths = dict[Any, int]


def drop_furniture(tree: Any, title: str | None) -> bool:
    """Remove what is no part of the article; return whether a call to subscribe was among it."""
    lengths = text_lengths(tree)
    text = tree.text_content()
    if speaks_of_consent(text):
        _drop_consent(tree, lengths)
    _drop_inserts(tree, lengths)
    # Most pages call nobody, and looking into each of their boxes takes long.
    called = bool(CALL_TO_SUBSCRIBE.search(text)) and _drop_calls(tree, lengths)
    _drop_teasers(tree, title, lengths)
    return called


def consent_share(text: str) -> float:
    """Return the share of a text's lines that speak of consent, weighted by their length."""
    lines = [line for line in text.splitlines() if line.strip()]
    consenting = sum(
        len(line) for line in lines if any(phrase.search(line) for phrase in _CONSENT_PHRASES)
    )
    return consenting / max(1, sum(map(len, lines)))


def speaks_of_consent(text: str) -> bool:
    """Say whether a text may ask for consent, from its words alone."""
    lowered = text.lower()
    return any(word in lowered for word in _CONSENT_WORDS)


def consent_phrases(text: str) -> int:
    """Count the different things that only a consent dialogue says."""
    return sum(bool(phrase.search(text)) for phrase in _CONSENT_PHRASES)


def _drop_consent(tree: Any, lengths: Lengths) -> None:
    for box in list(islice(tree.iter(*_CONTAINERS), MAX_LOOKED_AT)):
        if lengths[box] > CONSENT_CHARS or 2 * lengths[box] > lengths[tree]:
            continue
        text = box.text_content()
        if not speaks_of_consent(text) or not _stands_in(box, tree):
            continue
        named = _CONSENT_NAMES.search(f"{box.get('class') or ''} {box.get('id') or ''}")
        if consent_phrases(text) >= (1 if named else 3):
            box.drop_tree()


def _drop_inserts(tree: Any, lengths: Lengths) -> None:
    """Remove small boxes that say of themselves that they are not the article."""
    for box in list(islice(tree.iter(*_CONTAINERS), MAX_LOOKED_AT)):
        if lengths[box] >= CALL_CHARS or 2 * lengths[box] >= lengths[tree]:
            continue
        named = _INSERT_NAMES.search(f"{box.get('class') or ''} {box.get('id') or ''}")
        if named and _stands_in(box, tree):
            box.drop_tree()


def _drop_calls(tree: Any, lengths: Lengths) -> bool:
    """Remove the boxes that ask the reader to pay or to sign in, and nothing that says more."""
    found = False
    # Innermost first: a box that only holds another one is not looked at for its own sake.
    for box in reversed(list(islice(tree.iter(*_BOXES), MAX_LOOKED_AT))):
        if lengths[box] > CALL_CHARS or not CALL_TO_SUBSCRIBE.search(box.text_content()):
            continue
        if not _stands_in(box, tree):
            continue
        if box.tag in ("article", "main") or _says_more(box):
            continue
        for parent in list(box.iterancestors()):
            if parent.tag not in _CONTAINERS or lengths[parent] - lengths[box] > BESIDE_CHARS:
                break
            box = parent
        if 2 * lengths[box] < lengths[tree] or lengths[tree] <= CALL_CHARS:
            box.drop_tree()
            found = True
    return found


def _says_more(box: Any) -> bool:
    """Say whether a box has a paragraph that is no call."""
    if box.tag in ("p", "h2", "h3", "h4", "span"):
        return False
    own = (p.text_content() for p in box.iter("p", "li"))
    return any(len(text) > BESIDE_CHARS and not CALL_TO_SUBSCRIBE.search(text) for text in own)


def _drop_teasers(tree: Any, title: str | None, lengths: Lengths) -> None:
    """Remove other articles that a page shows below or beside its own."""
    articles = list(islice(tree.iter("article"), 200))
    if len(articles) < 2 or not title:
        return
    own = [one for one in articles if _has_heading(one, title)]
    if not own:
        return
    for other in articles:
        if other in own or not _stands_in(other, tree):
            continue
        inside = any(parent in own for parent in other.iterancestors("article"))
        if inside and _is_own_part(other):
            continue
        if 2 * lengths[other] < lengths[tree] and _leads_elsewhere(other):
            other.drop_tree()


def _has_heading(article: Any, title: str) -> bool:
    return any(likeness(_line(heading), title) >= ALIKE for heading in article.iter("h1", "h2"))


def _leads_elsewhere(article: Any) -> bool:
    """Say whether an `<article>` is a teaser: its heading is a link, or its text breaks off."""
    links = article.xpath(".//h1//a|.//h2//a|.//h3//a|.//h4//a|.//a[.//h2 or .//h3]")
    marked = article.xpath(".//a[contains(concat(' ', @rel, ' '), ' bookmark ')]")
    cut = _line(article).rstrip(" ]").endswith(("…", "...", "[…"))
    wrapped = any(parent.tag == "a" for parent in article.iterancestors())
    return bool(links or marked or cut or wrapped)


def _stands_in(element: Any, tree: Any) -> bool:
    """Say whether an element is still part of the tree, and not in something dropped before."""
    return any(ancestor is tree for ancestor in element.iterancestors())


def _is_own_part(element: Any) -> bool:
    """Say whether a nested `<article>` is a part of its own one: an update, say, not a teaser."""
    return next(iter(element.iter("h2", "h3", "h4")), None) is None


def _line(element: Any) -> str:
    return " ".join(element.text_content().split())
