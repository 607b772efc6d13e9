"""The web page as the server gives it: who gets it, with which headers, made of which files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from app.api.pages import WEB, wants_html
from tests.engines import ScriptedEngine
from tests.servers import serving

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PAGE = WEB / "page"
MODULES = sorted(PAGE.rglob("*.js"))


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("application/json;q=0.1,text/html", True),
        ("text/html;q=0.5,application/json", False),
        ("application/json,text/html", False),
        ("text/html;q=0", False),
        ("TEXT/HTML; q=nonsense", True),
        ("application/json", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_the_index_is_what_a_client_wants_most(accept: str, html: bool) -> None:
    """Contract 8: a page for a browser, JSON for a program."""
    assert wants_html(accept) is html


@pytest.mark.parametrize(
    "path", ["/", "/chat", "/write", "/docs", "/redoc", "/openapi.yaml", "/ready"]
)
def test_what_can_be_got_can_be_asked_about(path: str) -> None:
    """RFC 9110: HEAD wherever GET; link checkers ask so."""
    with serving(ScriptedEngine()) as server, server.client() as client:
        head, page = client.head(path, headers=BROWSER), client.get(path, headers=BROWSER)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == page.headers["content-type"]


def test_every_view_has_an_address_of_its_own() -> None:
    """S3.10, contract 8: real addresses, also for those who have no key yet."""
    with serving(ScriptedEngine(), api_keys=("secret",)) as server:
        pages = {path: server.get(path, headers=BROWSER) for path in ("/", "/chat", "/write")}
    assert {page.status_code for page in pages.values()} == {200}
    assert len({page.text for page in pages.values()}) == 1
    for view in ("summarize", "chat", "write"):
        assert f'id="view-{view}"' in pages["/"].text


def test_the_page_runs_nothing_but_its_own_files() -> None:
    """Pitfall: pages inserted model output with innerHTML. Nothing inline, nothing foreign."""
    with serving(ScriptedEngine()) as server:
        page = server.get("/", headers=BROWSER)
        policy = dict(
            part.strip().split(" ", 1)
            for part in page.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["require-trusted-types-for"] == "'script'"
        assert "unsafe" not in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page.text)
        links = re.findall(r"""(?:src|href)="(assets/[^"]+)""", page.text)
        assert links
        for link in links:
            assert server.get(f"/{link}").status_code == 200, link
    assert not re.search(r"""(?:src|href)="(?:https?:)?//""", page.text)


def test_every_module_is_named_by_the_page_so_that_all_load_at_once() -> None:
    """A module that another one imports is found one round trip later unless the page names it."""
    page = (WEB / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r"assets/web/([\w/]+\.js)", page))
    assert named == {path.relative_to(PAGE).as_posix() for path in MODULES}


def test_the_scripts_never_turn_text_into_markup() -> None:
    """Pitfall: innerHTML. The policy forbids it where Trusted Types are known; this, everywhere."""
    banned = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function"
    )
    for path in MODULES:
        assert not banned.search(path.read_text(encoding="utf-8")), path.name


def test_assets_are_compressed_and_asked_for_again() -> None:
    """Under 100 kB for the whole page; a new version is seen at once, an old one not sent again."""
    with serving(ScriptedEngine()) as server, server.client() as client:
        page = client.get("/", headers=BROWSER)
        total = len(page.content)
        for link in set(re.findall(r'"(assets/web/[^"]+)"', page.text)):
            with client.stream("GET", f"/{link}", headers={"Accept-Encoding": "gzip"}) as sent:
                total += len(b"".join(sent.iter_raw()))
                assert sent.headers["cache-control"] == "no-cache"
        script = client.get("/assets/web/app.js")
        again = client.get("/assets/web/app.js", headers={"If-None-Match": script.headers["etag"]})
    assert total < 100_000
    assert again.status_code == 304


@pytest.mark.parametrize(
    "name", ["../pages.py", "..%2f..%2fmain.py", "%2e%2e/index.html", "nothing.js"]
)
def test_no_file_outside_the_assets_is_served(name: str) -> None:
    """Never trust a path that came from outside."""
    with serving(ScriptedEngine()) as server:
        assert server.get(f"/assets/web/{name}").status_code == 404


def test_both_languages_have_every_text() -> None:
    """Indonesian and English: the same names, and the same values put in."""
    script = (PAGE / "texts.js").read_text(encoding="utf-8")
    texts = {}
    for language in ("en", "id"):
        block = re.search(rf"^  {language}: \{{\n(.*?)^  \}},", script, re.S | re.M)
        assert block is not None
        found = re.findall(r"^    (\w+):\s*(.+?),$", block[1], re.M | re.S)
        texts[language] = {name: set(re.findall(r"\{(\w+)\}", text)) for name, text in found}
    assert texts["en"] == texts["id"]
    used = "".join(path.read_text(encoding="utf-8") for path in MODULES)
    used += (WEB / "index.html").read_text(encoding="utf-8")
    named = set(re.findall(r"""\bt\("(\w+)\"""", used))
    named |= set(re.findall(r'data-t(?:-label|-placeholder)?="(\w+)"', used))
    assert named <= set(texts["en"])


def test_the_manifest_names_files_that_exist() -> None:
    """What a phone reads when the page is put on its home screen."""
    manifest = json.loads((PAGE / "manifest.webmanifest").read_text(encoding="utf-8"))
    for icon in manifest["icons"]:
        assert Path(PAGE / icon["src"]).is_file()
