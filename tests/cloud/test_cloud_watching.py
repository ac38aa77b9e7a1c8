"""What an operator sees: request ids, logs, metrics, and the dashboard that shows them."""

from __future__ import annotations

import json
import logging
import re
import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from cloud_aug import auth, logs, rates, settings
from cloud_aug.addresses import network
from cloud_aug.app import create_app
from cloud_aug.settings import Limits
from tests.cloud import toys

BACKENDS = ("files",)
DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"


def watching(cloud, clock, *, metrics_only: bool = True) -> dict[str, str]:
    secret = auth.make_administrator(cloud, "prometheus", metrics_only=metrics_only, now=clock(), valid_for_s=600)
    return {"Authorization": f"Bearer {secret}"}


def test_every_answer_has_a_request_id_and_errors_say_it(client):
    answer = client.get("/v1/blobs/xyz")
    assert re.fullmatch("[0-9a-f]{12}", answer.headers["x-request-id"])
    assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]
    assert client.get("/healthz").headers["x-request-id"] != answer.headers["x-request-id"]


@pytest.mark.parametrize(("sent", "taken"), [("from-proxy.7", True), ("a b", False), ("x" * 65, False), ('"}', False)])
def test_a_request_id_of_a_proxy_is_taken_if_it_is_one(client, sent, taken):
    assert (client.get("/healthz", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent) is taken


def test_a_failure_that_nobody_foresaw_has_an_id_in_the_answer_and_beside_its_trace(client, monkeypatch, caplog):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("of the inside")

    monkeypatch.setattr("cloud_aug.routes.health.keys.pseudonym_secret", fail)
    lines: list[str] = []
    monkeypatch.setattr(caplog.handler, "emit", lambda record: lines.append(logs._Json().format(record)))
    answer = client.get("/readyz", headers={"X-Request-ID": "r1"})
    assert (answer.status_code, answer.json()["error"]["request_id"]) == (500, "r1")
    assert (answer.headers["x-request-id"], "edge-time" in answer.headers) == ("r1", True)
    assert "of the inside" not in answer.text
    traced = [json.loads(line) for line in lines if "of the inside" in line]
    assert {line["request_id"] for line in traced} == {"r1"}


def test_a_request_that_is_refused_at_the_door_has_an_id_too(data):
    app = create_app(replace(settings.load(data), limits=Limits(requests_at_once=1)))
    with TestClient(app, base_url="https://localhost") as client:
        refused = client.get("/v1/trust", headers={"Edge-Wire": "99"})
    assert refused.json()["error"]["request_id"] == refused.headers["x-request-id"]


def test_a_line_of_the_log_is_json_with_the_request_and_without_addresses(client, caplog):
    caplog.set_level(logging.INFO, "cloud_aug.requests")
    client.get(f"/v1/blobs/{'a' * 64}", headers={"X-Request-ID": "r1", "Authorization": "Bearer hidden"})
    record = next(record for record in caplog.records if record.name == "cloud_aug.requests")
    token = logs.request_id.set("r1")
    line = json.loads(logs._Json().format(record))
    logs.request_id.reset(token)
    told = (line["route"], line["status"], line["request_id"], line["level"])
    assert told == ("/v1/blobs/{digest}", 401, "r1", "info")
    assert {"at", "ms", "bytes", "method"} <= set(line)
    assert not {"hidden", "a" * 64} & set(re.findall(r"\w+", json.dumps(line)))


def test_the_server_logs_json_lines_and_every_request_where_asked(data):
    with toys.serving(data, "--access-log") as server:
        from cloud_aug.cloud import open_cloud
        from tests.cloud.test_cloud_serve import connect

        with connect(server.url, open_cloud(data).trust().authorities) as client:
            assert client.get("/healthz", headers={"X-Request-ID": "seen"}).status_code == 200
    lines = [json.loads(line) for line in server.lines]
    assert any(line.get("request_id") == "seen" and line["route"] == "/healthz" for line in lines)


def test_metrics_need_a_credential_of_their_own_or_an_administrators(client, cloud, board, bearer, clock, code):
    assert code(client.get("/metrics")) == (401, "unauthorized")
    assert code(client.get("/metrics", headers=bearer)) == (401, "unauthorized")
    for metrics_only in (True, False):
        assert client.get("/metrics", headers=watching(cloud, clock, metrics_only=metrics_only)).status_code == 200


def test_a_credential_for_metrics_opens_nothing_else(client, cloud, clock, code):
    headers = watching(cloud, clock)
    assert code(client.get("/v1/admin/boards", headers=headers)) == (401, "unauthorized")
    assert code(client.get("/v1/tasks/toy/manifest", headers=headers)) == (401, "unauthorized")


def test_the_metrics_tell_of_requests_pool_and_publication_and_of_nobody(client, cloud, board, bearer, clock):
    client.get("/v1/tasks/toy/manifest", headers=bearer)
    client.get("/nowhere/else")
    text = client.get("/metrics", headers=watching(cloud, clock)).text
    for line in (
        'cloud_pool_samples{status="usable",task="toy"} 108.0',
        'cloud_pool_contributors{task="toy"} 6.0',
        'cloud_publication_version{task="toy"} 1.0',
        'cloud_publication_build_seconds{task="toy"}',
        "cloud_database_up 1.0",
        'cloud_requests_total{method="GET",route="/v1/tasks/{task}/manifest",status="200"}',
        'cloud_requests_total{method="other",route="other",status="404"}',
    ):
        assert any(told.startswith(line) for told in text.splitlines()), line
    assert board.id not in text
    assert "nowhere" not in text


def test_methods_that_strangers_make_up_are_counted_as_one(client, cloud, clock):
    for number in range(5):
        assert client.request(f"MADEUP{number}", "/healthz").status_code == 405
    text = client.get("/metrics", headers=watching(cloud, clock)).text
    assert "MADEUP" not in text
    assert 'cloud_requests_total{method="other",route="/healthz",status="405"}' in text


def test_a_board_that_hangs_up_while_it_sends_is_no_failure_of_the_service(data):
    from cloud_aug.cloud import open_cloud
    from tests.cloud.test_cloud_serve import connect, shaken

    made = open_cloud(data)
    authorities = made.trust().authorities
    with toys.serving(data, "--access-log") as server, connect(server.url, authorities) as client:
        board = toys.Board().enroll(client, made, now=time.time())
        token = board.headers(client, now=time.time())["Authorization"]
        path = f"/v1/tasks/toy/contributions/{'a' * 32}?consent=packs&until=4e9"
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\nContent-Length: 9999\r\n\r\n"
        context = ssl.create_default_context(cadata="\n".join(authorities))
        with shaken(server.port, context) as connection:
            connection.sendall(head.encode() + b"x" * 99)
        while not (cut := [line for line in server.lines if "contributions" in line]):
            assert client.get("/healthz").status_code == 200
    assert json.loads(cut[0])["status"] == 499
    assert "Traceback" not in "".join(server.lines)


def test_a_board_that_asks_too_often_is_told_when_to_come_back(data, clock, code):
    clock.now = 1_900_000_040.0  # a third into a minute
    app = create_app(replace(settings.load(data), limits=Limits(requests_per_board_per_minute=3)), clock=clock)
    with TestClient(app, base_url="https://localhost") as client:
        board = toys.Board().enroll(client, app.state.cloud, now=clock())
        other = toys.Board().enroll(client, app.state.cloud, now=clock())
        headers = board.headers(client, now=clock())
        answers = [client.get("/v1/tasks/toy/manifest", headers=headers) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert (code(answers[3]), answers[3].headers["retry-after"]) == ((429, "rate_limited"), "40")
        mine = other.headers(client, now=clock())
        assert client.get("/v1/tasks/toy/manifest", headers=mine).status_code == 200
        clock.now += 40
        assert client.get("/v1/tasks/toy/manifest", headers=headers).status_code == 200


def test_an_address_without_a_valid_token_may_ask_so_often_and_boards_of_that_address_go_on(data, clock, code):
    app = create_app(replace(settings.load(data), limits=Limits(requests_per_address_per_minute=4)), clock=clock)
    with TestClient(app, base_url="https://localhost") as client:
        headers = toys.Board().enroll(client, app.state.cloud, now=clock()).headers(client, now=clock())
        assert client.get("/v1/trust").status_code == 200
        assert code(client.get("/v1/tasks/toy/manifest", headers={"Authorization": "Bearer x"})) == (
            401,
            "unauthorized",
        )
        for path in ("/v1/trust", "/v1/tasks/toy/manifest", "/metrics", "/v1/admin/boards"):
            refused = client.get(path, headers={"Authorization": "Bearer guessed"})
            assert (code(refused), int(refused.headers["retry-after"]) <= 60) == ((429, "rate_limited"), True)
        assert code(client.post("/v1/enroll", content=b"{}")) == (429, "rate_limited")
        assert client.get("/v1/tasks/toy/manifest", headers=headers).status_code == 200
        clock.now += 60
        assert client.get("/v1/trust").status_code == 200


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("somebody", "unknown"),
    ],
)
def test_an_address_belongs_to_one_caller_however_it_comes(address, whose):
    assert network(address) == whose


