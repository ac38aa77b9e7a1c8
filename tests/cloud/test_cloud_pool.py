"""The pool: what comes in, under which consent, and what may be used."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cloud_aug import batches, census, db, pool, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.commands.options import day
from cloud_aug.settings import Limits
from edgewire.errors import InvalidSamples, NotFound, UsageError
from edgewire.tasks import InputSchema, ModelSpec, Task
from tests.cloud import toys
from tests.cloud.toys import FAR, TASK

NOW = time.time()
CONSENT = pool.Consent("packs", FAR)


@pytest.fixture
def made(tmp_path) -> Cloud:
    made = toys.empty(tmp_path / "cloud")
    tasks.publish(made, TASK, now=NOW)
    return made


def ingest(made: Cloud, path, consent: pool.Consent = CONSENT, **options) -> pool.Ingested:
    return pool.ingest(made, path, "toy", consent, now=NOW, **options)


def test_taking_a_file_in_twice_changes_nothing(made, tmp_path):
    file = toys.data_file(tmp_path / "people.npz")
    assert ingest(made, file) == pool.Ingested(108, 0, 6, changed=True)
    assert ingest(made, file) == pool.Ingested(0, 108, 6, changed=False)
    assert census.stats(made, "toy", now=NOW).labels == {"left": 36, "right": 36, "top": 36}


def test_samples_come_back_as_they_went_in_whatever_the_order(made, tmp_path):
    columns = toys.people()
    backwards = {name: column[::-1] for name, column in columns.items()}
    ingest(made, toys.data_file(tmp_path / "people.npz", backwards))
    loaded = pool.load(made, TASK, now=NOW)
    there = {
        (row.tobytes(), TASK.labels[y], user)
        for row, y, user in zip(loaded.samples.x, loaded.samples.y, loaded.samples.user, strict=True)
    }
    assert there == {
        (row.tobytes(), y, user) for row, y, user in zip(columns["x"], columns["y"], columns["user"], strict=True)
    }
    assert loaded.samples.x.dtype == np.float32


def test_the_pools_digest_does_not_depend_on_the_order_of_arrival(made, tmp_path):
    columns = toys.people()
    order = np.random.default_rng(3).permutation(len(columns["y"]))
    other = toys.empty(tmp_path / "other")
    tasks.publish(other, TASK, now=NOW)
    ingest(made, toys.data_file(tmp_path / "a.npz", columns))
    ingest(other, toys.data_file(tmp_path / "b.npz", {name: column[order] for name, column in columns.items()}))
    assert pool.load(made, TASK, now=NOW).digest == pool.load(other, TASK, now=NOW).digest


def test_an_ingest_that_fails_half_way_has_told_the_audit_log_what_it_did(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CHUNK_ROWS", 50)
    file = toys.data_file(tmp_path / "people.npz")

    def fail(done: int, _total: int) -> None:
        if done == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(made, file, on_progress=fail)
    with made.database.reading() as connection:
        rows = connection.execute(db.audit.select().where(db.audit.c.subject == "toy")).all()
    assert [row.action for row in rows] == ["publish-task", "ingest", "ingest"]
    assert census.stats(made, "toy", now=NOW).accepted == 100


def test_only_rows_of_part_pool_are_taken_in(made, tmp_path):
    columns = toys.people()
    part = np.where(np.arange(108) % 2 == 0, "pool", "test")
    assert ingest(made, toys.data_file(tmp_path / "people.npz", {**columns, "part": part})).accepted == 54


def test_rows_without_a_user_are_one_contributor_named_after_the_file(made, tmp_path):
    columns = toys.people()
    del columns["user"]
    ingest(made, toys.data_file(tmp_path / "walks.npz", columns))
    assert pool.load(made, TASK, now=NOW).contributors == ["file-walks"]


def test_an_ended_consent_takes_samples_out_of_use(made, tmp_path):
    ingest(made, toys.data_file(tmp_path / "people.npz"), pool.Consent("packs", NOW + 100))
    assert census.stats(made, "toy", now=NOW + 99).usable == 108
    assert census.stats(made, "toy", now=NOW + 101).usable == 0
    assert len(pool.load(made, TASK, now=NOW + 101).samples) == 0


def test_a_renewed_consent_brings_samples_back_without_storing_them_again(made, tmp_path):
    file = toys.data_file(tmp_path / "people.npz")
    ingest(made, file, pool.Consent("packs", NOW + 100))
    assert ingest(made, file) == pool.Ingested(0, 108, 6, changed=True)
    assert census.stats(made, "toy", now=NOW + 101).usable == 108


@pytest.mark.parametrize("consent", [pool.Consent("everything", FAR), pool.Consent("packs", NOW - 1)])
def test_without_a_consent_that_holds_nothing_is_taken_in(made, tmp_path, consent):
    with pytest.raises(UsageError):
        ingest(made, toys.data_file(tmp_path / "people.npz"), consent)
    assert census.stats(made, "toy", now=NOW).contributors == 0


@pytest.mark.parametrize("until", ["9999-12-31", "9999-12-30", "6000-01-01"])
def test_a_consent_for_ever_is_told_how_far_one_may_go(made, tmp_path, until):
    with pytest.raises(UsageError, match="too far away"):
        ingest(made, toys.data_file(tmp_path / "people.npz"), pool.Consent("packs", day(until)))


def test_quarantined_samples_are_not_used_until_they_are_accepted(made, tmp_path):
    ingest(made, toys.data_file(tmp_path / "people.npz"), status="quarantine")
    assert census.stats(made, "toy", now=NOW).usable == 0
    assert pool.accept(made, "toy", "person-0", now=NOW) == 18
    assert pool.accept(made, "toy", "person-0", now=NOW) == 0
    assert pool.load(made, TASK, now=NOW).contributors == ["person-0"]
    with pytest.raises(NotFound):
        pool.accept(made, "toy", "nobody", now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"x": np.zeros((108, 3), np.float32)},
        {"x": np.full((108, 2), np.nan, np.float32)},
        {"y": np.full(108, "sideways")},
        {"x": np.zeros((0, 2), np.float32), "y": np.zeros(0, str), "user": np.zeros(0, str)},
        {"y": np.asarray([{}] * 108, object)},
    ],
    ids=["shape", "nan", "label", "empty", "pickle"],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_of_it_taken_in(made, tmp_path, change):
    path = tmp_path / "bad.npz"
    np.savez(path, **{**toys.people(), **change})
    with pytest.raises(InvalidSamples):
        ingest(made, path)
    assert census.stats(made, "toy", now=NOW).contributors == 0


@pytest.mark.parametrize("held_bytes", [1000, 1 << 20])
def test_nothing_is_taken_in_of_a_file_that_is_wrong_in_its_last_piece(made, tmp_path, monkeypatch, held_bytes):
    monkeypatch.setattr(pool, "CHUNK_ROWS", 50)
    monkeypatch.setattr(pool, "HELD_BYTES", held_bytes)
    columns = toys.people()
    columns["x"][-1] = np.nan
    with pytest.raises(InvalidSamples, match="row"):
        ingest(made, toys.data_file(tmp_path / "bad.npz", columns))
    assert census.stats(made, "toy", now=NOW).contributors == 0


def test_a_contributor_whose_rows_are_scattered_over_the_file_counts_once(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CHUNK_ROWS", 50)
    order = np.random.default_rng(2).permutation(108)
    file = toys.data_file(tmp_path / "mixed.npz", {name: column[order] for name, column in toys.people().items()})
    assert ingest(made, file) == pool.Ingested(108, 0, 6, changed=True)
    assert ingest(made, toys.data_file(tmp_path / "people.npz")) == pool.Ingested(0, 108, 6, changed=False)


def test_a_file_that_is_not_there_or_no_data_is_refused(made, tmp_path):
    with pytest.raises(NotFound):
        ingest(made, tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InvalidSamples):
        ingest(made, tmp_path / "text.npz")
    with pytest.raises(NotFound):
        pool.ingest(made, tmp_path / "text.npz", "no-such-task", CONSENT, now=NOW)


def test_a_published_task_keeps_what_samples_depend_on(made, tmp_path):
    from edgewire.errors import Conflict

    ingest(made, toys.data_file(tmp_path / "people.npz"))
    assert tasks.publish(made, TASK, now=NOW) == "same"
    with pytest.raises(Conflict, match="labels"):
        tasks.publish(made, Task(**{**TASK.__dict__, "labels": ("left", "right", "bottom")}), now=NOW)
    assert tasks.publish(made, Task(**{**TASK.__dict__, "title": "Better"}), now=NOW) == "changed"


def test_a_task_that_contradicts_itself_is_not_published():
    from edgewire.decoding import encode
    from edgewire.errors import InvalidMessage

    wrong = Task("x", "X", InputSchema((2, 2)), ("a", "b"), ModelSpec("mlp"))
    with pytest.raises(InvalidMessage, match="mlp"):
        tasks.read(encode(wrong))


def test_an_npz_is_taken_in_piece_by_piece_as_it_would_be_whole(made, tmp_path, monkeypatch):
    other = toys.empty(tmp_path / "other")
    tasks.publish(other, TASK, now=NOW)
    file = toys.data_file(tmp_path / "people.npz")
    ingest(other, file)
    monkeypatch.setattr(pool, "CHUNK_ROWS", 7)
    seen: list[tuple[int, int]] = []
    assert ingest(made, file, on_progress=lambda done, of: seen.append((done, of))).accepted == 108
    assert seen[0] == (7, 108)
    assert pool.load(made, TASK, now=NOW).digest == pool.load(other, TASK, now=NOW).digest


def test_a_wrong_row_in_the_last_piece_lets_nothing_in(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CHUNK_ROWS", 50)
    columns = toys.people()
    columns["x"][107, 0] = np.inf
    with pytest.raises(InvalidSamples, match="from row 100: row 7"):
        ingest(made, toys.data_file(tmp_path / "people.npz", columns))
    assert census.stats(made, "toy", now=NOW).contributors == 0


def test_rows_of_a_contributor_may_be_anywhere_in_the_file(made, tmp_path):
    columns = toys.people()
    order = np.random.default_rng(1).permutation(108)
    shuffled = {name: column[order] for name, column in columns.items()}
    assert ingest(made, toys.data_file(tmp_path / "people.npz", shuffled)).accepted == 108
    assert pool.people(made, "toy", now=NOW) == {f"person-{i}": 18 for i in range(6)}


def test_samples_that_repeat_within_a_file_count_once(made, tmp_path):
    columns = {name: np.concatenate([column, column]) for name, column in toys.people().items()}
    assert ingest(made, toys.data_file(tmp_path / "twice.npz", columns)) == pool.Ingested(108, 108, 6, changed=True)


def test_a_contributor_who_floods_is_stopped_at_the_quota(made, tmp_path):
    limited = replace(made, settings=replace(made.settings, limits=Limits(samples_per_contributor=10)))
    done = ingest(limited, toys.data_file(tmp_path / "people.npz"))
    assert (done.accepted, done.over_quota) == (60, 48)
    assert ingest(limited, tmp_path / "people.npz").accepted == 0


def test_rejected_samples_are_never_used_and_do_not_come_again_until_they_expire(made, tmp_path):
    file = toys.data_file(tmp_path / "people.npz")
    ingest(made, file)
    assert pool.reject(made, "toy", "person-0", now=NOW) == 18
    assert "person-0" not in pool.load(made, TASK, now=NOW).contributors
    assert ingest(made, file).accepted == 0
    assert pool.expire(made, "toy", older_than_s=None, now=NOW) == 18
    assert ingest(made, file).accepted == 18


def test_what_has_no_consent_any_more_or_is_too_old_is_deleted(made, tmp_path):
    ingest(made, toys.data_file(tmp_path / "a.npz"), pool.Consent("packs", NOW + 100))
    assert pool.expire(made, "toy", older_than_s=None, now=NOW + 99) == 0
    assert pool.expire(made, "toy", older_than_s=None, now=NOW + 101) == 108
    ingest(made, tmp_path / "a.npz")
    assert pool.expire(made, "toy", older_than_s=86400.0, now=NOW + 86000) == 0
    assert pool.expire(made, "toy", older_than_s=86400.0, now=NOW + 87000) == 108


def test_swapped_labels_do_not_pass_the_screening_and_honest_ones_do(data, tmp_path):
    from cloud_aug import cloud, screening

    made = cloud.open_cloud(data)
    honest, liar = toys.people(1, seed=7), toys.people(1, seed=8)
    liar["y"] = np.asarray(TASK.labels)[(np.asarray([TASK.labels.index(y) for y in liar["y"]]) + 1) % 3]
    for name, columns in (("ann", honest), ("bob", liar)):
        file = toys.data_file(tmp_path / f"{name}.npz", {**columns, "user": np.full(18, name)})
        ingest(made, file, status="quarantine")
    found = {one.contributor: one.passes for one in screening.screen(made, "toy", apply=True, now=NOW).screened}
    assert found == {"ann": True, "bob": False}
    assert {"ann"} == set(pool.people(made, "toy", now=NOW)) - {f"person-{i}" for i in range(6)}
    assert census.stats(made, "toy", now=NOW).rejected == 18
    assert screening.screen(made, "toy", apply=True, now=NOW).screened == ()


def test_a_screening_judges_what_it_saw_and_passes_over_who_leaves_meanwhile(data, tmp_path, monkeypatch):
    from cloud_aug import cloud, encoder, screening, withdrawals

    def shared(name: str, seed: int) -> None:
        columns = {**toys.people(1, seed=seed), "user": np.full(18, name)}
        ingest(made, toys.data_file(tmp_path / f"{seed}.npz", columns), status="quarantine")

    def leaves(name: str) -> None:
        withdrawals.delete(made, "toy", name, now=NOW)

    def predict(model: encoder.Encoder, x: np.ndarray) -> np.ndarray:
        for meanwhile in happens.pop(next(asked), ()):
            meanwhile()
        return real(model, x)

    made, asked, real = cloud.open_cloud(data), itertools.count(), encoder.Encoder.predict
    # five who are trusted are asked about, then ann, then cid
    happens = {
        0: [lambda: leaves("person-3")],
        5: [lambda: leaves("bob")],
        6: [lambda: leaves("ann"), lambda: shared("cid", 1)],
    }
    for seed, name in ((7, "ann"), (8, "bob"), (9, "cid")):
        shared(name, seed)
    monkeypatch.setattr(encoder.Encoder, "predict", predict)
    found = screening.screen(made, "toy", apply=True, now=NOW).screened
    assert [(one.contributor, one.samples, one.passes) for one in found] == [("ann", 18, True), ("cid", 18, True)]
    assert not happens
    assert (pool.people(made, "toy", now=NOW)["cid"], census.stats(made, "toy", now=NOW).quarantine) == (18, 18)


def test_a_few_samples_of_many_batches_need_memory_for_few_batches(tmp_path):
    made, task = (
        toys.empty(tmp_path / "cloud"),
        Task("wide", "Wide", InputSchema((8192,)), ("a", "b"), ModelSpec("mlp")),
    )
    tasks.publish(made, task, now=NOW)
    x = np.random.default_rng(0).normal(size=(32 * 40, 8192)).astype(np.float32)
    file = toys.data_file(tmp_path / "wide.npz", {"x": x, "y": np.tile(["a", "b"], len(x) // 2)})
    pool.ingest(made, file, "wide", CONSENT, now=NOW)
    with made.database.reading() as connection:
        numbers = sorted(connection.execute(db.batches.select().with_only_columns(db.batches.c.id)).scalars())
    assert len(numbers) == 40
    ids = [number * batches.ROWS + number % 32 for number in reversed(numbers)]
    tracemalloc.start()
    found = pool.by_ids(made, task, [*ids, 31], now=NOW)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.ids.tolist() == ids
    assert (found.samples.x[0] == x).all(axis=1).any()
    assert peak < 25 << 20, "of 40 MiB"


def test_ingest_needs_no_more_memory_for_a_longer_file(made, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CHUNK_ROWS", 2000)
    monkeypatch.setattr(pool, "HELD_BYTES", 1000)
    peaks = []
    for count in (10_000, 60_000):
        x = np.random.default_rng(count).normal(size=(count, 2)).astype(np.float32)
        columns = {"x": x, "y": np.full(count, "top"), "user": np.repeat(np.arange(count // 100).astype(str), 100)}
        file = toys.data_file(tmp_path / f"{count}.npz", columns)
        tracemalloc.start()
        ingest(made, file)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
