"""Who gets in, and who does not."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_aug import auth, boards, tasks
from cloud_aug.boards import Selection
from edgewire.errors import NotFound
from edgewire.messages import TASKS_HEADER, AccessRequest, tasks_digest
from edgewire.signing import SigningKey
from edgewire.tasks import Task
from tests.cloud.toys import TASK, Board


def manifest(client: Any, headers: dict[str, str], task: str = "toy") -> Any:
    return client.get(f"/v1/tasks/{task}/manifest", headers=headers)


def test_an_enrolled_board_gets_its_task_and_the_chain_of_trust(board, cloud):
    assert board.id.startswith("b")
    assert len(board.trust) == 1
    assert boards.list_all(cloud)[0].tasks == ("toy",)


def test_the_same_key_and_token_again_get_the_same_answer(client, cloud, clock):
    board = Board()
    token = auth.make_enrolment_token(cloud, ["toy"], now=clock(), valid_for_s=60)
    first = client.post("/v1/enroll", content=board.enrolment(token, now=clock()))
    clock.now += 100  # the token has expired meanwhile, but it is this board's
    again = client.post("/v1/enroll", content=board.enrolment(token, now=clock()))
    assert (again.status_code, again.content) == (200, first.content)


def test_a_token_shown_again_does_not_bring_back_a_task_that_was_recalled(client, cloud, clock, code):
    board = Board()
    token = auth.make_enrolment_token(cloud, ["toy"], now=clock(), valid_for_s=60)
    board.id = client.post("/v1/enroll", content=board.enrolment(token, now=clock())).json()["board"]
    boards.recall(cloud, "toy", Selection((board.id,)), now=clock())
    again = client.post("/v1/enroll", content=board.enrolment(token, now=clock()))
    assert (again.status_code, again.json()["tasks"]) == (200, [])
    assert code(manifest(client, board.headers(client, now=clock()))) == (403, "not_granted")


def test_a_used_token_does_not_let_another_board_in(client, cloud, clock, code):
    token = auth.make_enrolment_token(cloud, ["toy"], now=clock(), valid_for_s=60)
    client.post("/v1/enroll", content=Board().enrolment(token, now=clock()))
    answer = client.post("/v1/enroll", content=Board().enrolment(token, now=clock()))
    assert code(answer) == (401, "token_refused")
    assert len(boards.list_all(cloud)) == 1


def test_an_expired_or_unknown_token_is_refused(client, cloud, clock, code):
    token = auth.make_enrolment_token(cloud, ["toy"], now=clock(), valid_for_s=60)
    clock.now += 61
    for secret in (token, "x" * 32):
        answer = client.post("/v1/enroll", content=Board().enrolment(secret, now=clock()))
        assert code(answer) == (401, "token_refused")


def test_an_enrolment_signed_by_another_key_is_forged(client, clock, code):
    board = Board()
    mine = board.enrolment("x" * 32, now=clock())
    board.key = SigningKey.generate()
    other = board.enrolment("x" * 32, now=clock())
    mixed = mine.split(b'"signature":"')[0] + b'"signature":"' + other.split(b'"signature":"')[1]
    assert code(client.post("/v1/enroll", content=mixed)) == (401, "forged")


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[1]", b'{"payload": 3}', b"\xff\xfe", b'{"payload":"","key_id":"","signature":""}']
)
def test_malformed_requests_for_access_are_refused_with_a_code(client, raw, code):
    status, found = code(client.post("/v1/access", content=raw))
    assert (status, found) in {(422, "invalid_message"), (401, "forged")}


def test_a_request_for_access_works_once(client, board, clock, code):
    raw = board.access(now=clock())
    assert client.post("/v1/access", content=raw).status_code == 200
    assert code(client.post("/v1/access", content=raw)) == (401, "replayed")


def test_a_nonce_works_once_even_under_a_new_signature(client, board, clock, code):
    client.post("/v1/access", content=board.access(now=clock(), nonce="0" * 32))
    clock.now += 1
    assert code(client.post("/v1/access", content=board.access(now=clock(), nonce="0" * 32))) == (401, "replayed")


def test_an_old_request_for_access_has_expired(client, board, clock, code):
    raw = board.access(now=clock())
    clock.now += 1000
    assert code(client.post("/v1/access", content=raw)) == (401, "expired")


def test_a_request_that_would_live_for_an_hour_is_refused(client, board, clock, code):
    raw = board.statement("access", AccessRequest(board.id, "1" * 32), now=clock(), lifetime_s=3600)
    assert code(client.post("/v1/access", content=raw)) == (401, "expired")


def test_a_board_whose_clock_is_ahead_is_told_so(client, board, clock, code):
    assert code(client.post("/v1/access", content=board.access(now=clock() + 4000))) == (401, "wrong_clock")


def test_every_answer_carries_the_servers_clock(client, clock):
    assert client.get("/healthz").headers["Edge-Time"] == str(int(clock()))
    assert client.get("/nowhere").headers["Edge-Time"] == str(int(clock()))


def test_an_unknown_board_gets_no_access(client, clock, code):
    stranger = Board(id="b" + "0" * 16)
    assert code(client.post("/v1/access", content=stranger.access(now=clock()))) == (401, "unauthorized")


def test_a_revoked_board_is_out_at_its_next_request(client, cloud, board, bearer, clock, code):
    assert manifest(client, bearer).status_code == 200
    assert boards.revoke(cloud, board.id, now=clock())
    assert code(manifest(client, bearer)) == (403, "revoked")
    assert code(client.post("/v1/access", content=board.access(now=clock()))) == (403, "revoked")


def test_a_new_token_does_not_bring_a_revoked_key_back(client, cloud, board, clock, code):
    boards.revoke(cloud, board.id, now=clock())
    token = auth.make_enrolment_token(cloud, ["toy"], now=clock(), valid_for_s=60)
    assert code(client.post("/v1/enroll", content=board.enrolment(token, now=clock()))) == (403, "revoked")


def test_revoking_twice_changes_nothing(cloud, board, clock):
    assert boards.revoke(cloud, board.id, now=clock())
    assert not boards.revoke(cloud, board.id, now=clock())


def test_a_task_that_is_not_granted_is_refused(client, cloud, bearer, clock, code):
    tasks.publish(cloud, Task(**{**TASK.__dict__, "id": "other"}), now=clock())
    assert code(manifest(client, bearer, "other")) == (403, "not_granted")
    assert code(manifest(client, bearer, "no-such-task")) == (403, "not_granted")


def test_a_grant_counts_from_the_next_access_token_on(client, cloud, board, clock, code):
    tasks.publish(cloud, Task(**{**TASK.__dict__, "id": "other"}), now=clock())
    assert boards.grant(cloud, board.id, "other", now=clock())
    assert not boards.grant(cloud, board.id, "other", now=clock())
    assert code(manifest(client, board.headers(client, now=clock()), "other")) == (503, "not_ready")


def test_a_task_is_pushed_to_the_boards_that_are_meant_and_taken_from_them_again(client, cloud, board, clock):
    tasks.publish(cloud, Task(**{**TASK.__dict__, "id": "other"}), now=clock())
    known = boards.list_all(cloud)[0]
    for selection in (Selection(names=(known.name[:2] + "*",)), Selection((board.id,), (known.profile,))):
        assert boards.push(cloud, "other", selection, now=clock())[0] == 1
    assert boards.list_all(cloud)[0].tasks == ("other", "toy")
    assert boards.push(cloud, "other", Selection(("*",)), now=clock()) == (1, 0)
    assert boards.recall(cloud, "other", Selection(("*",)), now=clock()) == (1, 1)
    assert boards.list_all(cloud)[0].tasks == ("toy",)


@pytest.mark.parametrize("selection", [Selection(), Selection(("nobody",)), Selection(("*",), ("no-such-profile",))])
def test_a_push_that_reaches_nobody_is_refused(cloud, board, client, clock, selection):
    board.headers(client, now=clock())
    with pytest.raises(NotFound, match="no board is meant"):
        boards.push(cloud, "toy", selection, now=clock())


def test_every_answer_to_a_board_tells_what_it_is_granted(client, cloud, board, clock):
    tasks.publish(cloud, Task(**{**TASK.__dict__, "id": "other"}), now=clock())
    bearer = board.headers(client, now=clock())
    assert manifest(client, bearer).headers[TASKS_HEADER] == tasks_digest(["toy"])
    boards.grant(cloud, board.id, "other", now=clock())
    assert manifest(client, bearer).headers[TASKS_HEADER] == tasks_digest(["other", "toy"])
    assert TASKS_HEADER not in client.get("/healthz").headers


def test_an_access_token_lasts_ten_minutes(client, bearer, clock, code):
    clock.now += 599
    assert manifest(client, bearer).status_code == 200
    clock.now += 2
    assert code(manifest(client, bearer)) == (401, "unauthorized")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong"])
def test_without_a_valid_token_nothing_is_given(client, header, code):
    assert code(manifest(client, {"Authorization": header})) == (401, "unauthorized")


def test_secrets_are_stored_only_as_hashes(cloud, client, board, clock, data):
    secret = auth.make_administrator(cloud, "ann", now=clock(), valid_for_s=60)
    token = board.headers(client, now=clock())["Authorization"].split()[1]
    stored = b"".join(path.read_bytes() for path in data.glob("cloud.sqlite3*"))
    assert secret.encode() not in stored
    assert token.encode() not in stored


def test_administration_needs_an_administrators_credential(client, cloud, board, bearer, clock, code):
    assert code(client.get("/v1/admin/boards", headers=bearer)) == (401, "unauthorized")
    secret = auth.make_administrator(cloud, "ann", now=clock(), valid_for_s=60)
    admin = {"Authorization": f"Bearer {secret}"}
    assert client.get("/v1/admin/boards", headers=admin).json()["boards"][0]["board"] == board.id
    assert client.post(f"/v1/admin/boards/{board.id}/revoke", headers=admin).json() == {"changed": True}
    clock.now += 61
    assert code(client.get("/v1/admin/boards", headers=admin)) == (401, "unauthorized")
