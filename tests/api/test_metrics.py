"""What an operator sees, and what must never be in it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.engines import ARTICLE, SUMMARY_TEXT, ScriptedEngine, pieces_of
from tests.servers import NDJSON, STREAM, Running, serving

SCRIPT = pieces_of(SUMMARY_TEXT)
HTTP = "precis_http_requests_total"


def figures(server: Running) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample by its name and labels."""
    text = server.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def gained(
    after: dict[tuple[str, tuple[tuple[str, str], ...]], float],
    before: dict[tuple[str, tuple[tuple[str, str], ...]], float],
    name: str,
    **labels: str,
) -> float:
    key = (name, tuple(sorted(labels.items())))
    return after.get(key, 0.0) - before.get(key, 0.0)


def test_a_summary_is_counted_once_everywhere() -> None:
    """Contract 8, S4.34."""
    with serving(ScriptedEngine(SCRIPT)) as server:
        before = figures(server)
        assert server.post(STREAM, {"text": ARTICLE}).status_code == 200
        after = figures(server)
        name = ScriptedEngine(SCRIPT).name
    route = {"route": STREAM}
    assert gained(after, before, HTTP, method="POST", code="200", **route) == 1
    for kind in ("first_byte", "request_duration"):
        assert gained(after, before, f"precis_http_{kind}_seconds_count", **route) == 1
    assert gained(after, before, "precis_generations_total", engine=name, outcome="stop") == 1
    assert gained(after, before, "precis_generation_first_token_seconds_count", engine=name) == 1
    for kind in ("prompt", "completion"):
        assert gained(after, before, "precis_tokens_total", engine=name, kind=kind) > 0
    assert after[("precis_sessions_active", ())] == 0
    ended = {dict(labels)["ending"] for key, labels in after if key == "precis_sessions_total"}
    assert "done" in ended


def test_failures_are_counted_by_their_codes() -> None:
    with serving(ScriptedEngine(SCRIPT)) as server:
        before = figures(server)
        server.post(NDJSON, {"url": "http://127.0.0.1:1/"})
        after = figures(server)
    assert gained(after, before, "precis_page_fetches_total", outcome="blocked_url") == 1
    assert (
        gained(after, before, "precis_http_requests_total", code="200", method="POST", route=NDJSON)
        == 1
    )


def test_what_strangers_ask_for_makes_no_labels() -> None:
    """Labels are bounded, or the metrics would grow with every scan of the web."""
    with serving(ScriptedEngine(SCRIPT)) as server:
        for number in range(5):
            server.get(f"/secret-{number}")
        server.get("/api/sessions/my-own-id/events")
        with server.client() as client:
            client.request("BREW", "/health")
        text = server.get("/metrics").text
    assert "secret-" not in text
    assert "my-own-id" not in text
    assert "BREW" not in text
    assert 'route="unmatched"' in text


def test_with_keys_it_needs_one() -> None:
    with serving(ScriptedEngine(SCRIPT), api_keys=("k",)) as server:
        assert server.get("/metrics").status_code == 401
        assert server.get("/metrics", headers={"X-API-Key": "k"}).status_code == 200
