"""Training when it pays, and a cheap no otherwise."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edgectl import enrolment, retraining, tasks
from edgectl.budget import Budget
from edgectl.store import Score
from edgewire import samples as sample_columns
from edgewire.messages import Withdrawals
from edgewire.tasks import Trigger
from tests.board.conftest import ROOT
from tests.board.synced import BOTH, Synced
from tests.learn import world

STYLE = world.style(41, 1.6)
LAST = {"local_samples": 40, "gain": 0.1}


@pytest.fixture
def ready(synced: Synced) -> Synced:
    """Forty samples."""
    add(synced, 40)
    synced.sync()
    return synced


def add(board: Synced, count: int, *, seed: int = 0, label: int | None = None) -> None:
    """So many samples, of all labels but the last unless one is named."""
    x, y = world.samples(STYLE, count, seed)
    rows = np.flatnonzero(y == label if label is not None else y != world.CLASSES - 1)[:count]
    with board.store() as store:
        store.add_samples(board.task, sample_columns.make(x[rows], y[rows]), now=time.time())


def manifest(board: Synced):  # type: ignore[no-untyped-def]
    return tasks.known_task(board.board.home, enrolment.load(board.board.home), BOTH.id, time.time())


def trained(board: Synced, **record: object) -> None:
    """Note a training on what is there now, without doing it."""
    asked = retraining.asked_digest(retraining.Options())
    published = retraining.published_digest(board.board.home, manifest(board))
    with board.store() as store:
        newest = max(number for number, _, _ in store.recordings(BOTH.id))
        run = store.start_run(BOTH.id, "train", time.time())
        whole = {"asked": asked, "published": published, "newest_sample": newest, **LAST, **record}
        store.finish_run(run, "local", whole, time.time())


def due(board: Synced, **options: object) -> retraining.Due:
    made = retraining.Options(**options)  # type: ignore[arg-type]
    with board.store() as store:
        return retraining.due(board.board.home, manifest(board), store, made, now=time.time())


def test_the_first_training_pays(ready: Synced) -> None:
    assert due(ready).reason == "no training has ended yet"


def test_with_nothing_new_it_does_not_pay(ready: Synced) -> None:
    trained(ready)
    skipped = due(ready).skipped
    assert skipped is not None
    assert "nothing changed" in skipped.reason
    assert due(ready, force=True).reason == "it was forced"


@pytest.mark.parametrize(("new", "pays"), [(3, False), (4, True)])
def test_a_tenth_more_samples_pay(ready: Synced, new: int, pays: bool) -> None:
    trained(ready)
    add(ready, new, seed=1)
    found = due(ready)
    assert (found.skipped is None) is pays
    if found.skipped is not None:
        assert "3 new samples are less than a tenth of the 40" in found.skipped.reason
    else:
        assert found.reason == "4 new samples came, the last training had 40"


def test_the_first_sample_of_a_label_pays(ready: Synced) -> None:
    trained(ready)
    add(ready, 1, seed=1, label=world.CLASSES - 1)
    assert due(ready).reason == f"the first samples of {BOTH.labels[-1]} came"


def test_samples_that_were_deleted_pay(ready: Synced) -> None:
    trained(ready)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=[1, 2])
    assert due(ready).reason.startswith("2 of the samples")


def test_another_directory_pays(ready: Synced) -> None:
    trained(ready)
    ready.publish(seed=5)
    ready.sync()
    assert "packs arrived" in due(ready).reason


def test_what_a_search_brings_does_not_pay_by_itself(ready: Synced) -> None:
    """Each search about other samples brings other ones; the pool is the same."""
    answers = iter(range(2, 9))

    def search(board: str, task_id: str, body: bytes) -> bytes:
        x, y = world.samples(STYLE, next(answers), 7)
        return sample_columns.to_bytes(sample_columns.make(x, y), task_id)

    ready.board.server.search = search
    ready.sync(mode="embedding")
    trained(ready)
    before = ready.cache.retrieval()
    add(ready, 1, seed=1)
    ready.sync(mode="embedding")
    assert ready.cache.retrieval() != before
    assert due(ready).skipped is not None


def test_a_model_made_with_a_withdrawn_pack_is_known(ready: Synced) -> None:
    packs = ready.cache.retrieval().files
    serving = SimpleNamespace(lineage=SimpleNamespace(packs=packs))
    assert not retraining.trained_on_withdrawn(serving, manifest(ready))
    withdrawn = replace(manifest(ready), withdrawals=Withdrawals(1, packs[1:]))
    assert retraining.trained_on_withdrawn(serving, withdrawn)
    assert not retraining.trained_on_withdrawn(serving, replace(withdrawn, withdrawals=Withdrawals(1, ("0" * 64,))))


def test_withdrawn_samples_pay(ready: Synced) -> None:
    trained(ready)
    ready.board.server.withdrawals[BOTH.id] = Withdrawals(1, ready.cache.retrieval().files[:1])
    ready.sync()
    assert "packs arrived" in due(ready).reason, "no model of its own serves yet"
    trained(ready)
    assert due(ready).skipped is not None


def test_asking_for_something_else_pays(ready: Synced) -> None:
    trained(ready)
    assert "asked for" in due(ready, recipe="local").reason


def test_drift_pays_once(ready: Synced) -> None:
    trained(ready)
    add(ready, 40, seed=1)
    with ready.store() as store:
        store._connection.execute("UPDATE sample SET scored_at = NULL")
        numbers = [number for number, _, _ in store.recordings(BOTH.id)][-40:]
        wrong = [Score(n, 0, None, i < 20, 0.5, 1, i < 20, 0.5, time.time()) for i, n in enumerate(numbers)]
        store.add_scores(BOTH.id, dict(zip(numbers, wrong, strict=True)), now=time.time())
    assert due(ready).reason.startswith("drift: the errors of the model that serves rose from 0 %")
    trained(ready, local_samples=80)
    assert due(ready).skipped is not None


@pytest.mark.parametrize(
    ("cut", "budget", "pays"),
    [
        ("time", Budget(seconds=10), False),
        ("time", Budget(seconds=11), True),
        ("time", Budget(), True),
        ("memory", Budget(memory_mib=500, seconds=99), False),
        ("memory", Budget(memory_mib=600), True),
        ("", Budget(), False),
    ],
)
def test_a_larger_budget_pays_where_the_last_one_cut(ready: Synced, cut: str, budget: Budget, pays: bool) -> None:
    trained(ready, cut=cut, max_seconds=10, max_memory_mib=500)
    assert (due(ready, budget=budget).skipped is None) is pays


def test_where_the_machine_had_no_more_memory_to_give_the_same_training_does_not_pay_again(ready: Synced) -> None:
    trained(ready, cut="memory", omitted=["1 of 2 sample files"], max_memory_mib=None)
    assert due(ready, budget=Budget()).skipped is not None


def due_by(ready: Synced, trigger: Trigger, *, later_s: float = 0.0) -> retraining.Due:
    known = manifest(ready)
    asked = replace(known, task=replace(known.task, trigger=trigger))
    with ready.store() as store:
        return retraining.due(ready.board.home, asked, store, retraining.Options(), now=time.time() + later_s)


def test_a_task_may_want_more_samples_before_the_first_training(ready: Synced) -> None:
    waits = due_by(ready, Trigger(first=41)).skipped
    assert waits is not None
    assert "wants 41 samples before the first training, there are 40" in waits.reason
    assert due_by(ready, Trigger(first=40)).skipped is None


def test_a_task_says_how_many_new_samples_are_enough(ready: Synced) -> None:
    trained(ready)
    add(ready, 8, seed=1)
    assert due_by(ready, Trigger(new_share=0.25)).skipped is not None
    assert due_by(ready, Trigger(new_share=0.2)).skipped is None


def test_a_schedule_wants_a_training_now_and_then_if_anything_is_new(ready: Synced) -> None:
    trained(ready)
    assert due_by(ready, Trigger(every_hours=2), later_s=9000).skipped is not None, "nothing is new"
    add(ready, 1, seed=1)
    assert due_by(ready, Trigger(every_hours=2), later_s=3600).skipped is not None
    assert "every 2 hours" in due_by(ready, Trigger(every_hours=2), later_s=9000).reason


def test_a_clock_that_was_set_back_does_not_stop_the_schedule(ready: Synced) -> None:
    trained(ready)
    add(ready, 1, seed=1)
    assert "every 2 hours" in due_by(ready, Trigger(every_hours=2), later_s=-1e8).reason


def test_without_samples_there_is_nothing_to_do_and_no_run_failed(ready: Synced) -> None:
    trained(ready)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
    done = ready.board.edgectl("train")
    assert (done.returncode, b"no labelled samples" in done.stderr) == (5, True)
    with ready.store() as store:
        assert [run.outcome for run in store.runs(BOTH.id, 9)] == ["local"]


def test_a_no_imports_no_torch_and_leaves_no_run(ready: Synced) -> None:
    trained(ready)
    script = "import sys; from edgectl.cli import run; run(['train', '--json']); print('torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, env=ready.board.environment, cwd=ROOT, check=True)
    said, torch = done.stdout.splitlines()
    assert json.loads(said)["skipped"] is True
    assert torch == b"False"
    with ready.store() as store:
        assert len(store.runs(BOTH.id, 9)) == 1
