"""From what is on disk to the model that serves: what is kept, what is replaced, what is not done twice."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from edgectl import enrolment, reports, tasks, training
from edgectl.commands import Invocation
from edgectl.commands.train import _recorded
from edgectl.config import Places, load
from edgectl.models import GOLDEN, MODEL, Models
from edgelearn.personalize import recipes
from edgelearn.personalize.choose import Belief, Choice
from edgelearn.personalize.setting import Personal, Setting
from edgelearn.personalize.veto import Evidence
from edgewire import tensors
from edgewire.tasks import InputSchema
from tests.board.synced import BOTH, Synced
from tests.learn import world

STYLE = world.style(41, 1.6)


@pytest.fixture
def ready(synced: Synced) -> Synced:
    """With three samples per class of a style that the pool knows."""
    synced.add(STYLE)
    synced.sync()
    return synced


def train(board: Synced, **options: object) -> training.Outcome:
    """As the command does it: with a record of the run, and a report."""
    places = Places({"EDGECTL_STATE": str(board.board.home.root)}, board.board.folder, board.board.folder, False)
    with board.store() as store:
        return _recorded(Invocation(load(places), places), manifest(board), store, training.Options(**options))


def manifest(board: Synced):  # type: ignore[no-untyped-def]
    return tasks.known_task(board.board.home, enrolment.load(board.board.home), BOTH.id, time.time())


def models(board: Synced) -> Models:
    return Models(board.board.home, BOTH.id)


def serving(board: Synced) -> int | None:
    slot = models(board).current()
    return None if slot is None else slot.lineage.version


def waiting(board: Synced) -> int:
    with board.store() as store:
        return store.outbox_size()


def test_the_same_training_is_not_done_twice(ready: Synced) -> None:
    first = train(ready, recipe="local", veto=False)
    again = train(ready, recipe="local", veto=False)
    assert (first.version, first.changed, again.version, again.changed) == (1, True, 1, False)
    assert again.skipped
    assert train(ready, recipe="local", veto=False, force=True).version == 2


def test_a_training_that_ended_with_the_base_is_not_done_twice_either(
    ready: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(ready, recipe="base", veto=False).shipped == "base"
    monkeypatch.setattr(training, "choose", None)  # whoever asks, works again for nothing
    again = train(ready, recipe="base", veto=False)
    assert (again.skipped, again.shipped) == (True, "base")


def test_without_a_veto_is_not_the_same_training_as_with_one(ready: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "veto", lambda *_: ("local", "vetoed"))
    assert train(ready, recipe="matched").shipped == "local"
    assert train(ready, recipe="matched", veto=False).shipped == "matched"


def test_a_new_directory_is_a_reason_to_train_again(ready: Synced) -> None:
    train(ready, recipe="local", veto=False)
    ready.publish(seed=5)
    ready.sync()
    assert not train(ready, recipe="local", veto=False).skipped


def test_what_was_rolled_back_does_not_come_back_by_itself(ready: Synced) -> None:
    train(ready, recipe="local", veto=False)
    models(ready).rollback()
    again = train(ready, recipe="local", veto=False)
    assert again.skipped
    assert "model commit" in again.reason
    assert serving(ready) is None


def test_a_model_that_is_damaged_makes_way_for_the_one_before_and_is_made_again(ready: Synced) -> None:
    train(ready, recipe="local", veto=False)
    train(ready, recipe="matched", veto=False)
    (models(ready).folder / "current" / MODEL).write_bytes(b"damage")
    said: list[str] = []
    again = train(ready, recipe="matched", veto=False, on_event=said.append)
    assert any("version 1 serves instead" in line for line in said)
    assert (again.changed, serving(ready)) == (True, again.version)


def test_where_the_damaged_model_is_not_replaced_the_base_serves(ready: Synced) -> None:
    train(ready, recipe="local", veto=False)
    (models(ready).folder / "current" / MODEL).write_bytes(b"damage")
    assert train(ready, recipe="base", veto=False).shipped == "base"
    assert serving(ready) is None


def test_a_sync_in_the_middle_of_a_training_does_not_take_the_base_away(ready: Synced) -> None:
    """The new base arrives, and the old one's files go, while the old one is being trained on."""

    def meanwhile(line: str) -> None:
        if line.startswith("choice"):
            other = {name: array * np.float32(1.01) for name, array in world.base().items()}
            ready.onnx = training.patch_onnx(ready.onnx, other)
            ready.publish(seed=5)
            ready.sync()

    assert train(ready, recipe="local", veto=False, on_event=meanwhile).changed
    assert serving(ready) == 1


