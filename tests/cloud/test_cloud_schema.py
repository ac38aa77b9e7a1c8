"""Requests made up from the OpenAPI document, valid and broken ones: whatever comes, no answer is a 500."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as effort
from starlette.testclient import TestClient

from cloud_aug import auth
from tests.cloud import toys

EXAMPLES = 12
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]


def operations() -> list[tuple[str, str]]:
    """Every operation of the document, without a data folder: routes are known before anything is opened."""
    from fastapi import FastAPI

    from cloud_aug import openapi
    from cloud_aug.routes import admin, content, enrolment, exchange, health, releasing, rounds

    app = FastAPI(openapi_url=None)
    for routes in (health, enrolment, content, exchange, rounds, releasing, admin):
        app.include_router(routes.router)
    paths = openapi.document(app)["paths"]
    return sorted((path, method) for path, item in paths.items() for method in item)


@pytest.fixture
def schema(client: TestClient) -> Any:
    return schemathesis.openapi.from_dict(client.get("/openapi.json").json())


@pytest.mark.parametrize(("path", "method"), operations())
def test_nothing_that_the_document_lets_come_makes_the_server_fail(client, cloud, bearer, clock, schema, path, method):
    administrator = auth.make_administrator(cloud, "tester", now=clock(), valid_for_s=3600)
    who = [{}, bearer, {"Authorization": f"Bearer {administrator}"}]
    operation = schema[path][method.upper()]
    broken = [schemathesis.GenerationMode.NEGATIVE] if path.startswith("/v1/") else []  # others take nothing to break

    def send(case: Any) -> None:
        arguments = case.as_transport_kwargs(base_url="https://localhost")
        headers = dict(arguments.pop("headers", None) or {})
        arguments.pop("cookies", None)  # nothing here reads any
        for credentials in who:
            answer = client.request(**{**arguments, "headers": {**headers, **credentials}})
            assert answer.status_code < 500 or answer.status_code == 503, (answer.status_code, answer.text)
            if answer.status_code >= 400:
                assert answer.json()["error"]["code"]

    for mode in (schemathesis.GenerationMode.POSITIVE, *broken):
        made = operation.as_strategy(generation_mode=mode)
        run = effort(
            max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=QUIET, phases=[Phase.generate]
        )(seed(7)(given(made)(send)))
        run()


@pytest.mark.parametrize("odd", ["\x00", "ä\u202e", "😀" * 300, "..", "%00", "a" * 5000])
def test_odd_names_are_refused_or_taken_but_break_nothing(client, cloud, bearer, clock, odd):
    board = toys.Board()
    enrolment = board.enrolment(auth.make_enrolment_token(cloud, ["toy"], now=clock(), valid_for_s=60), now=clock())
    assert client.post("/v1/enroll", content=enrolment + odd.encode()).status_code < 500
    name = quote(odd, safe="")
    for path in (f"/v1/blobs/{name}", f"/v1/tasks/{name}/manifest", f"/v1/trust?after={name}"):
        assert client.get(path, headers=bearer).status_code < 500
