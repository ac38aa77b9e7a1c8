"""What a board must not lose."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgectl import store as store_module
from edgectl import store_schema
from edgectl.store import SETTLED_REPORTS_KEPT, Score, Store
from edgectl.store_samples import AddResult
from edgewire import errors
from edgewire.samples import Samples, make, sample_digests
from tests.board.conftest import GESTURES

GOLDEN = Path(__file__).parents[1] / "golden" / "board-store-v1.db"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "edgectl.db") as opened:
        yield opened


def samples(n: int, *, start: int = 0) -> Samples:
    x = np.arange(start * 6, (start + n) * 6, dtype=np.float32).reshape(n, 2, 3)
    group = np.asarray([f"take {i % 2}" for i in range(n)])
    time = np.where(np.arange(n) % 2 == 0, np.nan, 5.0)
    return make(x, np.arange(n) % 3, group=group, time=time)


def test_samples_come_back_as_they_went_in(store: Store) -> None:
    given = samples(4)
    assert store.add_samples(GESTURES, given, now=7.0) == AddResult(4, 0)
    stored = store.samples(GESTURES)
    assert np.array_equal(stored.samples.x, given.x)
    assert stored.samples.x.dtype == np.float32
    assert list(stored.samples.y) == [0, 1, 2, 0]
    assert list(stored.samples.group) == ["take 0", "take 1", "take 0", "take 1"]
    assert np.array_equal(stored.samples.time, given.time, equal_nan=True)
    assert stored.digests == sample_digests(given)
    assert list(stored.ids) == [1, 2, 3, 4]
    assert list(stored.added_at) == [7.0] * 4


def test_no_samples_are_an_empty_array_of_the_right_shape(store: Store) -> None:
    stored = store.samples(GESTURES)
    assert stored.samples.x.shape == (0, 2, 3)
    assert len(stored) == 0


def test_a_sample_added_twice_is_stored_once(store: Store) -> None:
    store.add_samples(GESTURES, samples(3), now=0.0)
    assert store.add_samples(GESTURES, samples(5), now=1.0) == AddResult(2, 3)


def test_the_same_values_under_another_task_are_another_sample(store: Store) -> None:
    store.add_samples(GESTURES, samples(3), now=0.0)
    assert store.add_samples(replace(GESTURES, id="other"), samples(3), now=0.0).added == 3


def test_counts_need_no_manifest(store: Store) -> None:
    store.add_samples(GESTURES, samples(4), now=0.0)
    assert store.label_counts("gestures") == {"wave": 2, "point": 1, "fist": 1}
    assert store.label_counts("gestures") == {"wave": 2, "point": 1, "fist": 1}
    assert store.sample_tasks() == ["gestures"]


def test_labels_are_kept_by_name_when_a_task_reorders_them(store: Store) -> None:
    store.add_samples(GESTURES, samples(3), now=0.0)
    reordered = replace(GESTURES, labels=("fist", "wave", "point"))
    assert list(store.samples(reordered).samples.y) == [1, 2, 0]


def test_a_label_that_is_gone_is_named(store: Store) -> None:
    store.add_samples(GESTURES, samples(3), now=0.0)
    with pytest.raises(errors.Conflict, match="label 'fist'"):
        store.samples(replace(GESTURES, labels=("wave", "point")))


def test_all_samples_that_no_longer_fit_are_named_at_once(store: Store) -> None:
    store.add_samples(GESTURES, samples(6), now=0.0)
    with pytest.raises(errors.Conflict, match="2 of 6") as caught:
        store.samples(replace(GESTURES, labels=("wave", "point")))
    assert caught.value.hint.endswith("--id 3 --id 6")
    with pytest.raises(errors.Conflict, match="6 of 6") as caught:
        store.samples(replace(GESTURES, input=replace(GESTURES.input, shape=(3, 3))))
    assert caught.value.hint.endswith("--all")


def test_expiring_deletes_by_age_and_by_id(store: Store) -> None:
    store.add_samples(GESTURES, samples(2), now=10.0)
    store.add_samples(GESTURES, samples(3, start=2), now=20.0)
    assert store.expire("gestures", older_than=15.0, ids=None) == 2
    assert store.expire("gestures", older_than=None, ids=[3, 99]) == 1
    assert store.expire("gestures", older_than=15.0, ids=[4]) == 0
    assert store.expire("gestures", older_than=None, ids=None) == 2


def test_the_id_of_a_deleted_sample_is_not_given_again(store: Store) -> None:
    store.add_samples(GESTURES, samples(2), now=0.0)
    store.expire("gestures", older_than=None, ids=None)
    store.add_samples(GESTURES, samples(1), now=0.0)
    assert list(store.samples(GESTURES).ids) == [3]


def test_an_upload_waits_until_it_is_sent(store: Store) -> None:
    store.queue("a" * 32, "report", "gestures", b"{}", {}, 1.0)
    store.queue("b" * 32, "contribution", "gestures", b"xyz", {"consent": "packs", "until": 9.0}, 2.0)
    store.sent("a" * 32, 3.0)
    (item,) = store.outbox()
    assert (item.upload_id, item.payload, item.params) == ("b" * 32, b"xyz", {"consent": "packs", "until": 9.0})
    assert store.outbox_size() == 1


def test_the_same_upload_id_waits_once_even_after_it_was_sent(store: Store) -> None:
    store.queue("a" * 32, "report", "gestures", b"first", {}, 1.0)
    store.queue("a" * 32, "report", "gestures", b"second", {}, 1.0)
    assert [item.payload for item in store.outbox()] == [b"first"]
    store.sent("a" * 32, 2.0)
    store.queue("a" * 32, "report", "gestures", b"third", {}, 3.0)
    assert list(store.outbox()) == []


def test_an_upload_that_was_refused_for_good_waits_no_more(store: Store) -> None:
    store.queue("a" * 32, "report", "gestures", b"{}", {}, 1.0)
    store.refused("a" * 32, "the task takes no reports", 2.0)
    assert list(store.outbox()) == []


def test_the_memory_of_sent_uploads_is_bounded(store: Store) -> None:
    for i in range(SETTLED_REPORTS_KEPT + 20):
        store.queue(f"{i:032x}", "report", "gestures", b"{}", {}, float(i))
        store.sent(f"{i:032x}", float(i))
    store.queue(f"{SETTLED_REPORTS_KEPT + 19:032x}", "report", "gestures", b"{}", {}, 1.0)
    assert list(store.outbox()) == []
    store.queue(f"{0:032x}", "report", "gestures", b"{}", {}, 1.0)  # the oldest was forgotten
    assert store.outbox_size() == 1


def test_a_consent_outlives_all_reports(store: Store) -> None:
    store.queue("c" * 32, "contribution", "gestures", b"xyz", {"consent": "packs", "until": 9.0}, 1.0)
    store.sent("c" * 32, 2.0)
    for i in range(SETTLED_REPORTS_KEPT + 1):
        store.queue(f"{i:032x}", "report", "gestures", b"{}", {}, 3.0)
        store.sent(f"{i:032x}", 3.0)
    assert [(row.kind, row.settled_at) for row in store.shares("gestures")] == [("contribution", 2.0)]


def test_uploads_wait_in_the_order_in_which_they_were_queued_though_the_clock_was_set_back(store: Store) -> None:
    store.withdraw("gestures", "a" * 32, 2000.0)
    store.queue("b" * 32, "contribution", "gestures", b"xyz", {"consent": "packs", "until": 9000.0}, 1000.0)
    assert [item.kind for item in store.outbox()] == ["withdrawal", "contribution"]
    assert [row.kind for row in store.shares("gestures")] == ["withdrawal", "contribution"]


def test_each_upload_is_read_when_its_turn_comes(store: Store) -> None:
    for i in range(3):
        store.queue(f"{i:032x}", "contribution", "gestures", b"xyz", {"consent": "packs", "until": 9.0}, 1.0)
    waiting = store.outbox()
    assert next(waiting).upload_id == f"{0:032x}"
    store.withdraw("gestures", "a" * 32, 2.0)
    assert [item.kind for item in waiting] == ["withdrawal"]


def test_a_run_without_an_end_was_interrupted(store: Store) -> None:
    first, second = store.start_run("gestures", "train", 1.0), store.start_run("gestures", "train", 2.0)
    store.finish_run(second, "local", {"gain": 0.5}, 3.0)
    assert [run.id for run in store.interrupted_runs()] == [first]
    newest = store.runs("gestures", 1)[0]
    assert (newest.id, newest.outcome, newest.record, newest.ended_at) == (second, "local", {"gain": 0.5}, 3.0)


def test_an_answer_is_remembered_and_paid_for_once(store: Store) -> None:
    assert store.remembered_answer("gestures", "cohort@v1") is None
    assert store.spend("gestures", "cohort@v1", 8.0, 3, 16.0, 1.0) == 3
    assert store.spend("gestures", "cohort@v1", 8.0, 5, 16.0, 2.0) == 3  # what was said once is said again
    assert store.epsilon_spent("gestures") == 8.0


def test_a_budget_that_is_used_up_is_refused_and_nothing_is_noted(store: Store) -> None:
    store.spend("gestures", "v1", 8.0, 0, 16.0, 1.0)
    store.spend("gestures", "v2", 8.0, 0, 16.0, 1.0)
    with pytest.raises(errors.ResourcesRefused, match="ε 16 of 16 spent"):
        store.spend("gestures", "v3", 1.0, 0, 16.0, 1.0)
    assert store.remembered_answer("gestures", "v3") is None
    assert store.spend("other", "v1", 8.0, 1, 16.0, 1.0) == 1  # each task has its own


def test_several_changes_can_be_one(store: Store) -> None:
    def both_and_fail() -> None:
        with store.transaction():
            store.queue("a" * 32, "report", "gestures", b"{}", {}, 1.0)
            store.meta_set("epoch", "7")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        both_and_fail()
    assert list(store.outbox()) == []
    assert store.meta_get("epoch") is None


def test_small_facts_are_kept(store: Store) -> None:
    store.meta_set("epoch", "1")
    store.meta_set("epoch", "2")
    assert store.meta_get("epoch") == "2"


def test_what_was_committed_is_there_for_the_next_process(tmp_path: Path) -> None:
    with Store.open(tmp_path / "edgectl.db") as store:
        store.add_samples(GESTURES, samples(3), now=0.0)
    with Store.open(tmp_path / "edgectl.db") as store:
        assert len(store.samples(GESTURES)) == 3
        assert store.check() == []


def test_the_file_is_private(store: Store) -> None:
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_an_update_of_a_round_is_noted_once_with_its_noise(store: Store) -> None:
    for upload, task, noise in (
        ("a", "gestures", 1.5),
        ("b", "gestures", 0.0),
        ("a", "gestures", 9.0),
        ("c", "x", 2.0),
    ):
        store.note_update(task, upload * 32, "0" * 16, 1, noise, 100.0)
    assert store.noise_of_updates() == {"gestures": [1.5, 0.0], "x": [2.0]}


# Files that are not as they should be


def test_a_file_of_version_1_opens(tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / "edgectl.db")
    with Store.open(tmp_path / "edgectl.db") as store:
        assert np.array_equal(store.samples(GESTURES).samples.x, samples(3).x)
        assert store.samples(GESTURES).digests == sample_digests(samples(3))
        assert [item.upload_id for item in store.outbox()] == ["b" * 32]
        assert store.runs("gestures", 1)[0].record == {"gain": 0.5}
        assert store.epsilon_spent("gestures") == 8.0
        assert store.noise_of_updates() == {}


def test_a_migration_runs_once_and_leaves_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "edgectl.db"
    shutil.copy(GOLDEN, path)
    steps = (*store_schema.MIGRATIONS, "ALTER TABLE sample ADD COLUMN note TEXT;")
    for _ in range(2):
        store_schema.connect(path, migrations=steps).close()
    backup = sqlite3.connect(tmp_path / "edgectl.db.v1.bak")
    assert backup.execute("SELECT count(*) FROM sample").fetchone() == (3,)
    backup.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edgectl.db"
    shutil.copy(GOLDEN, path)
    steps = (*store_schema.MIGRATIONS, "ALTER TABLE sample ADD COLUMN note TEXT; DROP TABLE nothing;")
    with pytest.raises(errors.EdgeError):
        store_schema.connect(path, migrations=steps)
    with Store.open(path) as store:
        assert len(store.samples(GESTURES)) == 3


def test_a_file_of_a_newer_edgectl_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "edgectl.db"
    store_schema.connect(path, migrations=(*store_schema.MIGRATIONS, "CREATE TABLE later (x);")).close()
    with pytest.raises(errors.Conflict, match="schema version 6, this edgectl knows up to 5"):
        Store.open(path)


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_damaged_file_is_named_and_not_touched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "edgectl.db"
    path.write_bytes(content)
    with pytest.raises(errors.CorruptFile, match=r"edgectl\.db is damaged"):
        Store.open(path)
    assert path.read_bytes() == content


def test_what_a_file_of_version_1_had_shared_stays_known_as_own(tmp_path: Path) -> None:
    path = tmp_path / "edgectl.db"
    shutil.copy(GOLDEN, path)
    old = sqlite3.connect(path)
    old.execute("UPDATE sample SET shared_at = 1.0 WHERE id = 2")
    old.commit()
    old.close()
    with Store.open(path) as store:
        store.expire("gestures", older_than=None, ids=None)
        assert store.own_digests("gestures") == {sample_digests(samples(3))[1]}


def test_damage_inside_is_found_by_the_check(tmp_path: Path) -> None:
    path = tmp_path / "edgectl.db"
    with Store.open(path) as store:
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        schema = path.stat().st_size // 4096
        store.add_samples(GESTURES, samples(500), now=0.0)
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    for page in range(schema, len(data) // 4096):
        data[page * 4096 : page * 4096 + 100] = b"\xff" * 100
    path.write_bytes(data)
    # suppress: there is damage that SQLite does not even step over
    with Store.open(path) as store, contextlib.suppress(errors.CorruptFile):
        assert store.check() != []


def test_a_second_writer_that_waits_too_long_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_schema, "BUSY_TIMEOUT_S", 0.05)
    with Store.open(tmp_path / "edgectl.db") as one, Store.open(tmp_path / "edgectl.db") as two:
        with one.transaction():
            one.meta_set("a", "1")
            with pytest.raises(errors.Busy):
                two.meta_set("a", "2")
        two.meta_set("a", "3")
        assert one.meta_get("a") == "3"


def test_samples_are_read_while_another_process_adds_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_schema, "BUSY_TIMEOUT_S", 0.05)
    with Store.open(tmp_path / "edgectl.db") as one, Store.open(tmp_path / "edgectl.db") as two:
        one.add_samples(GESTURES, samples(2), now=0.0)
        with one.transaction():
            one.add_samples(GESTURES, samples(5), now=0.0)
            assert len(two.samples(GESTURES)) == 2
        assert len(two.samples(GESTURES)) == 5
        with two.snapshot():
            assert two.outbox_size() == 0
            one.queue("a" * 32, "report", "gestures", b"{}", {}, 1.0)
            assert two.outbox_size() == 0
        assert two.outbox_size() == 1


def mounted(folder: Path, options: str) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let us mount: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "small", "size=512k")


def test_a_full_disk_loses_nothing_that_was_there(small_disk: Path) -> None:
    with Store.open(small_disk / "edgectl.db") as store:
        store.add_samples(GESTURES, samples(10), now=0.0)
        with pytest.raises(errors.DiskFull, match="the disk is full"):
            store.add_samples(GESTURES, samples(20_000, start=10), now=1.0)
        assert len(store.samples(GESTURES)) == 10
    with Store.open(small_disk / "edgectl.db") as store:
        assert store.add_samples(GESTURES, samples(5, start=10), now=2.0).added == 5


def test_on_a_full_disk_everything_can_still_be_read(small_disk: Path) -> None:
    with Store.open(small_disk / "edgectl.db") as store:
        store.add_samples(GESTURES, samples(3), now=1.0)
    with contextlib.suppress(OSError), (small_disk / "log").open("wb", buffering=0) as file:
        while file.write(bytes(512)):
            pass
    with Store.open(small_disk / "edgectl.db") as store:
        assert len(store.samples(GESTURES)) == 3
        assert store.label_counts("gestures")
        with pytest.raises(errors.DiskFull):
            store.expire("gestures", older_than=None, ids=None)
        assert len(store.samples(GESTURES)) == 3


def test_a_migration_that_finds_no_room_is_told_and_leaves_no_half_of_a_backup(small_disk: Path) -> None:
    with Store.open(small_disk / "edgectl.db") as store:
        store.queue("a" * 32, "report", "gestures", bytes(150_000), {}, 1.0)
    newer = (*store_schema.MIGRATIONS, "CREATE TABLE later (x);")
    for room in (100_000, 0):
        with contextlib.suppress(OSError), (small_disk / "log").open("ab", buffering=0) as file:
            while shutil.disk_usage(small_disk).free > room:
                file.write(bytes(512))
        with pytest.raises(errors.DiskFull):
            store_schema.connect(small_disk / "edgectl.db", migrations=newer)
        assert not list(small_disk.glob("*.bak*"))
    (small_disk / "log").unlink()
    store_schema.connect(small_disk / "edgectl.db", migrations=newer).close()


def test_a_read_only_disk_is_named(small_disk: Path) -> None:
    Store.open(small_disk / "edgectl.db").close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(errors.EdgeError) as caught, Store.open(small_disk / "edgectl.db") as store:
        store.meta_set("a", "1")
    assert caught.value.exit_code == 6


def test_samples_of_an_older_file_are_not_scored_late(tmp_path: Path) -> None:
    """A model may have been trained on them already: a score would flatter it."""
    shutil.copy(GOLDEN, tmp_path / "edgectl.db")
    with Store.open(tmp_path / "edgectl.db") as store:
        assert len(store.samples(GESTURES)) == 3
        assert not store.has_unscored("gestures")
        store.add_samples(GESTURES, samples(5), now=2.0)
        assert len(store.samples(GESTURES, unscored=True)) == 2


def test_only_the_newest_scores_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SCORES_KEPT", 3)
    store.add_samples(GESTURES, samples(5), now=1.0)
    made = {i: Score(i, 0, None, True, 0.5, None, None, None, 1.0) for i in range(1, 6)}
    assert len(store.add_scores("gestures", made, now=2.0)) == 5
    assert [score.recording for score in store.scores("gestures")] == [3, 4, 5]


def test_the_last_training_is_one_that_ended_and_did_something(store: Store) -> None:
    assert store.last_training("gestures") is None
    for outcome, record in (("local", {}), ("failed", {}), ("local", {"skipped": True}), (None, {})):
        run = store.start_run("gestures", "train", 1.0)
        if outcome:
            store.finish_run(run, outcome, record, 2.0)
    found = store.last_training("gestures")
    assert found is not None
    assert found.id == 1
