"""What boards send: queries, contributions, reports."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest

from cloud_aug import census, db, pool, publications
from edgewire import tensors
from edgewire.decoding import encode, plain
from edgewire.messages import Report, SearchMeta, WantedMeta
from edgewire.samples import Samples, from_bytes, make, to_bytes
from tests.cloud import toys
from tests.cloud.toys import FAR, TASK


def queries(cloud: Any, *, k: int = 2, n: int = 3, dim: int = 8, **meta: Any) -> bytes:
    base = publications.require(cloud, "toy").base.onnx.digest
    values = np.random.default_rng(0).normal(size=(n, dim)).astype(np.float32)
    return tensors.pack({"queries": values}, {**plain(SearchMeta("toy", base, k)), **meta})


def search(client: Any, bearer: dict[str, str], body: bytes) -> Any:
    return client.post("/v1/tasks/toy/search", content=body, headers=bearer)


def found_by(answer: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digests, rows and scores of an answer to a search."""
    arrays, meta = tensors.unpack(answer.content, what="answer", limit_bytes=1 << 20)
    assert meta == {"format": "found/1", "task": "toy"}
    return arrays["digests"], arrays["rows"], arrays["scores"]


def fetch(client: Any, bearer: dict[str, str], digests: np.ndarray, *, task: str = "toy") -> Any:
    base = publications.require(client.app.state.cloud, "toy").base.onnx.digest
    body = tensors.pack({"digests": digests}, plain(WantedMeta("wanted/1", task, base)))
    return client.post("/v1/tasks/toy/found", content=body, headers=bearer)


def find(client: Any, bearer: dict[str, str], body: bytes) -> Samples:
    """What a search finds, fetched."""
    answer = fetch(client, bearer, found_by(search(client, bearer, body))[0])
    return from_bytes(answer.content, TASK, what="answer", limit_bytes=1 << 20)


def some(n: int = 4, *, seed: int = 1) -> Samples:
    x = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    return make(x, np.arange(n) % 3, group=np.asarray(["session"] * n), time=np.arange(n, dtype=float))


def contribute(client: Any, bearer: dict[str, str], body: bytes, *, upload: str = "a" * 32, until: float = FAR) -> Any:
    address = f"/v1/tasks/toy/contributions/{upload}?consent=packs&until={until}"
    return client.put(address, content=body, headers=bearer)


def report(upload: str = "c" * 32, **changes: Any) -> bytes:
    told = Report(upload, "toy", "0" * 64, "directory", "auto", "mpda", 9, 20, 5, None, 1.5)
    return encode({**plain(told), **changes})


def test_search_gives_samples_of_every_class_under_pseudonyms(client, cloud, bearer):
    found = find(client, bearer, queries(cloud))
    assert set(found.y.tolist()) == {0, 1, 2}
    assert len(found) <= 3 * 2 * 3
    assert not any("person" in str(user) for user in found.user)


@pytest.fixture
def bits_too(cloud, clock):
    """The task allows mode bits, and its index was built for it."""
    from cloud_aug import index

    toys.publish_changed(cloud, modes=["directory", "bits"])
    index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)


def bit_queries(cloud: Any, *, k: int = 2, width: int = 1) -> bytes:
    base = publications.require(cloud, "toy").base.onnx.digest
    return tensors.pack({"bits": np.zeros((3, width), np.uint8)}, plain(SearchMeta("toy", base, k)))


def test_search_by_bits_gives_samples_of_every_class_and_never_the_boards_own(
    client, cloud, board, bearer, clock, bits_too
):
    from cloud_aug import index

    contribute(client, bearer, to_bytes(some(6), "toy"))
    pool.accept(cloud, "toy", board.id, now=clock())
    index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
    found = find(client, bearer, bit_queries(cloud, k=100))
    assert len(found) == 108
    assert not {row.tobytes() for row in some(6).x} & {row.tobytes() for row in found.x}


def test_embeddings_are_refused_where_only_bits_are_allowed(client, cloud, bearer, code, bits_too):
    assert code(search(client, bearer, queries(cloud))) == (403, "not_granted")
    assert code(search(client, bearer, bit_queries(cloud, width=2))) == (422, "invalid_message")


