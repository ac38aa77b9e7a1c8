"""What a search is made of: the roster, what is remembered of consents, ranking, and fetching what was found."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_aug import batches, changes, index, living, pool, ranking, roster, withdrawals
from cloud_aug.cloud import Cloud
from cloud_aug.living import Living
from cloud_aug.roster import Roster
from edgewire.errors import CorruptFile
from edgewire.samples import sample_digests, to_bytes
from tests.cloud import toys
from tests.cloud.test_cloud_exchange import contribute, fetch, find, found_by, queries, search, some
from tests.cloud.toys import FAR, TASK

NAMES = ("ann", "bob", "eve")


def digests(n: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 32)).astype(np.uint8)


def a_roster(folder: Path, *, classes: int = 2, people: tuple[int, ...] = (0, 0, 2, 2, 2)) -> Roster:
    files = []
    for label in range(classes):
        ids = np.arange(len(people)) + 1000 * label
        files.append(folder / str(label))
        files[-1].write_bytes(roster.to_bytes(ids, np.asarray(people, int), digests(len(people), seed=label)))
    return Roster(NAMES, files)


def test_a_roster_knows_whose_entries_are_whose_in_every_class(tmp_path):
    held = a_roster(tmp_path)
    assert [rows.tolist() for rows in held.own("eve")] == [[2, 3, 4], [2, 3, 4]]
    assert [rows.tolist() for rows in held.own("bob")] == [[], []]
    assert [rows.tolist() for rows in held.own("somebody")] == [[], []]
    assert held.entries(np.asarray([9, 0]))["id"].tolist() == [1004, 0]


def test_a_roster_finds_rows_by_digest_in_the_order_asked_and_leaves_out_what_it_does_not_know(tmp_path):
    held = a_roster(tmp_path)
    wanted = np.concatenate([digests(5, seed=1)[[3]], digests(1, seed=9), digests(5)[[0, 4]]])
    assert held.find(wanted).tolist() == [8, 0, 4]
    assert held.find(np.zeros((0, 32), np.uint8)).tolist() == []


def test_a_class_without_samples_has_an_empty_roster(tmp_path):
    held = a_roster(tmp_path, people=())
    assert held.find(digests(3)).tolist() == []
    assert [rows.tolist() for rows in held.own("ann")] == [[], []]


def test_a_damaged_roster_is_refused(tmp_path):
    a_roster(tmp_path)
    (tmp_path / "0").write_bytes((tmp_path / "0").read_bytes()[:-3])
    with pytest.raises(CorruptFile, match="build the index again"):
        Roster(NAMES, [tmp_path / "0"])


def test_of_equal_digests_the_first_counts():
    made = digests(4)
    assert roster.first_of_equal(made[[2, 0, 2, 3, 0]]).tolist() == [0, 1, 3]
    same_head = made[[0, 0]].copy()
    same_head[1, 31] ^= 1
    assert roster.first_of_equal(same_head).tolist() == [0, 1]


def test_the_nearest_of_every_query_come_first_and_rows_point_at_their_digests():
    entries = np.zeros(6, roster.ENTRY)
    entries["id"], entries["person"], entries["digest"] = np.arange(6), np.arange(6), digests(6)
    scores = np.asarray([[[0.5, 0.4]], [[0.9, 0.1]]], np.float32)
    found = ranking.rank(
        scores,
        np.asarray([[[3, 4]], [[5, -1]]]),
        entries=lambda rows: entries[rows],
        usable=lambda ids: ids != 4,
        most=10,
    )
    assert np.array_equal(found.digests, digests(6)[[5, 3]])
    assert found.rows.tolist() == [[[1, -1]], [[0, -1]]]
    assert found.scores.tolist() == [[[0.5, 0.0]], [[np.float32(0.9), 0.0]]]


def test_nobody_has_more_than_a_fifth_of_an_answer():
    person = np.asarray([0] * 50 + [1, 2, 3, 4] * 10)
    kept = person[ranking.fair(person)]
    assert np.bincount(kept).max() <= len(kept) / 5
    assert set(kept.tolist()) == {0, 1, 2, 3, 4}


@pytest.fixture
def asked(monkeypatch) -> list[list[int]]:
    """Which batches the database was asked about."""
    found: list[list[int]] = []
    real = batches.usable_until

    def note(connection: Any, task: str, numbers: list[int], *, now: float) -> dict[int, float]:
        found.append(list(numbers))
        return real(connection, task, numbers, now=now)

    monkeypatch.setattr(living.batches, "usable_until", note)
    return found


def usable_batches(made: Cloud) -> np.ndarray:
    return np.unique(batches.of_ids(pool.load(made, TASK, now=time.time()).ids))


def test_the_database_is_asked_about_a_batch_once_until_somebody_withdraws(cloud, asked):
    numbers, held = usable_batches(cloud), Living(cloud, "toy")
    assert held.usable(numbers, now=time.time()).all()
    assert held.usable(numbers[:2], now=time.time()).all()
    assert asked == [numbers.tolist()]
    withdrawals.delete(cloud, "toy", "person-0", now=time.time())
    assert int(held.usable(numbers, now=time.time()).sum()) == len(numbers) - 1
    assert asked == [numbers.tolist()] * 2


def test_a_consent_that_ends_is_noticed_without_any_change_and_a_renewed_one_counts(cloud, tmp_path):
    numbers, held, soon = usable_batches(cloud), Living(cloud, "toy"), time.time() + 60
    pool.ingest(cloud, toys.data_file(tmp_path / "p.npz"), "toy", pool.Consent("packs", soon), now=time.time())
    assert held.usable(numbers, now=time.time()).all()
    assert not held.usable(numbers, now=soon + 1).any()
    pool.ingest(cloud, tmp_path / "p.npz", "toy", pool.Consent("packs", FAR), now=soon + 2)
    assert held.usable(numbers, now=soon + 3).all()


@pytest.mark.parametrize("leave", ["reject", "expire", "withdraw", "shorten"])
def test_whatever_takes_samples_out_of_use_changes_the_word(cloud, tmp_path, leave):
    now = time.time()
    with cloud.database.reading() as connection:
        before = changes.word(connection)
    if leave == "reject":
        pool.reject(cloud, "toy", "person-0", now=now)
    elif leave == "expire":
        pool.expire(cloud, "toy", older_than_s=0.0, now=now + 1)
    elif leave == "withdraw":
        withdrawals.delete(cloud, "toy", "person-0", now=now)
    else:
        pool.ingest(cloud, toys.data_file(tmp_path / "p.npz"), "toy", pool.Consent("packs", now + 60), now=now)
    with cloud.database.reading() as connection:
        assert changes.word(connection) != before


def test_a_rejected_contributor_is_out_of_the_next_search_and_cannot_be_fetched(client, cloud, bearer):
    before = found_by(search(client, bearer, queries(cloud, k=100)))[0]
    pool.reject(cloud, "toy", "person-0", now=time.time())
    assert len(found_by(search(client, bearer, queries(cloud, k=100)))[0]) == len(before) - 18
    answer = fetch(client, bearer, before)
    assert len(set(sample_digests(sample_columns_of(answer)))) == len(before) - 18


def sample_columns_of(answer: Any) -> Any:
    from edgewire.samples import from_bytes

    return from_bytes(answer.content, TASK, what="answer", limit_bytes=1 << 20)


def test_what_is_fetched_comes_in_the_order_asked_for(client, cloud, bearer):
    wanted = found_by(search(client, bearer, queries(cloud)))[0][::-1]
    fetched = sample_columns_of(fetch(client, bearer, wanted))
    assert sample_digests(fetched) == [row.tobytes().hex() for row in wanted]
    assert set(fetched.group) == {""}
    assert np.isnan(fetched.time).all()


def test_pseudonyms_stay_from_one_search_to_the_next_and_differ_between_boards(client, cloud, bearer, clock):
    first, again = (find(client, bearer, queries(cloud, k=100)) for _ in range(2))
    index.build(cloud, "toy", seed=1, now=clock(), on_progress=toys.quiet)
    after = find(client, bearer, queries(cloud, k=100))
    other = toys.Board().enroll(client, cloud, now=clock()).headers(client, now=clock())
    assert set(first.user) == set(again.user) == set(after.user)
    assert not set(first.user) & set(find(client, other, queries(cloud, k=100)).user)


def test_a_board_cannot_fetch_its_own_contributions_nor_what_nobody_shared(client, cloud, board, bearer, clock):
    contribute(client, bearer, to_bytes(some(6), "toy"))
    pool.accept(cloud, "toy", board.id, now=clock())
    index.build(cloud, "toy", seed=0, now=clock(), on_progress=toys.quiet)
    mine = np.frombuffer(bytes.fromhex("".join(sample_digests(some(6)))), np.uint8).reshape(-1, 32)
    assert len(sample_columns_of(fetch(client, bearer, np.concatenate([mine, digests(2)])))) == 0


def test_too_many_digests_and_other_shapes_are_refused(client, bearer, code):
    assert code(fetch(client, bearer, np.zeros((4001, 32), np.uint8))) == (413, "too_large")
    assert code(fetch(client, bearer, np.zeros((2, 31), np.uint8))) == (422, "invalid_message")
    assert code(fetch(client, bearer, digests(2), task="other")) == (422, "invalid_message")


def test_nothing_can_be_fetched_where_the_task_allows_no_search(client, cloud, bearer, code):
    toys.publish_changed(cloud, modes=["directory"])
    assert code(fetch(client, bearer, digests(2))) == (403, "not_granted")