def test_counters_of_the_minute_before_are_forgotten_and_addresses_beyond_a_number_share_one(cloud, monkeypatch):
    monkeypatch.setattr(rates, "ADDRESSES", 2)
    made = rates.Rates(cloud)
    made.spend("b0", now=60.0)
    for address in ("10.0.0.1", "2001:db8::1", "2001:db8::2", "10.0.0.3", "10.0.0.4"):
        made.spend_stranger(address, now=60.0)

    def counted() -> dict[str, int]:
        with made._engine.begin() as connection:
            return dict(connection.exec_driver_sql("SELECT who, count FROM rates").all())

    assert counted() == {"b0": 1, "address 10.0.0.1": 1, "address 2001:db8::/64": 2, "address others": 2}
    made.spend("b1", now=121.0)
    assert counted() == {"b1": 1}
    made.close()


def test_requests_go_on_where_they_cannot_be_counted(client, cloud, bearer, monkeypatch):
    import sqlalchemy as sa

    def fail(*_: object) -> int:
        raise sa.exc.OperationalError("", None, Exception("disk full"))

    monkeypatch.setattr(client.app.state.rates, "_counted", fail)
    assert client.get("/v1/tasks/toy/manifest", headers=bearer).status_code == 200


def test_every_metric_that_the_dashboard_shows_exists(client, cloud, clock, bearer):
    client.get("/v1/tasks/toy/manifest", headers=bearer)
    text = client.get("/metrics", headers=watching(cloud, clock)).text
    known = set(re.findall(r"^([a-z_0-9]+)(?:\{| )", text, re.M)) | set(re.findall(r"^# TYPE (\S+)", text, re.M))
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked = {name for query in queries for name in re.findall(r"\bcloud_[a-z_0-9]+", query)}
    assert len(queries) >= 10
    assert asked <= known, asked - known
    timed = [query for query in queries if "cloud_request_seconds_bucket" in query]
    assert all('route!="/live"' in query for query in timed), "pages are open for hours, and are not slow"


def test_a_board_waits_as_told_and_a_little_longer_each_its_own_while(tmp_path):
    from edgectl.cloud import HttpCloud
    from edgewire.errors import RetryLater

    (tmp_path / "ca.pem").write_text("\n".join(toys.empty(tmp_path / "cloud").trust().authorities))
    cloud = HttpCloud("https://localhost:1", ca_bundle=tmp_path / "ca.pem")
    pauses = [cloud._pause_s(RetryLater("busy", retry_after_s=10), 1) for _ in range(50)]
    assert all(pause is not None and 10 <= pause <= 15 for pause in pauses)
    assert len(set(pauses)) > 40
    assert cloud._pause_s(RetryLater("busy", retry_after_s=600), 1) is None, "longer than a run waits"