def test_nothing_of_the_owners_samples_is_copied_beside_the_model(ready: Synced) -> None:
    train(ready, recipe="local", veto=False)
    raw = (models(ready).folder / "current" / GOLDEN).read_bytes()
    golden = tensors.unpack(raw, what="golden", limit_bytes=1 << 20)[0]
    with ready.store() as store:
        own = {row.tobytes() for row in store.samples(BOTH).samples.x}
    assert own.isdisjoint(row.tobytes() for row in golden["x"])
    assert golden["logits"].shape == (len(golden["x"]), world.CLASSES)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_made_up_inputs_fit_the_task(dtype: str) -> None:
    made = training._golden_inputs(InputSchema((4, 3), dtype))  # type: ignore[arg-type]
    assert (made.shape, str(made.dtype)) == ((training.GOLDEN_ROWS, 4, 3), dtype)
    assert len(np.unique(made)) > 50


def test_every_training_is_reported_not_only_those_that_made_a_model(ready: Synced) -> None:
    train(ready, recipe="base", veto=False)
    assert waiting(ready) == 1
    train(ready, recipe="base", veto=False)  # skipped: there is nothing to tell
    assert waiting(ready) == 1


# The incumbent


def duel(board: Synced, *, right: float, unseen: int, deleted: tuple[str, ...] = ()) -> str | None:
    """Whether the incumbent stays, against a challenger that is right on that share of the samples in its folds."""
    material = training.prepare(board.board.home, manifest(board), board.store(), seed=0, device="cpu", threads=1)
    slot = models(board).current()
    assert slot is not None
    known = (*material.mine.digests[unseen:], *deleted)
    slot = replace(slot, lineage=replace(slot.lineage, samples=known, gain=0.5))
    rows = np.arange(len(material.mine))
    hits = (rows < right * len(rows)).astype(np.float64)
    evidence = Evidence(rows, rows, {"base": hits, "local": hits})
    choice = Choice("local", "", (Belief("base", 0, 0, ""), Belief("local", 0.1, 0.1, "")))
    return training._incumbent_stays(slot, material, evidence, choice, training.Options())


@pytest.fixture
def trained(ready: Synced) -> Synced:
    train(ready, recipe="local", veto=False)
    return ready


def test_the_incumbent_stays_where_it_is_better_on_samples_that_neither_had_seen(trained: Synced) -> None:
    assert "neither had seen" in (duel(trained, right=0.0, unseen=6) or "")


def test_the_incumbent_goes_where_the_new_one_is_as_good(trained: Synced) -> None:
    assert duel(trained, right=1.0, unseen=6) is None


def test_with_too_few_new_samples_what_is_believed_decides(trained: Synced) -> None:
    assert "believed" in (duel(trained, right=1.0, unseen=2) or "")


def test_what_rests_on_deleted_samples_defends_no_incumbent(trained: Synced) -> None:
    assert duel(trained, right=1.0, unseen=0, deleted=("f" * 64,)) is None


def test_a_challenger_that_is_not_wanted_is_not_trained(trained: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(setting: Setting) -> Personal:
        raise AssertionError

    monkeypatch.setattr(training, "_incumbent_stays", lambda *_: "it is better")
    monkeypatch.setitem(recipes.RECIPES, "local", never)
    monkeypatch.setattr(training, "_evidence", lambda *_: None)
    assert train(trained, recipe="local", seed=1, veto=False).shipped == "incumbent"


def test_a_report_holds_what_the_schema_allows(ready: Synced) -> None:
    outcome = train(ready, recipe="mpda", veto=False)
    with ready.store() as store:
        assert reports.queue(store, manifest(ready), outcome, now=1.0)
