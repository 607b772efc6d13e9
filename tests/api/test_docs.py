"""The documentation: pages that need no other host, and a description that does what it says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest
import yaml
from sqlalchemy import Connection, insert, update
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from app.api.docs.curl import BASE, UPLOAD
from app.api.docs.openapi import TAGS
from app.api.docs.requests import PAGE
from app.core.errors import GenerationFailed
from app.db.demonstration.seed import seed
from app.db.tables import conversations, users
from app.engine.base import Status
from app.main import create_app
from tests.engines import SUMMARY_TEXT, ScriptedEngine, pieces_of
from tests.programs import program
from tests.servers import WAIT_S, Frame, Running, frames, serving, settings
from tests.web.answering import AnsweringEngine

SCRIPT = [Status("loading", progress=0.5), Status("writing"), *pieces_of(SUMMARY_TEXT)]
STREAMS = (
    "stream_summary_text",
    "stream_summary_patches",
    "stream_prose_summary",
    "create_chat_completion",
)
# They take a file, which no example holds; tests/api/test_ktp.py runs them.
UPLOADS = {"read_card", "stream_card"}
JSON, SSE = "application/json", "text/event-stream"
FORM, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"


@dataclass(frozen=True)
class Call:
    """One example of one operation, as a client sends it."""

    operation: dict[str, Any]
    method: str
    path: str
    example: str = ""
    kind: str | None = None
    body: Any = None

    @property
    def name(self) -> str:
        return f"{self.operation['operationId']} {self.example}".strip()

    def sent(self) -> dict[str, Any]:
        """Return the body as httpx wants it."""
        if self.kind == MULTIPART:
            return {"files": {name: (None, value) for name, value in self.body.items()}}
        return {{JSON: "json", FORM: "data", None: "json"}[self.kind]: self.body}


@dataclass
class Tag:
    """An element of a page."""

    name: str
    attributes: dict[str, str | None]
    text: str = ""


class Elements(HTMLParser):
    """All elements of a page, each with the text that follows its start tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[Tag] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(Tag(tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found:
            self.found[-1].text += data

    def links(self) -> list[str]:
        named = ("src", "href", "spec-url", "data-openapi")
        return [str(v) for tag in self.found for k, v in tag.attributes.items() if k in named]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server whose engine answers whatever the examples ask."""
    with serving(AnsweringEngine(summary=SCRIPT)) as running:
        yield running


def sign_up(server: Running, role: str = "user") -> str:
    """Return the access token of a new account."""
    email = f"{uuid.uuid4().hex}@example.com"
    body = {"email": email, "password": "ombak pantai selatan", "name": "Sari"}
    token: str = server.post("/api/auth/register", body).json()["access_token"]
    if role == "admin":

        def work(connection: Connection) -> None:
            connection.execute(update(users).where(users.c.email == email).values(role="admin"))

        in_database(server, work)
    return token


def in_database(server: Running, work: Callable[[Connection], Any]) -> None:
    """Do what is the command line's."""

    async def run() -> None:
        parts = await server.app.state.services().market.parts()
        async with parts.database.write() as connection:
            await connection.run_sync(work)

    asyncio.run_coroutine_threadsafe(run(), server.loop).result(WAIT_S)


def a_market(server: Running) -> dict[str, str]:
    """Fill the marketplace with what its examples name; return what lines of curl take."""
    found = {"ADMIN_TOKEN": sign_up(server, "admin"), "ACCESS_TOKEN": sign_up(server, "admin")}
    me = server.get("/api/auth/me", headers={"Authorization": f"Bearer {found['ACCESS_TOKEN']}"})
    found["CONVERSATION"] = uuid.uuid4().hex

    def work(connection: Connection) -> None:
        seed(connection)
        values = {"id": found["CONVERSATION"], "user_id": me.json()["id"]}
        connection.execute(insert(conversations).values(values))

    in_database(server, work)
    return found


@pytest.fixture(scope="module")
def described(server: Running) -> dict[str, Any]:
    """What the server says of itself."""
    return server.get("/openapi.json").json()


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return method, path and operation; those that make something first, DELETE last."""
    found = [
        (method, path, operation)
        for path, item in described["paths"].items()
        for method, operation in item.items()
    ]
    rank = {"post": 0, "delete": 2}
    return sorted(found, key=lambda o: ("requestBody" not in o[2], rank.get(o[0], 1)))


def resolved(described: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference to a component."""
    if "$ref" in schema:
        return described["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def calls(described: dict[str, Any]) -> list[Call]:
    """Return every example of every operation."""
    found = []
    for method, path, operation in operations(described):
        if operation["operationId"] in UPLOADS:
            continue
        content = operation.get("requestBody", {}).get("content", {})
        for kind, media in content.items():
            assert media["examples"], operation["operationId"]
            for name, example in media["examples"].items():
                found.append(Call(operation, method, path, name, kind, example["value"]))
        if not content:
            found.append(Call(operation, method, path))
    return found


def url_of(call: Call, known: dict[str, str]) -> str:
    """Fill a path's parameters with their examples, a job's id with the one it was given."""
    path = call.path
    for parameter in call.operation.get("parameters", ()):
        if parameter["in"] != "path":
            continue
        named = parameter.get("examples", {})
        first = next((example["value"] for example in named.values()), None)
        value = known.get(parameter["name"], parameter.get("example", first))
        assert value, f"{call.name}: {parameter['name']} has no example"
        path = path.replace(f"{{{parameter['name']}}}", quote(str(value), safe=""))
    return path


def told(raw: str) -> list[Frame]:
    """Return the events of a stream; a chat's `[DONE]` is none."""
    return [frame for frame in frames(raw) if frame.data != "[DONE]"]


def shape(frame: Frame) -> tuple[str, frozenset[str]]:
    """Return an event's name and the keys of its object."""
    try:
        data = frame.json
    except ValueError:
        data = None
    return frame.event, frozenset(data if isinstance(data, dict) else ())


def test_every_example_of_every_operation_works_as_it_stands(
    server: Running, described: dict[str, Any]
) -> None:
    """Contract 8: 2xx and a documented type; only pages, which need the internet, are left out."""
    market = a_market(server)
    login = {"email": "sari@example.com", "password": "ombak pantai selatan", "name": "Sari"}
    server.post("/api/auth/register", login)
    known: dict[str, str] = {"conversation_id": market["CONVERSATION"]}
    executed, left_out = set(), {}
    with server.client() as client:
        for call in calls(described):
            if isinstance(call.body, dict) and "url" in call.body:
                left_out[call.name] = call.body["url"]
                continue
            headers = {}
            if "x-role" in call.operation:
                ends = call.operation["operationId"] in ("logout", "delete_account")
                token = sign_up(server) if ends else market["ACCESS_TOKEN"]
                headers["Authorization"] = f"Bearer {token}"
            sent = call.sent()
            if call.operation["operationId"] == "refresh":
                sent = {"json": {"refresh_token": known["refresh_token"]}}
            if call.operation["operationId"] == "register":
                # The lines of curl may have made the account of the example.
                sent = {"json": {**call.body, "email": f"{uuid.uuid4().hex}@example.com"}}
            # The lines of curl look at the first product.
            gone = {"product_id": "3"} if call.operation["operationId"] == "delete_product" else {}
            url = url_of(call, known | gone)
            answer = client.request(call.method, url, headers=headers, **sent)
            documented = call.operation["responses"].get(str(answer.status_code))
            assert documented, f"{call.name}: {answer.status_code} {answer.text}"
            assert answer.is_success, f"{call.name}: {answer.text}"
            kind = answer.headers["content-type"].partition(";")[0]
            assert kind in documented["content"], call.name
            if kind == SSE:
                assert told(answer.text), call.name
                assert "error" not in shape(told(answer.text)[-1])[1], answer.text[-500:]
                assert '"step":"error"' not in answer.text, answer.text[-500:]
            elif isinstance(call.body, dict) and call.body.get("stream"):
                pytest.fail(f"{call.name} was to stream")
            elif kind != "application/json":
                pass
            elif "refresh_token" in answer.json():
                known["refresh_token"] = answer.json()["refresh_token"]
            elif "job_id" in answer.json():
                known["job_id"] = answer.json()["job_id"]
            executed.add(call.operation["operationId"])
    assert executed | UPLOADS == {o["operationId"] for _, _, o in operations(described)}
    assert not executed & UPLOADS
    assert left_out == {
        f"stream_{kind} page": PAGE for kind in ("summary_text", "summary_patches", "prose_summary")
    }


def test_the_first_example_needs_no_internet_and_names_the_session_to_replay(
    server: Running, described: dict[str, Any]
) -> None:
    """Contract 3: Sessions' examples replay and cancel what `/stream-ndjson` shows first."""
    found = {call.operation["operationId"]: call for call in reversed(calls(described))}
    for call in found.values():
        assert not isinstance(call.body, dict) or "url" not in call.body, call.name
    first = found["stream_summary_patches"]
    sent = server.post(first.path, first.body)
    assert sent.headers["x-session-id"] == "example"
    again = server.get(url_of(found["replay_session"], {}))
    assert again.text == sent.text
    assert url_of(found["cancel_session"], {}) == "/v1/cancel/example"


def test_every_line_of_curl_works_as_pasted(server: Running, described: dict[str, Any]) -> None:
    """Contract 8: each description ends with a line that succeeds, on this server's port."""
    bash = program("bash")
    program("curl")
    lines = [described["info"]["description"]]
    lines += [operation["description"] for _, _, operation in operations(described)]
    found = [
        line.strip()
        for text in lines
        for line in text.splitlines()
        if line.strip().startswith("curl ")
    ]
    assert len(found) >= len(lines)
    environment = {**os.environ, **a_market(server)}
    uploads = [line for line in found if line.endswith(UPLOAD)]
    assert len(uploads) == len(UPLOADS)
    for line in [line for line in found if line not in uploads]:
        assert BASE in line, line
        local = line.replace(BASE, server.base).replace("curl ", "curl -sS --fail-with-body ", 1)
        ran = subprocess.run(
            [bash, "-c", local],
            env=environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        assert ran.stdout.strip(), line


def test_every_operation_is_described(described: dict[str, Any]) -> None:
    """S0.16: tags; contract 8: a summary, a line of curl at the end, an id that stays."""
    known = [tag["name"] for tag in described["tags"]]
    assert described["tags"] == TAGS
    assert all(tag["description"] for tag in described["tags"])
    ids = set()
    for method, path, operation in operations(described):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"].splitlines()[-1].strip().startswith("curl "), where
        assert set(operation["tags"]) <= set(known), where
        assert re.fullmatch(r"[a-z_]+", operation["operationId"]), where
        assert operation["operationId"] not in ids, where
        ids.add(operation["operationId"])
    v4 = described["paths"]["/api/v4/scrape-and-summarize/stream"]["post"]
    assert v4["tags"] == ["V4 Structured Summarizer"]
    assert list(v4["responses"]["200"]["content"]) == [SSE]


def test_answers_that_are_json_are_typed(described: dict[str, Any]) -> None:
    """Contract 8: who generates a client gets more than any object."""
    for path in ("/health", "/ready", "/v1/models", "/v1/models/{model_id}"):
        schema = described["paths"][path]["get"]["responses"]["200"]["content"][JSON]["schema"]
        assert resolved(described, schema)["properties"], path
    cancel = described["paths"]["/v1/cancel/{session_id}"]["post"]["responses"]
    assert resolved(described, cancel["200"]["content"][JSON]["schema"])["properties"]
    assert "422" not in cancel
    # FastAPI's own form of an error is never sent here.
    assert "HTTPValidationError" not in json.dumps(described)


def test_errors_have_the_form_that_is_described(server: Running, described: dict[str, Any]) -> None:
    """C16: OpenAI's form under `/v1`, this server's elsewhere; the described code is sent."""
    for path, status, code in (
        ("/api/v4/scrape-and-summarize/stream", 422, "invalid_input"),
        ("/api/v3/scrape-and-summarize/stream", 422, "invalid_input"),
        ("/v1/chat/completions", 400, "invalid_input"),
    ):
        answer = server.post(path, {})
        assert answer.status_code == status
        error = described["paths"][path]["post"]["responses"][str(status)]
        assert f"`{code}`" in error["description"]
        form = resolved(described, error["content"][JSON]["schema"])
        assert set(answer.json()) == set(form["properties"]) == set(form["examples"][0])
        assert code in answer.text


def test_examples_of_streams_are_what_comes_on_the_wire(
    server: Running, described: dict[str, Any]
) -> None:
    """Contract 1 and 2: the events that are shown have the names and keys of real ones."""
    first = {call.operation["operationId"]: call for call in reversed(calls(described))}
    with serving(ScriptedEngine(["Ha", GenerationFailed("no")])) as broken:
        for name in STREAMS:
            call = first[name]
            content = call.operation["responses"]["200"]["content"][SSE]
            shown = {key: told(example["value"]) for key, example in content["examples"].items()}
            body = {**call.body, "stream": True, "include_status": True, "use_cache": False}
            real = {shape(frame) for frame in told(server.post(call.path, body).text)}
            for frame in shown["complete"]:
                assert shape(frame) in real, f"{name}: {frame}"
            failed = told(broken.post(call.path, body).text)
            assert shape(shown["failed"][-1]) == shape(failed[-1]), name


def test_keys_are_described_and_asked_for_as_described() -> None:
    """Contract 8: two schemes, both optional; what says that it is open is open, nothing else."""
    with serving(ScriptedEngine(SCRIPT), api_keys=("secret",)) as guarded:
        described = guarded.get("/openapi.json").json()
        schemes = described["components"]["securitySchemes"]
        assert {(s["type"], s.get("scheme"), s.get("name")) for s in schemes.values()} == {
            ("http", "bearer", None),
            ("apiKey", None, "X-API-Key"),
        }
        assert {} in described["security"]
        for method, path, operation in operations(described):
            is_open = operation.get("security", described["security"]) == []
            with guarded.client() as client:
                status = client.request(method, path).status_code
            assert (status != 401) == is_open, f"{method} {path}"
        for headers in ({"Authorization": "Bearer secret"}, {"X-API-Key": "secret"}):
            assert guarded.get("/v1/models", headers=headers).status_code == 200


def test_the_description_is_also_yaml(server: Running, described: dict[str, Any]) -> None:
    """Contract 8: openapi.json and openapi.yaml say the same."""
    assert yaml.safe_load(server.get("/openapi.yaml").text) == described


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_documentation_needs_no_other_host(server: Running, path: str) -> None:
    """Contract 8: every link leads to this server, and finds something there."""
    links = Elements(server.get(path).text).links()
    assert links
    for link in links:
        parts = urlsplit(link)
        assert not parts.scheme, link
        assert not parts.netloc, link
        assert server.get(urljoin(path, link)).status_code == 200, link


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_documentation_runs_only_its_own_files(server: Running, path: str) -> None:
    """Contract 8: a policy that names no other host but the one that may frame the page."""
    answer = server.get(path)
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    frame_ancestors = policy.pop("frame-ancestors")
    assert frame_ancestors == "'self' https://huggingface.co https://*.hf.space"
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["style-src"] == ("'self'" if path == "/docs" else "'self' 'unsafe-inline'")
    assert "http" not in " ".join(policy.values())
    for element in Elements(answer.text).found:
        assert element.name != "style"
        assert element.name != "script" or not element.text.strip()
        assert not [k for k in element.attributes if k == "style" or k.startswith("on")]


def test_documentation_works_behind_a_prefix() -> None:
    """Contract 8: the pages, their files and the description's server move with the prefix."""
    app = create_app(settings(), engine=ScriptedEngine(SCRIPT))
    outside = Starlette(routes=[Mount("/precis", app)])
    with TestClient(outside) as client:
        for path in ("/precis/docs", "/precis/redoc"):
            answer = client.get(path)
            for link in Elements(answer.text).links():
                assert client.get(urljoin(path, link)).status_code == 200, link
        described = client.get("/precis/openapi.json").json()
        for named in described["servers"]:
            base = httpx.URL("http://x/precis/openapi.json").join(named["url"])
            assert base.path.rstrip("/") == "/precis"
