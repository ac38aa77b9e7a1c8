"""What boards tell about their own state: bounded, checked, of known boards only, and the last ones kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cloud_aug import boards, db, telemetry
from cloud_aug.cli import app
from edgewire.errors import NotFound
from tests.cloud import toys

POINT = {"wall_s": 1.0, "temperature_c": 51.5, "throttled": False, "power_w": None, "power_quality": "none"}


def put(client: Any, bearer: dict[str, str], *, upload: str = "a" * 32, points: Any = (POINT,), **more: Any) -> Any:
    body = json.dumps({"upload_id": upload, "points": list(points), **more})
    return client.put(f"/v1/telemetry/{upload}", content=body, headers=bearer)


def test_what_a_board_tells_is_kept_with_the_servers_own_time(client, cloud, board, bearer, clock) -> None:  # type: ignore[no-untyped-def]
    assert put(client, bearer).json() == {"accepted": 1, "duplicates": 0}
    told = telemetry.last(cloud, board.id)
    assert [one.received_at for one in told] == [clock()]
    assert (told[0].points[0].temperature_c, told[0].points[0].power_w) == (51.5, None)


def test_sent_twice_it_counts_once(client, cloud, board, bearer) -> None:  # type: ignore[no-untyped-def]
    assert put(client, bearer).json() == put(client, bearer).json()
    assert len(telemetry.last(cloud, board.id)) == 1


def test_the_same_id_for_something_else_is_a_conflict(client, bearer, code) -> None:  # type: ignore[no-untyped-def]
    put(client, bearer)
    assert code(put(client, bearer, points=({"wall_s": 2.0},))) == (409, "conflict")


def test_only_the_last_messages_of_a_board_are_kept(client, cloud, board, bearer) -> None:  # type: ignore[no-untyped-def]
    most = cloud.settings.limits.telemetry_per_board
    for n in range(most + 5):
        put(client, bearer, upload=f"{n:032x}", points=({"wall_s": float(n)},))
    told = telemetry.last(cloud, board.id)
    assert [one.points[0].wall_s for one in told] == [float(n) for n in range(5, most + 5)]


def test_one_board_does_not_push_out_anothers(client, cloud, board, bearer, clock) -> None:  # type: ignore[no-untyped-def]
    put(client, bearer)
    other = toys.Board().enroll(client, cloud, now=clock())
    headers = other.headers(client, now=clock())
    for n in range(cloud.settings.limits.telemetry_per_board + 2):
        put(client, headers, upload=f"{n:032x}")
    assert len(telemetry.last(cloud, board.id)) == 1


def test_without_a_token_nothing_is_read(client, code) -> None:  # type: ignore[no-untyped-def]
    assert code(put(client, {})) == (401, "unauthorized")


def test_a_revoked_board_tells_nothing_more(client, cloud, board, bearer, clock, code) -> None:  # type: ignore[no-untyped-def]
    boards.revoke(cloud, board.id, now=clock())
    assert code(put(client, bearer)) == (403, "revoked")


@pytest.mark.parametrize(
    "points",
    [
        [],
        [POINT] * 61,
        [{}],
        [{**POINT, "wall_s": -1.0}],
        [{**POINT, "wall_s": "now"}],
        [{**POINT, "temperature_c": 200.0}],
        [{**POINT, "temperature_c": -256.0}],
        [{**POINT, "power_w": -1}],
        [{**POINT, "power_quality": "guessed"}],
        [{**POINT, "cpu_load": 1.5}],
        [{**POINT, "throttled": 1}],
        "everything",
    ],
)
def test_what_cannot_be_is_refused_and_not_kept(points, client, cloud, board, bearer, code) -> None:  # type: ignore[no-untyped-def]
    assert code(put(client, bearer, points=points)) == (422, "invalid_message")
    assert telemetry.last(cloud, board.id) == []


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b'{"upload_id": 1e999}', b"\xff", b"[" * 10000])
def test_bytes_that_are_no_telemetry_are_refused(body: bytes, client, bearer, code) -> None:  # type: ignore[no-untyped-def]
    answer = client.put(f"/v1/telemetry/{'a' * 32}", content=body, headers=bearer)
    assert code(answer) == (422, "invalid_message")


def test_not_a_number_is_no_temperature(client, bearer, code) -> None:  # type: ignore[no-untyped-def]
    body = '{"upload_id": "' + "a" * 32 + '", "points": [{"wall_s": 1.0, "temperature_c": NaN}]}'
    answer = client.put(f"/v1/telemetry/{'a' * 32}", content=body, headers=bearer)
    assert code(answer) == (422, "invalid_message")


def test_too_much_is_cut_off(client, bearer, code) -> None:  # type: ignore[no-untyped-def]
    assert code(put(client, bearer, points=[{**POINT, "note": "x" * 70_000}])) == (413, "too_large")


def test_the_address_and_the_message_name_the_same_upload(client, bearer, code) -> None:  # type: ignore[no-untyped-def]
    body = json.dumps({"upload_id": "b" * 32, "points": [POINT]})
    answer = client.put(f"/v1/telemetry/{'a' * 32}", content=body, headers=bearer)
    assert code(answer) == (422, "invalid_message")


def test_what_a_newer_board_adds_is_ignored_and_not_kept(client, cloud, board, bearer) -> None:  # type: ignore[no-untyped-def]
    assert put(client, bearer, points=({**POINT, "smell": "burnt"},)).status_code == 200
    with cloud.database.reading() as connection:
        document = connection.execute(sa.select(db.telemetry.c.document)).scalar_one()
    assert b"smell" not in bytes(document)


def test_the_operator_sees_it_by_the_boards_name(client, cloud, data, board, bearer) -> None:  # type: ignore[no-untyped-def]
    put(client, bearer)
    done = CliRunner().invoke(app, ["boards", "telemetry", board.id, "--data", str(data), "--json"])
    assert json.loads(done.stdout)["telemetry"][0]["points"][0]["temperature_c"] == 51.5
    text = CliRunner().invoke(app, ["boards", "telemetry", board.id, "--data", str(data)]).stdout
    assert "51.5" in text
    assert "unknown" in text


def test_a_board_that_is_not_there_is_not_found(cloud) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotFound):
        telemetry.last(cloud, "nobody")
