"""New samples are predicted first and trained on afterwards; no model is ever scored on what it knows."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from edgectl import enrolment, scoring, sharing, tasks
from edgectl.models import MODEL, Models
from edgectl.store import Score
from edgewire import samples as sample_columns
from edgewire.errors import CorruptFile
from tests.board.synced import BOTH, Synced
from tests.board.test_training import train
from tests.learn import world

STYLE = world.style(41, 1.6)


def add(board: Synced, *, per_class: int = 3, seed: int = 0, group: str = "") -> None:
    x, y = world.samples(STYLE, per_class, seed)
    with board.store() as store:
        made = sample_columns.make(x, y, group=np.full(len(y), group))
        store.add_samples(board.task, made, now=time.time())


def score(board: Synced) -> scoring.Scored:
    manifest = tasks.known_task(board.board.home, enrolment.load(board.board.home), BOTH.id, time.time())
    with board.store() as store:
        return scoring.score_new(board.board.home, manifest, store, now=time.time())


def scores(board: Synced) -> list[Score]:
    with board.store() as store:
        return store.scores(BOTH.id)


@pytest.fixture
def ready(synced: Synced) -> Synced:
    synced.sync()
    return synced


def test_before_any_version_the_base_is_scored(ready: Synced) -> None:
    add(ready)
    n = 3 * world.CLASSES
    assert score(ready).samples == n
    assert {(s.version, s.base_version, s.right == s.base_right) for s in scores(ready)} == {(None, 1, True)}


def test_each_sample_is_scored_once(ready: Synced) -> None:
    add(ready)
    score(ready)
    assert score(ready) == scoring.Scored()


def test_a_training_scores_what_waited_before_it_trains_on_it(ready: Synced) -> None:
    add(ready)
    train(ready, recipe="local", veto=False)
    add(ready, seed=1)
    train(ready, recipe="local", veto=False)
    assert [s.version for s in scores(ready)] == [None] * 3 * world.CLASSES + [1] * 3 * world.CLASSES


def test_the_probability_is_that_of_the_true_label(ready: Synced) -> None:
    add(ready)
    train(ready, recipe="local", veto=False)
    add(ready, seed=1)
    score(ready)
    served = [s for s in scores(ready) if s.version == 1]
    assert all(s.probability >= 1 / world.CLASSES for s in served if s.right)
    assert np.mean([s.right for s in served]) >= np.mean([bool(s.base_right) for s in served])


def test_a_sample_that_the_serving_model_knows_is_passed_over_when_it_is_added_again(ready: Synced) -> None:
    add(ready)
    train(ready, recipe="local", veto=False)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
    add(ready)
    assert score(ready).samples == 0
    with ready.store() as store:
        assert not store.has_unscored(BOTH.id)


def test_a_recording_that_the_serving_model_was_trained_on_is_passed_over(ready: Synced) -> None:
    add(ready, group="morning")
    train(ready, recipe="local", veto=False)
    add(ready, seed=1, group="morning")
    assert score(ready).samples == 0
    add(ready, seed=2, group="evening")
    assert score(ready).samples == 3 * world.CLASSES
    assert len({s.recording for s in scores(ready) if s.version == 1}) == 1


def test_what_was_shared_before_it_was_scored_is_passed_over(ready: Synced) -> None:
    add(ready)
    with ready.store() as store:
        sharing.queue(store, BOTH, sharing.offer(store, BOTH, group=None), until=time.time() + 99, now=time.time())
    assert score(ready).samples == 0


def test_what_cannot_be_scored_yet_waits(ready: Synced) -> None:
    add(ready)
    for path in (ready.cache.folder / "blobs").iterdir():
        path.unlink()
    assert score(ready).samples == 0
    ready.sync()
    assert score(ready).samples == 3 * world.CLASSES


def test_a_damaged_model_scores_nothing_and_loses_nothing(ready: Synced) -> None:
    add(ready)
    train(ready, recipe="local", veto=False)
    (Models(ready.board.home, BOTH.id).folder / "current" / MODEL).write_bytes(b"damage")
    add(ready, seed=1)
    with pytest.raises(CorruptFile):
        score(ready)
    with ready.store() as store:
        assert store.has_unscored(BOTH.id)


def test_a_score_outlives_its_sample_and_does_not_name_it(ready: Synced) -> None:
    add(ready)
    score(ready)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
        columns = [row[1] for row in store._connection.execute("PRAGMA table_info(score)")]
    assert len(scores(ready)) == 3 * world.CLASSES
    assert not {"digest", "sample", "group_name", "x"} & set(columns)


def test_adding_samples_tells_the_score_and_status_shows_it(ready: Synced) -> None:
    x, y = world.samples(STYLE, 3, 0)
    path = ready.board.folder / "new.npz"
    np.savez(path, x=x, y=np.asarray(BOTH.labels)[y])
    added = json.loads(ready.board.edgectl("data", "add", str(path), "--json").stdout)
    assert added["scored"] == added["added"] == 3 * world.CLASSES
    running = json.loads(ready.board.edgectl("status", "--json").stdout)["tasks"][0]["running"]
    assert running["all"]["samples"] == added["scored"]
    assert running["all"]["serving"] == pytest.approx(added["right"] / added["scored"], abs=1e-5)
    assert running["versions"][0]["version"] is None
    said = ready.board.edgectl("status").stdout.decode()
    assert "each predicted before it was trained on (accuracy)" in said
    assert "drift: too few new recordings" in said
