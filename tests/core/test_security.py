"""Keys, rates, body limits, request ids, CORS: what every request passes."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from app.core.security import network_of
from tests.engines import ARTICLE, ScriptedEngine
from tests.servers import NDJSON, STREAM, serving

BODY = {"text": ARTICLE}


def test_without_a_key_everything_but_the_open_paths_is_401() -> None:
    """Contract 8; pitfall: API keys were settings that nothing read."""
    with serving(ScriptedEngine(), api_keys=("right",)) as server:
        for path in ("/health", "/ready", "/", "/docs", "/redoc", "/openapi.json"):
            assert server.get(path).status_code == 200, path
        for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Basic right"}):
            response = server.post(STREAM, BODY, headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        assert server.post("/v1/cancel/x").json()["error"]["code"] == "unauthorized"
        for headers in ({"X-API-Key": "right"}, {"Authorization": "bearer right"}):
            assert server.post(STREAM, BODY, headers=headers).status_code == 200


def test_a_gateways_own_token_may_stand_beside_the_key() -> None:
    """Contract 8: a private gateway puts its bearer token where ours would be."""
    headers = {"Authorization": "Bearer the-gateways", "X-API-Key": "right"}
    with serving(ScriptedEngine(), api_keys=("right",)) as server:
        assert server.post(STREAM, BODY, headers=headers).status_code == 200


def test_a_key_that_is_not_ascii_works() -> None:
    with serving(ScriptedEngine(), api_keys=("schlüssel",)) as server:
        headers = {b"X-API-Key": "schlüssel".encode()}
        assert server.post(STREAM, BODY, headers=headers).status_code == 200


def test_an_address_that_a_stranger_claims_is_not_believed() -> None:
    """RATE_LIMIT counts the address of the connection."""
    with serving(ScriptedEngine(), rate_limit="1/minute") as server:
        answers = [
            server.post(STREAM, BODY, headers={"X-Forwarded-For": f"9.9.9.{n}"}) for n in range(2)
        ]
    assert [answer.status_code for answer in answers] == [200, 429]


def test_over_the_rate_is_429_with_retry_after() -> None:
    """Contract 8; pitfall: rate limits were settings that nothing read."""
    with serving(ScriptedEngine(), rate_limit="2/minute") as server:
        codes = [server.post(STREAM, BODY).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        refused = server.post(STREAM, BODY)
        assert refused.json()["code"] == "rate_limited"
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert server.get("/health").status_code == 200


def test_rates_are_counted_for_each_key() -> None:
    """Contract 8: per key or address."""
    with serving(ScriptedEngine(), rate_limit="1/minute", api_keys=("a", "b")) as server:
        first = [server.post(STREAM, BODY, headers={"X-API-Key": k}).status_code for k in "aab"]
    assert first == [200, 429, 200]


def test_keys_cannot_be_guessed_without_limit() -> None:
    """Contract 8: those without a right key are counted by their address, and harm nobody else."""
    with serving(ScriptedEngine(), rate_limit="2/minute", api_keys=("a",)) as server:
        guesses = [
            server.post(STREAM, BODY, headers={"X-API-Key": f"guess-{n}"}).status_code
            for n in range(4)
        ]
        right = server.post(STREAM, BODY, headers={"X-API-Key": "a"}).status_code
    assert guesses == [401, 401, 429, 429]
    assert right == 200


def test_a_body_over_the_limit_is_413_however_it_comes() -> None:
    """S1.26."""
    with serving(ScriptedEngine(), max_body_bytes=2000) as server, server.client() as client:
        declared = client.post(NDJSON, json={"text": "x" * 3000})
        chunked = client.post(NDJSON, content=(b"x" * 500 for _ in range(8)))
        for response in (declared, chunked):
            assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody() -> None:
    with serving(ScriptedEngine()) as server:
        where = urlsplit(server.base)
        with socket.create_connection((where.hostname, where.port)) as half:
            half.sendall(b"POST " + NDJSON.encode() + b" HTTP/1.1\r\nHost: x\r\n")
            half.sendall(b"Content-Length: 100\r\n\r\n{")
        assert server.get("/health").status_code == 200


@pytest.mark.parametrize("given", ["bad id!", "x" * 200, ""])
def test_a_request_id_from_outside_is_used_only_if_it_is_harmless(given: str) -> None:
    """S1.36."""
    with serving(ScriptedEngine()) as server:
        sent = server.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"]
        assert sent
        assert sent != given
        kept = server.get("/health", headers={"X-Request-ID": "a.b-c_1"})
        assert kept.headers["x-request-id"] == "a.b-c_1"


def test_cors_admits_every_origin_without_credentials() -> None:
    """Contract 8, S4.5."""
    with serving(ScriptedEngine(), api_keys=("k",)) as server, server.client() as client:
        asked = client.options(
            STREAM, headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        )
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in asked.headers
        origin = {"Origin": "https://a.example"}
        refused = client.post(STREAM, json=BODY, headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "*"


def test_unknown_paths_and_methods_have_the_error_shape() -> None:
    """C16, S1.26."""
    with serving(ScriptedEngine()) as server:
        missing = server.get("/nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
        wrong = server.get(STREAM)
        assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
        assert "POST" in wrong.headers["allow"]
        assert missing.json()["request_id"] == missing.headers["x-request-id"]
        openai = server.get("/v1/nothing").json()
        assert set(openai["error"]) == {"message", "type", "param", "code"}


def test_a_defect_is_a_500_without_its_traceback() -> None:
    """S1.35."""

    class Defect(ScriptedEngine):
        async def unavailable(self) -> None:
            raise RuntimeError("/secret/path")

    with serving(Defect()) as server:
        response = server.get("/ready")
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert "secret" not in response.text
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_the_addresses_of_one_network_are_one_client(address: str, network: str) -> None:
    """C34: an IPv6 /64 is what one household has."""
    assert network_of({"type": "http", "client": (address, 1)}) == network


def test_without_an_address_there_is_a_name_all_the_same() -> None:
    assert network_of({"type": "http", "client": None}) == "unknown"
