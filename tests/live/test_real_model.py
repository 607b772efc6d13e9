"""With the real Phi-3-mini and the network: `pytest -m live tests/live`. Off by default."""

from __future__ import annotations

import pytest

from app.schemas.summary_v4 import StructuredSummary
from tests.servers import STREAM, frames, serving, text_of

pytestmark = [pytest.mark.live, pytest.mark.timeout(7200)]


def test_phi_3_summarises_a_public_page() -> None:
    """S0.12: the downloaded model, not the fallback."""
    with (
        serving(summary_engine="local", fallback_engine="none") as server,
        server.client() as client,
    ):
        response = client.post(
            STREAM, json={"url": "https://en.wikipedia.org/wiki/Automatic_summarization"},
            timeout=7000,
        )  # fmt: skip
    found = frames(response.text)
    assert found[-1].json["engine"] == "local"
    StructuredSummary.model_validate_json(text_of(found))
