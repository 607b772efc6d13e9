"""The plan's own test: the endpoint streams what the patched seams give, with no model."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import AsyncMock, patch

import httpx
import pytest
from fastapi.testclient import TestClient

from app.main import app
from app.services.model_loader_v4 import ModelServiceV4

PIECES = [
    '{"title": ', '"Patched title", "main_summary": "It works.", ',
    '"key_points": ["one", "two", "three"], "category": "Tests", ',
    '"sentiment": "neutral", "read_time_min": 1}',
]  # fmt: skip
URL = "http://example.com/article"


@pytest.fixture
def scraper() -> Iterator[AsyncMock]:
    with patch("app.api.v4.endpoints.article_scraper_service") as service:
        service.scrape_url = AsyncMock(return_value={"content": "The article says so. " * 600})
        yield service.scrape_url


def test_v4_stream_answers_with_the_object(scraper: AsyncMock) -> None:
    """S0.26, S0.27, S0.4, S0.15, S0.18, S0.23, S0.24."""
    with (
        patch.object(ModelServiceV4, "stream_generation", return_value=iter(PIECES)) as generation,
        TestClient(app) as client,
    ):
        response = client.post(f"/api/v4/scrape-and-summarize/stream?url={URL}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream"
    assert '{"title":' in response.text
    assert "Patched title" in response.text
    assert '"engine":"local"' in response.text
    scraper.assert_awaited_once_with(URL)
    generation.assert_called_once()


async def test_v4_stream_needs_no_lifespan(scraper: AsyncMock) -> None:
    """S0.26: an in-process transport runs none."""

    def stream_generation(prompt: object, **options: object) -> Iterator[str]:
        yield from PIECES

    with patch.object(ModelServiceV4, "stream_generation", stream_generation):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post(
                "/api/v4/scrape-and-summarize/stream",
                params={"url": URL, "style": "eli5"},
                json={"use_cache": False},
            )
    assert response.headers["content-type"] == "text/event-stream"
    assert "Patched title" in response.text


def test_a_scraper_that_fails_is_a_400(scraper: AsyncMock) -> None:
    """S0.19, C2."""
    scraper.side_effect = RuntimeError("the network is down")
    response = TestClient(app).post(f"/api/v4/scrape-and-summarize/stream?url={URL}&style=skimmer")
    assert response.status_code == 400
    assert response.json()["detail"].startswith("Scraping failed: ")
