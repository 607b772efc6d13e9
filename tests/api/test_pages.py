"""Health, readiness, documentation: what works with no internet and no model."""

from __future__ import annotations

import re

import yaml

from tests.engines import ScriptedEngine
from tests.servers import serving


def test_health_is_the_superset_object() -> None:
    """C9, S2.3, S4.21; pitfall: health probes loaded the model."""
    with serving(summary_engine="local", v4_model_id="nobody/nothing") as server:
        body = server.get("/health").json()
    assert {"status", "service", "version", "ok", "modelReady", "modelId", "error"} <= set(body)
    assert body["ok"] is True
    assert body["modelReady"] is False
    assert body["modelId"] == "nobody/nothing"


def test_ready_is_503_until_the_default_engine_can_serve() -> None:
    """Contract 8."""
    with serving(ScriptedEngine(out_of_order="still loading")) as server:
        response = server.get("/ready")
        assert response.status_code == 503
        assert response.json()["detail"] == "still loading"
        assert int(response.headers["retry-after"]) > 0
    with serving() as server:
        assert server.get("/ready").json() == {
            "ready": True,
            "engine": "extractive",
            "model": server.app.state.services().engine.model,
        }


def test_documentation_needs_no_other_host() -> None:
    """Contract 8: /docs and /redoc work with no internet."""
    with serving(ScriptedEngine()) as server:
        for path in ("/docs", "/redoc"):
            page = server.get(path).text
            links = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
            assert links
            for link in links:
                assert link.startswith("/"), link
                assert server.get(link).status_code == 200, link


def test_the_description_names_every_endpoint_with_an_example() -> None:
    """S0.16: tag and prefix; contract 8: openapi.json and openapi.yaml."""
    with serving(ScriptedEngine()) as server:
        described = server.get("/openapi.json").json()
        assert yaml.safe_load(server.get("/openapi.yaml").text) == described
    operation = described["paths"]["/api/v4/scrape-and-summarize/stream"]["post"]
    assert operation["tags"] == ["V4 Structured Summarizer"]
    for path in ("/api/v4/scrape-and-summarize/stream", "/api/v3/scrape-and-summarize/stream"):
        answer = described["paths"][path]["post"]["responses"]["200"]
        assert "data: " in answer["content"]["text/event-stream"]["example"]
        assert list(answer["content"]) == ["text/event-stream"]


def test_the_index_is_a_page_for_browsers_and_json_for_programs() -> None:
    """Contract 8."""
    with serving(ScriptedEngine()) as server:
        page = server.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert page.headers["content-type"].startswith("text/html")
        for accept in ("application/json", "*/*"):
            index = server.get("/", headers={"Accept": accept}).json()
            assert index["docs"] == "/docs"
