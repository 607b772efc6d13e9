"""Health, readiness, the index: what works with no internet and no model."""

from __future__ import annotations

from tests.engines import ScriptedEngine
from tests.redis_server import running_redis
from tests.servers import serving, until


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


def test_the_index_is_a_page_for_browsers_and_json_for_programs() -> None:
    """Contract 8."""
    with serving(ScriptedEngine()) as server:
        page = server.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert page.headers["content-type"].startswith("text/html")
        for accept in ("application/json", "*/*"):
            index = server.get("/", headers={"Accept": accept}).json()
            assert index["docs"] == "/docs"


def test_images_can_be_switched_off_wherever_the_model_runs() -> None:
    """C7: VISION_MODEL_ID=none, also with ENGINE_URL; clients ask /health before they offer it."""
    elsewhere = ("http://127.0.0.1:9/v1",)
    with serving(engine_url=elsewhere) as server:
        assert "vision" in server.get("/health").json()["roles"]
    for engine_url in (elsewhere, ()):
        with serving(engine_url=engine_url, vision_model_id="none") as server:
            assert "vision" not in server.get("/health").json()["roles"]


def test_it_is_not_ready_while_sessions_cannot_be_kept() -> None:
    """S4.34: whoever shares out requests must know; /health goes on saying that it is alive."""
    with (
        running_redis() as redis,
        serving(ScriptedEngine(["Hi"]), sessions_url=redis.url) as server,
    ):
        assert server.get("/ready").status_code == 200
        redis.stop()
        answer = server.get("/ready")
        assert (answer.status_code, answer.json()["code"]) == (503, "log_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert server.get("/health").status_code == 200
        redis.start()
        until(lambda: server.get("/ready").status_code == 200)
