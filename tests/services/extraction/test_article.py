"""Bytes to article: text, metadata, character sets, PDF, and pages that are built to hurt.

S0.18: "content" is what the summary is made of; pitfalls, "Fetching": Chinese and Japanese.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

import app.web
from app.core.errors import ScrapeFailed
from app.services.extraction.article import Article, read_article
from app.services.extraction.charset import decode_text
from app.services.fetching.fetch import Page
from tests.services.origin import PARAGRAPHS, article_html

URL = "https://news.example/ferry"

CHINESE = (
    "市议会周二投票决定，用两艘电动船取代服役四十一年的柴油渡轮。",
    "新船每二十五分钟一班，在码头充电九分钟。工程师预计三年内运营成本将下降三分之一。",
    "居民表示，他们会密切关注夜间班次。首航计划于明年春天举行，票价在二〇二八年底之前保持不变。",
    "反对者担心电网容量不足，因为第二条海底电缆要到二〇二九年才能铺设完成。",
)
JAPANESE = (
    "港の町議会は火曜日、四十一年使われたディーゼル船を二隻の電動フェリーに置き換えることを決めた。",
    "新しい船は二十五分おきに出港し、桟橋で九分間充電する。運航費は三年以内に三分の一減る見込みだ。",
    "住民は夜の便がどうなるかを注意深く見守ると話している。最初の運航は来年の春に予定されている。",
)
RUSSIAN = (
    "Городской совет во вторник решил заменить старый дизельный паром двумя электрическими судами.",
    "Каждое судно возьмёт восемьдесят пассажиров и будет заряжаться у причала между рейсами.",
    "Жители говорят, что будут внимательно следить за ночным расписанием.",
    "Первый рейс намечен на весну, а цены до конца года не изменятся.",
)
KOREAN = (
    "항구 의회는 화요일에 낡은 디젤 여객선을 전기 선박 두 척으로 교체하기로 결정했습니다.",
    "새 선박은 이십오 분마다 출항하며 부두에서 구 분 동안 충전합니다.",
    "운영비는 삼 년 안에 줄어들 전망입니다. 첫 운항은 내년 봄으로 예정되어 있습니다.",
    "주민들은 야간 운항을 주의 깊게 지켜보겠다고 말했습니다.",
)
THAI = (
    "สภาเมืองลงมติเมื่อวันอังคารให้เปลี่ยนเรือข้ามฟากดีเซลลำเก่าเป็นเรือไฟฟ้าสองลำ "
    "เรือใหม่จะออกทุกยี่สิบห้านาทีและชาร์จที่ท่าเรือ วิศวกรคาดว่าค่าใช้จ่ายจะลดลงหนึ่งในสาม",
    "ชาวบ้านบอกว่าจะจับตาดูเที่ยวเรือตอนกลางคืนอย่างใกล้ชิด เที่ยวแรกมีกำหนดในฤดูใบไม้ผลิปีหน้า",
)


def read(markup: str | bytes, kind: str = "text/html", charset: str | None = None) -> Article:
    body = markup.encode() if isinstance(markup, str) else markup
    return read_article(Page(URL, kind, charset, body))


def json_ld(data: object) -> str:
    return f'<script type="application/ld+json">{json.dumps(data)}</script>'


def assert_no_article(markup: str | bytes, kind: str = "text/html") -> None:
    with pytest.raises(ScrapeFailed, match="paste the text") as failure:
        read(markup, kind)
    assert failure.value.code == "no_article"


def test_the_article_is_found_and_the_clutter_is_not() -> None:
    article = read(article_html())
    assert article.method == "trafilatura"
    assert article.content.split("\n") == [paragraph.strip() for paragraph in PARAGRAPHS]
    assert (article.title, article.language) == ("Ferry", "en")
    assert (article.word_count, article.sentence_count) == (len("".join(PARAGRAPHS).split()), 6)


def test_the_demo_page_is_read_whole() -> None:
    page = Path(app.web.__path__[0]) / "demo_article.html"
    article = read(page.read_bytes())
    assert article.title == "Harbour town swaps its diesel ferry for two electric boats"
    assert (article.author, article.date) == ("Maren Oduya", "2026-03-18")
    assert (article.site_name, article.section) == ("The Tidewater Courier", "Business")
    assert {"Ferries", "Electric boats", "Public transport"} <= set(article.tags)
    assert 600 <= article.word_count <= 900
    assert article.content.startswith("Brannock Harbour will retire")
    assert article.content.endswith('I would like us to be forgotten."')
    for clutter in ("Advertisement", "Most read", "newsletter", "Sign in", "Privacy", "|"):
        assert clutter not in article.content


@pytest.mark.parametrize(
    ("paragraphs", "language"),
    [(CHINESE, "zh"), (JAPANESE, "ja"), (THAI, "th"), (KOREAN, "ko")],
)
def test_scripts_without_ascii_full_stops_are_articles(
    paragraphs: tuple[str, ...], language: str
) -> None:
    """Pitfalls, Fetching: they were refused, because sentences were counted by ASCII stops."""
    article = read(article_html(*paragraphs, lang=language))
    assert [line in article.content for line in paragraphs] == [True] * len(paragraphs)
    assert article.language == language
    assert article.sentence_count >= 3
    assert article.word_count >= 30


@pytest.mark.parametrize(
    ("codec", "label", "paragraphs"),
    [
        ("shift_jis", "Shift_JIS", JAPANESE),
        ("euc_jp", "euc-jp", JAPANESE),
        ("iso2022_jp", "iso-2022-jp", JAPANESE),
        ("gb18030", "gb2312", CHINESE),
        (
            "big5hkscs",
            "big5",
            ("市議會週二投票決定，用兩艘電動船取代服役四十一年的柴油渡輪。" * 4,),
        ),
        ("cp1251", "windows-1251", RUSSIAN),
        ("koi8_r", "koi8-r", RUSSIAN),
        ("euc_kr", "euc-kr", KOREAN),
        (
            "cp1252",
            "iso-8859-1",
            ("“Zürich” – größere Fähren für den See, sagt der Stadtrat. " * 4,),
        ),
        ("utf-16-le", "utf-16", RUSSIAN),
    ],
)
@pytest.mark.parametrize("told_by", ["header", "meta", "nobody"])
def test_a_legacy_charset_is_read(
    codec: str, label: str, paragraphs: tuple[str, ...], told_by: str
) -> None:
    if told_by != "header" and codec in ("iso2022_jp", "utf-16-le", "big5hkscs", "cp1252"):
        told_by = "meta" if codec in ("iso2022_jp", "big5hkscs", "cp1252") else "header"
    head = f'<meta charset="{label}">' if told_by == "meta" else ""
    body = article_html(*paragraphs, head=head).encode(codec)
    text = decode_text(body, label if told_by == "header" else None)
    assert all(paragraph in text for paragraph in paragraphs)


@pytest.mark.parametrize("label", ["utf-8", "iso-8859-1", "rot13", "no-such-charset", "utf-7", ""])
def test_utf_8_is_read_whatever_the_header_says(label: str) -> None:
    assert decode_text("größer 渡轮 ¶".encode(), label) == "größer 渡轮 ¶"


@pytest.mark.parametrize("body", [b"", b"\xff", b"\xff\xfe\x00\xd8", bytes(range(256)) * 40])
def test_any_bytes_decode_without_an_exception(body: bytes) -> None:
    decode_text(body).encode()


def test_a_byte_order_mark_outranks_the_header() -> None:
    assert decode_text("\ufeffЖили".encode("utf-16-be"), "windows-1251") == "Жили"


def test_a_stray_byte_does_not_turn_a_page_into_another_charset() -> None:
    body = "".join(RUSSIAN).encode() + b"\xe2"
    assert decode_text(body, "utf-8").startswith(RUSSIAN[0])


def test_the_text_holds_nothing_that_utf_8_or_sse_cannot_carry() -> None:
    dirty = "\ud800 \x00\x08 ".join(PARAGRAPHS)
    head = json_ld({"@type": "NewsArticle", "headline": "Bad \ud83d title", "articleBody": dirty})
    article = read(article_html("<b>&#xD800;&#0;short</b>", head=head))
    assert article.method == "json_ld"
    assert "The harbour council" in article.content
    article.content.encode()
    (article.title or "").encode()
    assert "\0" not in article.content


def test_json_ld_speaks_where_the_page_itself_is_empty() -> None:
    node = {"@type": ["Thing", "BlogPosting"], "articleBody": "<p>".join(PARAGRAPHS)}
    graph = [{"@graph": [{"@type": "WebSite"}, {"mainEntity": [node]}]}]
    article = read(f"<html><head>{json_ld(graph)}</head><body><div id=app></div></body></html>")
    assert article.method == "json_ld"
    assert article.content.split("\n") == [paragraph.strip() for paragraph in PARAGRAPHS]


def test_json_ld_wins_over_a_teaser() -> None:
    head = json_ld({"@type": "NewsArticle", "articleBody": " ".join(PARAGRAPHS) * 2})
    assert read(article_html(PARAGRAPHS[0], head=head)).method == "json_ld"


def test_the_article_tag_and_the_description_are_the_last_resorts() -> None:
    many = "<i></i>" * 30_000
    article = read(f"<html><body><nav>Menu</nav><article>{article_html()}</article>{many}")
    assert article.method == "article_tag"
    assert PARAGRAPHS[1].strip() in article.content
    assert "Menu" not in article.content
    head = f'<meta property="og:description" content="{PARAGRAPHS[0]}">'
    page = f"<html><head><title>x</title>{head}</head><body><p>Loading</p></body></html>"
    assert read(page).method == "description"


@pytest.mark.parametrize(
    "markup",
    ["", " ", "<", "<html>", "<!-- -->", "\0\0\0", "<p>Short.</p>", "plain " * 3, "<?xml ?>", "&"],
)
def test_a_page_without_an_article_says_so(markup: str) -> None:
    """Contract 6: under 100 characters is `no_article`, with the hint to paste the text."""
    assert_no_article(markup)


@pytest.mark.parametrize(
    "head",
    [
        '<script type="application/ld+json">' + "[" * 100_000 + "</script>",
        '<script type="application/ld+json">{"@type": "NewsArticle", "author": </script>',
        json_ld({"@type": 3, "author": [None, 7, {"name": {}}], "articleBody": ["x"]}),
        json_ld({"@type": "Article", "datePublished": 2020, "keywords": {"a": 1}, "headline": []}),
        '<meta property="og:title"><meta content="x"><meta name="" content="">',
    ],
)
def test_broken_structured_data_cost_only_themselves(head: str) -> None:
    article = read(article_html(head=head))
    assert article.content.startswith("The harbour council")
    assert article.title == "Ferry"


@pytest.mark.parametrize(
    "markup",
    [
        "<div>" * 100_000 + PARAGRAPHS[0],
        "<p><span>" * 50_000 + PARAGRAPHS[0],
        "<table><tr><td>" * 30_000,
        "<p>a<b>" * 60_000,
        "<a href=x>x</a>" * 70_000,
        "<" * 200_000,
        "<div class=ad>" * 240 + "<p>word word word.</p>" * 5_000,
        "<p " + "a=b " * 100_000 + ">" + PARAGRAPHS[0],
    ],
    ids=["divs", "spans", "tables", "unclosed", "links", "brackets", "adverts", "attributes"],
)
def test_a_page_that_is_built_to_hurt_ends(markup: str) -> None:
    outcome = ""
    try:
        outcome = read(markup).method
    except ScrapeFailed as failure:
        outcome = failure.code
    assert outcome in ("trafilatura", "article_tag", "no_article")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ('<meta property="og:title" content="Ferry &amp;amp; boats">', "Ferry & boats"),
        ('<meta property="og:title" content="Ferry | News | The Site">', "Ferry"),
        (
            '<meta property="og:title" content="Ferry goes | The Site">'
            '<meta property="og:site_name" content="The Site">',
            "Ferry goes",
        ),
        (json_ld({"@type": "NewsArticle", "headline": "The last ferry"}), "The last ferry"),
        ("", "Ferry"),
    ],
)
def test_the_title_comes_without_the_site(head: str, expected: str) -> None:
    assert read(article_html(head=head)).title == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2026-03-18T23:30:00-05:00", "2026-03-18"),
        ("20260318", "2026-03-18"),
        ("Wed, 18 Mar 2026 10:00:00 GMT", "2026-03-18"),
    ],
)
def test_a_date_is_an_iso_day(written: str, expected: str) -> None:
    head = f'<meta property="article:published_time" content="{written}">'
    assert read(article_html(head=head)).date == expected


@pytest.mark.parametrize("written", ["0001-01-01", "2026-13-45", "yesterday"])
def test_a_date_that_is_none_is_unknown(written: str) -> None:
    head = f'<meta property="article:published_time" content="{written}">'
    assert read(article_html(head=head)).date is None


def test_authors_and_tags_are_people_and_words() -> None:
    node = {
        "@type": "NewsArticle",
        "author": [{"name": "By Ana Silva"}, "Bo Ek", {"name": "https://x.example/ana"}],
        "keywords": "Sea, ferries ,sea",
        "articleSection": ["Business", "Local"],
        "publisher": {"name": "The Site"},
    }
    article = read(article_html(head=json_ld(node)))
    assert article.author == "Ana Silva, Bo Ek"
    assert article.tags == ("Sea", "ferries")
    assert (article.section, article.site_name) == ("Business", "The Site")


def test_a_template_that_says_english_is_not_believed() -> None:
    assert read(article_html(*RUSSIAN, lang="en")).language == "ru"
    assert read(article_html(*CHINESE, lang="")).language == "zh"


def test_a_layout_table_leaves_no_bars() -> None:
    rows = "".join(f"<tr><td>{paragraph * 3}</td></tr>" for paragraph in PARAGRAPHS)
    content = read(f"<html><body><table>{rows}</table></body></html>").content
    assert PARAGRAPHS[0].strip() in content
    assert "|" not in content


def test_plain_text_is_taken_as_it_is() -> None:
    article = read("\n".join(PARAGRAPHS) + "<b>kept</b>", "text/plain")
    assert (article.method, article.title) == ("plain_text", None)
    assert article.content.endswith("<b>kept</b>")


def pdf(text: str = "", *, password: str | None = None) -> bytes:
    """Return a PDF with one page that shows `text`, a line every sixty characters."""
    writer = PdfWriter()
    page = writer.add_blank_page(612, 792)
    font = {"Type": "Font", "Subtype": "Type1", "BaseFont": "Helvetica"}
    named = DictionaryObject({NameObject(f"/{k}"): NameObject(f"/{v}") for k, v in font.items()})
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(named)})
    page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    lines = [text[i : i + 60] for i in range(0, len(text), 60)]
    shown = " ".join(f"({line}) Tj T*" for line in lines)
    stream = DecodedStreamObject()
    stream.set_data(f"BT /F1 12 Tf 14 TL 50 700 Td {shown} ET".encode())
    page[NameObject("/Contents")] = writer._add_object(stream)
    writer.add_metadata({"/Title": "Ferry report", "/Author": "Harbour office"})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_a_pdf_is_read_with_its_title() -> None:
    article = read(pdf("".join(PARAGRAPHS)), "application/pdf")
    assert (article.method, article.title, article.author) == (
        "pdf",
        "Ferry report",
        "Harbour office",
    )
    assert "two electric boats" in " ".join(article.content.split())


@pytest.mark.parametrize(
    "body",
    [pdf(), pdf("".join(PARAGRAPHS), password="secret"), b"%PDF-1.7 broken", b""],
    ids=["scanned", "encrypted", "broken", "empty"],
)
def test_a_pdf_without_text_says_why(body: bytes) -> None:
    assert_no_article(body, "application/pdf")


def test_nothing_of_the_page_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        read(article_html("Jane Roe lives at 7 Quay Street. " * 10))
    assert "Jane Roe" not in caplog.text