def test_bits_are_not_searched_before_an_index_was_built_for_them(client, cloud, bearer, code):
    toys.publish_changed(cloud, modes=["bits"])
    assert code(search(client, bearer, bit_queries(cloud))) == (503, "not_ready")


def test_search_gives_each_sample_once_and_the_same_answer_twice(client, cloud, bearer):
    body = queries(cloud, k=100)
    first = search(client, bearer, body)
    found = find(client, bearer, body)
    assert len(np.unique(found.x, axis=0)) == len(found) == 108
    assert search(client, bearer, body).content == first.content


def test_search_never_finds_the_boards_own_contributions(client, cloud, board, bearer, clock):
    from cloud_aug import index

    body = to_bytes(some(6), "toy")
    assert contribute(client, bearer, body).json() == {"accepted": 6, "duplicates": 0}
    pool.accept(cloud, "toy", board.id, now=clock())
    index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
    mine = {row.tobytes() for row in some(6).x}
    found = find(client, bearer, queries(cloud, k=100))
    assert len(found) == 108
    assert not mine & {row.tobytes() for row in found.x}
    other = toys.Board().enroll(client, cloud, now=clock()).headers(client, now=clock())
    seen = find(client, other, queries(cloud, k=100))
    assert mine <= {row.tobytes() for row in seen.x}


def test_a_search_that_would_keep_the_server_busy_for_long_is_refused(client, cloud, bearer, code):
    assert search(client, bearer, queries(cloud, k=100, n=3000)).status_code == 200
    assert code(search(client, bearer, queries(cloud, k=100, n=4000))) == (413, "too_large")


def test_search_leaves_out_samples_whose_consent_has_ended_since(client, cloud, bearer, clock):
    with cloud.database.writing() as connection:
        connection.execute(db.contributors.update().values(consent_until=clock() - 1))
    digests, rows, scores = found_by(search(client, bearer, queries(cloud)))
    assert (len(digests), rows.max(), scores.max()) == (0, -1, 0.0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"dim": 5}, (422, "invalid_message")),
        ({"n": 0}, (422, "invalid_message")),
        ({"k": 0}, (422, "invalid_message")),
        ({"k": 101}, (422, "invalid_message")),
        ({"k": 1_000_000}, (422, "invalid_message")),
        ({"task": "other"}, (422, "invalid_message")),
        ({"base": "0" * 64}, (409, "conflict")),
    ],
)
def test_queries_that_do_not_fit_are_refused(client, cloud, bearer, code, change, expected):
    assert code(search(client, bearer, queries(cloud, **change))) == expected


def test_queries_that_are_not_finite_are_refused(client, cloud, bearer, code):
    base = publications.require(cloud, "toy").base.onnx.digest
    body = tensors.pack({"queries": np.full((1, 8), np.nan, np.float32)}, plain(SearchMeta("toy", base, 1)))
    assert code(search(client, bearer, body)) == (422, "invalid_message")


