"""The marketplace over HTTP, as contract 7 has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines import ScriptedEngine
from tests.servers import Running, serving

PASSWORD = "seven harbour bridges"
JAKARTA = {"lat": -6.2, "lng": 106.82}
LAPTOP = {
    "name": "Laptop gaming ROG",
    "description": "RAM 16GB",
    "price": 9_500_000,
    "stock_quantity": 3,
    "category": "laptop",
    "tags": ["gaming"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder: Path = tmp_path_factory.mktemp("market")
    with serving(
        ScriptedEngine(["Hi"]), data_dir=str(folder), login_rate_limit="1000/minute"
    ) as up:
        yield up


class Person:
    """Somebody with an account, and what they send."""

    def __init__(self, server: Running, name: str) -> None:
        self.server = server
        body = {"email": f"{name}@example.com", "password": PASSWORD, "name": name}
        answer = server.post("/api/auth/register", body)
        assert answer.status_code == 201, answer.text
        self.tokens: dict[str, Any] = answer.json()
        self.headers = {"Authorization": f"Bearer {self.tokens['access_token']}"}

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        with self.server.client() as client:
            answer = client.request(method, path, json=body, headers=self.headers)
        return answer.status_code, answer.json() if answer.content else None


def a_supplier(server: Running, name: str) -> Person:
    person = Person(server, name)
    shop = {"business_name": f"Toko {name}", "address": "Jl. Satu 1", "contact": "0812", **JAKARTA}
    assert person.send("POST", "/api/suppliers/register", shop)[0] == 201
    return person


def test_an_account_is_told_what_it_is(server: Running) -> None:
    anna = Person(server, "anna")
    assert anna.tokens["token_type"] == "bearer"
    assert anna.tokens["expires_in"] > 0
    assert anna.tokens["user"]["role"] == "user"
    assert anna.tokens["user"]["ai_access_enabled"] is True
    status, me = anna.send("GET", "/api/auth/me")
    assert (status, me["email"]) == (200, "anna@example.com")
    taken = {"email": "ANNA@example.com", "password": PASSWORD, "name": "x"}
    assert server.post("/api/auth/register", taken).status_code == 409


def test_a_wrong_password_and_an_unknown_address_look_alike(server: Running) -> None:
    """No user enumeration."""
    Person(server, "bert")
    answers = [
        server.post("/api/auth/login", {"email": email, "password": "wrong wrong wrong"})
        for email in ("bert@example.com", "nobody@example.com")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    first, second = (answer.json() for answer in answers)
    assert (first["detail"], first["code"]) == (second["detail"], second["code"])


def test_a_used_refresh_token_ends_its_family(server: Running) -> None:
    cara = Person(server, "cara")
    old = {"refresh_token": cara.tokens["refresh_token"]}
    new = server.post("/api/auth/refresh", old)
    assert new.status_code == 200
    assert server.post("/api/auth/refresh", old).status_code == 401
    newer = {"refresh_token": new.json()["refresh_token"]}
    assert server.post("/api/auth/refresh", newer).status_code == 401


def test_goods_are_their_suppliers_and_versions_count(server: Running) -> None:
    dina, edo = a_supplier(server, "dina"), a_supplier(server, "edo")
    assert dina.send("GET", "/api/auth/me")[1]["role"] == "supplier"
    status, made = dina.send("POST", "/api/products", LAPTOP)
    assert status == 201
    path = f"/api/products/{made['id']}"
    change = {**LAPTOP, "price": 9_000_000, "version": made["version"]}
    assert edo.send("PUT", path, change)[0] == 403
    assert edo.send("DELETE", path)[0] == 403
    assert dina.send("PUT", path, change)[0] == 200
    status, stale = dina.send("PUT", path, change)
    assert status == 409
    assert "9000000" in str(stale)
    assert server.get(path).json()["price"] == 9_000_000
    assert dina.send("DELETE", path)[0] in (200, 204)
    assert server.get(path).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [{"price": 0}, {"price": 1.5}, {"stock_quantity": -1}, {"name": ""}, {"condition": "odd"}],
)
def test_wrong_goods_are_422(server: Running, wrong: dict[str, Any]) -> None:
    shop = a_supplier(server, f"s{abs(hash(str(wrong)))}")
    assert shop.send("POST", "/api/products", {**LAPTOP, **wrong})[0] == 422


def test_who_sells_nothing_cannot_write_and_nobody_can_without_signing_in(server: Running) -> None:
    assert server.post("/api/products", LAPTOP).status_code == 401
    assert Person(server, "fred").send("POST", "/api/products", LAPTOP)[0] == 403
    assert Person(server, "gita").send("GET", "/api/admin/queries")[0] == 403


@pytest.mark.parametrize("token", ["-", "x", "a.b.c", "refresh"])
def test_no_other_token_opens_the_door(server: Running, token: str) -> None:
    if token == "refresh":
        token = Person(server, "hani").tokens["refresh_token"]
    answer = server.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 401


def test_search_finds_by_words_place_and_price(server: Running) -> None:
    shop = a_supplier(server, "indah")
    for number, price in enumerate((3_000_000, 7_000_000, 12_000_000)):
        goods = {**LAPTOP, "name": f"Kulkas dua pintu seri {number}", "price": price}
        goods |= {"category": "kulkas", "tags": []}
        assert shop.send("POST", "/api/products", goods)[0] == 201
    found = server.get("/api/products/search?q=kulkas&max_price=8000000&sort=price").json()
    assert [item["price"] for item in found["items"]] == [3_000_000, 7_000_000]
    assert found["total"] == 2
    near = server.get("/api/products/search?q=kulkas&location=-6.2,106.8&sort=distance").json()
    assert all("distance_km" in item and "delivery_days" in item for item in near["items"])
    page = server.get("/api/products/search?q=kulkas&limit=2").json()
    rest = server.get(f"/api/products/search?q=kulkas&limit=2&cursor={page['next_cursor']}").json()
    assert len(page["items"]) == 2
    assert {i["id"] for i in page["items"]}.isdisjoint(i["id"] for i in rest["items"])
    assert rest["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    ["cursor=forged", "location=nan,1", "location=91,0", "limit=101", "sort=odd", "min_price=-1"],
)
def test_a_wrong_search_is_a_clear_4xx(server: Running, query: str) -> None:
    answer = server.get(f"/api/products/search?{query}")
    assert answer.status_code in (400, 422), answer.text


def test_people_are_understood_in_their_own_words(server: Running) -> None:
    """S4.31: the flagship query."""
    shop = a_supplier(server, "joko")
    assert shop.send("POST", "/api/products", LAPTOP)[0] == 201
    answer = server.post(
        "/api/products/ai-search", {"query": "laptop gaming Jakarta budget 10 juta"}
    )
    assert answer.status_code == 200, answer.text
    meant = answer.json()["interpretation"]
    assert meant["category"] == "laptop"
    assert "gaming" in meant["tags"]
    assert meant["max_price"] == 10_000_000
    assert meant["place"]["name"] == "Jakarta"
    assert meant["by"] == "parser"
    assert LAPTOP["name"] in {item["name"] for item in answer.json()["items"]}


def test_an_account_that_is_deleted_is_gone(server: Running) -> None:
    kiki = Person(server, "kiki")
    assert kiki.send("DELETE", "/api/auth/me")[0] in (200, 204)
    assert kiki.send("GET", "/api/auth/me")[0] == 401
    again = {"email": "kiki@example.com", "password": PASSWORD}
    assert server.post("/api/auth/login", again).status_code == 401
