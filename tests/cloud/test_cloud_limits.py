"""Versions, sizes, slowness, crowds, and the document that describes it all."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from cloud_aug import settings
from cloud_aug.app import create_app
from cloud_aug.middleware import BodyGuard, Crowd
from cloud_aug.settings import Limits
from edgewire.messages import QUERIES_LIMIT_BYTES, SAMPLES_LIMIT_BYTES

BACKENDS = ("files",)  # what stands below makes no difference here


def test_another_wire_version_has_to_upgrade(client, code):
    assert code(client.get("/v1/trust", headers={"Edge-Wire": "2"})) == (426, "upgrade_required")
    assert client.get("/v1/trust", headers={"Edge-Wire": "1"}).status_code == 200
    assert client.get("/v1/trust").status_code == 200


def test_a_body_that_announces_too_much_is_refused_before_it_is_read(client, bearer, code):
    headers = {**bearer, "Content-Length": str(SAMPLES_LIMIT_BYTES + 1)}
    answer = client.put(
        f"/v1/tasks/toy/contributions/{'a' * 32}?consent=packs&until=4e9", content=b"x", headers=headers
    )
    assert code(answer) == (413, "too_large")


def test_a_body_that_streams_too_much_is_cut_off_at_the_limit(client, bearer, code):
    sent = []

    def pieces() -> Any:
        for _ in range(20):
            sent.append(1 << 20)
            yield b"\0" * (1 << 20)

    answer = client.post("/v1/tasks/toy/search", content=pieces(), headers=bearer)
    assert code(answer) == (413, "too_large")
    assert QUERIES_LIMIT_BYTES < 20 << 20


def test_a_body_that_stops_coming_is_given_up():
    messages: list[dict[str, Any]] = []

    async def application(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    async def silence() -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {}

    async def send(message: Any) -> None:
        messages.append(message)

    guard = BodyGuard(application, Limits(body_idle_s=0.01))
    asyncio.run(guard({"type": "http", "method": "PUT", "path": "/", "headers": []}, silence, send))
    assert messages[0]["status"] == 504
    assert b'"timeout"' in messages[1]["body"]


def test_a_body_that_drips_is_given_up_although_it_never_pauses():
    received = 0

    async def application(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive()).get("more_body"):
            pass

    async def drip() -> dict[str, Any]:
        nonlocal received
        received += 1
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    guard = BodyGuard(application, Limits(body_idle_s=0.1, body_min_bytes_per_s=1 << 20))
    asyncio.run(guard({"type": "http", "method": "PUT", "path": "/", "headers": []}, drip, send))
    assert statuses[0] == 504
    assert received < 1000


def test_an_answer_that_nobody_takes_is_given_up_quietly():
    sent: list[str] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        sent.append("past the stall")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.sleep(3600)

    guard = BodyGuard(application, Limits(answer_idle_s=0.01))
    asyncio.run(guard({"type": "http", "method": "GET", "path": "/", "headers": []}, receive, send))
    assert sent == ["http.response.start", "http.response.body"]


def test_beyond_the_limit_the_server_says_when_to_come_back():
    async def scenario() -> dict[str, Any]:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def application(_scope: Any, _receive: Any, _send: Any) -> None:
            inside.set()
            await leave.wait()

        answers: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            answers.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request"}

        crowd = Crowd(application, Limits(requests_at_once=1))
        scope = {"type": "http", "path": "/v1/trust", "method": "GET", "headers": []}
        first = asyncio.create_task(crowd(scope, receive, send))
        await inside.wait()
        await crowd(scope, receive, send)
        leave.set()
        await first
        return answers[0]

    start = asyncio.run(scenario())
    assert start["status"] == 503
    assert dict(start["headers"])[b"retry-after"] == b"2"


@pytest.mark.parametrize("path", ["/v1/tasks/TOY/manifest", "/v1/blobs/xyz", "/v1/trust?after=-1", "/v1/trust?after=x"])
def test_malformed_addresses_are_refused_with_a_code(client, code, path):
    assert code(client.get(path)) == (422, "invalid_message")


def test_unknown_pages_and_methods_are_refused_with_a_code(client, code):
    assert code(client.get("/v2/everything")) == (404, "not_found")
    answer = client.delete("/v1/trust")
    assert code(answer) == (405, "usage")
    assert answer.headers["allow"] == "GET"


def test_an_unexpected_failure_tells_nothing_of_the_inside(client, cloud, code):
    cloud.database.close()
    (cloud.settings.data / "keys").rename(cloud.settings.data / "gone")
    answer = client.get("/readyz")
    assert code(answer) == (503, "not_ready")
    assert "Traceback" not in answer.text
    assert str(cloud.settings.data) not in answer.text


def test_a_database_whose_connections_are_all_taken_asks_to_come_back(client, cloud, code, monkeypatch):
    import sqlalchemy as sa

    def taken() -> None:
        raise sa.exc.TimeoutError

    monkeypatch.setattr(cloud.database.engine, "begin", taken)
    assert code(client.get("/v1/trust")) == (503, "retry_later")


def test_it_is_ready_when_its_database_and_key_are_there(client):
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


def test_it_is_not_ready_without_the_secret_behind_pseudonyms(client, cloud, code):
    cloud.keys.pseudonyms.unlink()
    assert code(client.get("/readyz")) == (503, "not_ready")


def test_the_openapi_document_is_valid_and_has_the_real_schemas(client):
    from openapi_spec_validator import validate

    document = client.get("/openapi.json").json()
    validate(document)
    schemas = document["components"]["schemas"]
    assert schemas["EnrolReply"]["properties"]["board"]["pattern"] == "^b[0-9a-f]{16}$"
    assert "HTTPValidationError" not in schemas
    body = document["paths"]["/v1/tasks/{task}/reports/{upload_id}"]["put"]["requestBody"]
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Report"}


def test_the_openapi_document_is_made_once_however_often_strangers_ask(client, monkeypatch):
    from cloud_aug import openapi

    asked: list[int] = []
    make = openapi.get_openapi
    monkeypatch.setattr(openapi, "get_openapi", lambda **rest: asked.append(1) or make(**rest))
    assert client.get("/openapi.json").json() == client.get("/openapi.json").json()
    assert len(asked) == 1


def test_the_page_at_docs_needs_no_other_host(client):
    page = client.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) == 4
    for address in linked:
        assert address.startswith(("/docs/", "data:"))
        if address.startswith("/"):
            assert client.get(address).status_code == 200
    assert client.get("/docs/secrets").status_code == 404


def test_answers_with_tokens_are_kept_by_nobody(client, board, clock):
    answer = client.post("/v1/access", content=board.access(now=clock()))
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_crowd_limit_comes_from_the_settings(data):
    chosen = replace(settings.load(data), limits=Limits(requests_at_once=1))
    with TestClient(create_app(chosen), base_url="https://localhost") as client:
        assert client.get("/v1/trust").status_code == 200


def test_a_stranger_is_refused_before_a_byte_of_the_body_is_read(client):
    app, received = client.app, []

    async def scenario() -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            received.append(1)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def send(message: Any) -> None:
            answers.append(message)

        for path in ("contributions", "reports"):
            await app(_scope("PUT", f"/v1/tasks/toy/{path}/{'a' * 32}"), receive, send)
        await app(_scope("POST", "/v1/tasks/toy/search"), receive, send)
        return answers

    answers = asyncio.run(scenario())
    assert [answer["status"] for answer in answers if "status" in answer] == [401, 401, 401]
    assert not received


def _scope(method: str, path: str) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "https",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"consent=packs&until=4000000000",
        "root_path": "",
        "headers": [],
        "server": ("localhost", 443),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