@pytest.mark.parametrize("body", [b"", b"junk", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "])
def test_bytes_that_are_no_tensors_are_refused(client, bearer, code, body):
    assert code(search(client, bearer, body)) == (422, "invalid_message")
    assert code(contribute(client, bearer, body)) == (422, "invalid_message")


def test_search_is_refused_where_the_task_does_not_allow_it(client, cloud, bearer, code):
    toys.publish_changed(cloud, modes=["directory"])
    assert code(search(client, bearer, queries(cloud))) == (403, "not_granted")


def test_a_contribution_waits_in_quarantine(client, cloud, board, bearer, clock):
    assert contribute(client, bearer, to_bytes(some(), "toy")).json() == {"accepted": 4, "duplicates": 0}
    stats = census.stats(cloud, "toy", now=clock())
    assert (stats.quarantine, stats.usable) == (4, 108)
    assert pool.accept(cloud, "toy", board.id, now=clock()) == 4
    assert census.stats(cloud, "toy", now=clock()).usable == 112


def test_a_contribution_sent_twice_is_stored_once_and_answered_alike(client, cloud, bearer, clock):
    body = to_bytes(some(), "toy")
    first, again = contribute(client, bearer, body), contribute(client, bearer, body)
    assert first.content == again.content
    assert census.stats(cloud, "toy", now=clock()).quarantine == 4


def test_samples_sent_under_another_id_are_duplicates(client, bearer):
    contribute(client, bearer, to_bytes(some(), "toy"))
    answer = contribute(client, bearer, to_bytes(some(), "toy"), upload="b" * 32)
    assert answer.json() == {"accepted": 0, "duplicates": 4}


def test_an_upload_id_used_for_something_else_is_a_conflict(client, bearer, code):
    contribute(client, bearer, to_bytes(some(), "toy"))
    assert code(contribute(client, bearer, to_bytes(some(seed=2), "toy"))) == (409, "conflict")


def test_two_boards_may_use_the_same_upload_id(client, cloud, bearer, clock):
    other = toys.Board().enroll(client, cloud, now=clock()).headers(client, now=clock())
    body = to_bytes(some(), "toy")
    assert contribute(client, bearer, body).json() == contribute(client, other, body).json()


@pytest.mark.parametrize(
    "samples",
    [
        make(np.zeros((2, 3), np.float32), np.zeros(2, int)),
        make(np.zeros((2, 2), np.float64), np.zeros(2, int)),
        make(np.full((2, 2), np.nan, np.float32), np.zeros(2, int)),
        make(np.zeros((2, 2), np.float32), np.full(2, 7)),
        make(np.zeros((2, 2), np.float32)),
        make(np.zeros((0, 2), np.float32)),
    ],
    ids=["shape", "dtype", "nan", "label", "unlabelled", "empty"],
)
def test_samples_that_do_not_fit_the_task_are_refused_and_leave_nothing(client, cloud, bearer, clock, code, samples):
    assert code(contribute(client, bearer, to_bytes(samples, "toy"))) == (422, "invalid_samples")
    assert census.stats(cloud, "toy", now=clock()).quarantine == 0


def test_samples_of_another_task_are_refused(client, bearer, code):
    assert code(contribute(client, bearer, to_bytes(some(), "other"))) == (422, "invalid_message")


@pytest.mark.parametrize(
    "question", ["", "?consent=packs", "?consent=all&until=4e9", "?consent=packs&until=1", "?consent=packs&until=nan"]
)
def test_nothing_is_stored_without_a_consent_that_holds(client, cloud, bearer, clock, question):
    address = f"/v1/tasks/toy/contributions/{'d' * 32}{question}"
    assert client.put(address, content=to_bytes(some(), "toy"), headers=bearer).status_code in (400, 422)
    assert census.stats(cloud, "toy", now=clock()).quarantine == 0


def test_a_board_cannot_fill_the_quarantine(data, clock, code):
    from dataclasses import replace

    from starlette.testclient import TestClient

    from cloud_aug import settings
    from cloud_aug.app import create_app

    chosen = replace(settings.load(data), limits=settings.Limits(quarantined_samples_per_board=5))
    with TestClient(create_app(chosen, clock=clock), base_url="https://localhost") as client:
        board = toys.Board().enroll(client, client.app.state.cloud, now=clock())
        headers = board.headers(client, now=clock())
        assert contribute(client, headers, to_bytes(some(), "toy")).status_code == 200
        answer = contribute(client, headers, to_bytes(some(seed=5), "toy"), upload=secrets.token_hex(16))
        assert code(answer) == (413, "too_large")


def test_a_report_is_kept_once(client, cloud, bearer):
    for _ in range(2):
        answer = client.put(f"/v1/tasks/toy/reports/{'c' * 32}", content=report(), headers=bearer)
        assert answer.json() == {"accepted": 1, "duplicates": 0}
    with cloud.database.reading() as connection:
        assert len(connection.execute(db.reports.select()).all()) == 1


@pytest.mark.parametrize(
    "change", [{"mode": "psychic"}, {"samples": -1}, {"task": "other"}, {"upload_id": "e" * 32}, {"seconds": "x"}]
)
def test_a_report_outside_its_schema_is_refused(client, bearer, code, change):
    answer = client.put(f"/v1/tasks/toy/reports/{'c' * 32}", content=report(**change), headers=bearer)
    assert code(answer) == (422, "invalid_message")


def test_a_task_without_reports_refuses_them(client, cloud, bearer, code):
    toys.publish_changed(cloud, reports=False)
    answer = client.put(f"/v1/tasks/toy/reports/{'c' * 32}", content=report(), headers=bearer)
    assert code(answer) == (403, "refused")
