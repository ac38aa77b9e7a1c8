"""From what is on disk to the model that serves: what is kept, what is replaced, what is not done twice."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from edgectl import enrolment, reports, tasks, training
from edgectl.commands import Invocation
from edgectl.commands.evaluate import _train_and_score
from edgectl.commands.train import _recorded
from edgectl.config import Places, load
from edgectl.models import GOLDEN, MODEL, WEIGHTS, Models
from edgectl.store import Score
from edgelearn.personalize import recipes
from edgelearn.personalize.choose import Belief, Choice
from edgelearn.personalize.setting import Personal, Setting, Settings
from edgelearn.personalize.veto import Evidence
from edgewire import golden, tensors
from edgewire import samples as sample_columns
from edgewire.errors import Busy, CorruptFile, NotFound, ResourcesRefused
from edgewire.files import exclusive
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


def test_folds_that_could_not_correct_the_rehearsal_are_left_out_unless_a_model_is_to_be_judged(
    ready: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(training, "can_tell", lambda *_, recordings, shots: asked.append(recordings))
    with monkeypatch.context() as within:
        within.setattr(training, "gather", None)  # whoever asks, works for nothing
        assert train(ready).shipped == "base"
    assert len(asked) == 1
    assert asked[0] > 0
    train(ready, recipe="local", veto=False)
    folds: list[object] = []
    monkeypatch.setattr(training, "gather", lambda *_, **__: folds.append(1))
    train(ready, force=True)
    assert folds


def test_without_a_veto_is_not_the_same_training_as_with_one(ready: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "veto", lambda *_: ("local", "vetoed"))
    assert train(ready, recipe="matched").shipped == "local"
    assert train(ready, recipe="matched", veto=False).shipped == "matched"


def test_a_new_directory_is_a_reason_to_train_again(ready: Synced) -> None:
    train(ready, recipe="local", veto=False)
    ready.publish(seed=5)
    ready.sync()
    assert not train(ready, recipe="local", veto=False).skipped


def test_a_pack_that_was_damaged_is_removed_and_then_missed_until_the_next_sync(ready: Synced) -> None:
    damaged = ready.cache.path(ready.cache.retrieval().files[0])
    damaged.write_bytes(bytes(damaged.stat().st_size))
    for kind in (CorruptFile, NotFound):
        with pytest.raises(kind) as caught:
            train(ready, recipe="matched", veto=False)
        assert "edgectl sync" in caught.value.hint
    ready.sync()
    assert train(ready, recipe="matched", veto=False).version == 1


def test_a_version_is_never_given_twice_though_the_model_that_had_it_is_gone(ready: Synced) -> None:
    assert train(ready, recipe="local", veto=False).version == 1
    ready.add(STYLE, seed=1)
    train(ready, recipe="local", veto=False)  # what was added is scored with version 1
    shutil.rmtree(models(ready).folder)
    assert train(ready, recipe="local", veto=False, force=True).version == 2


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
    answers = tensors.unpack(raw, what="golden", limit_bytes=1 << 20)[0]
    with ready.store() as store:
        own = {row.tobytes() for row in store.samples(BOTH).samples.x}
    assert own.isdisjoint(row.tobytes() for row in answers["x"])
    assert answers["logits"].shape == (len(answers["x"]), world.CLASSES)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_made_up_inputs_fit_the_task(dtype: str) -> None:
    made = golden.inputs(InputSchema((4, 3), dtype))  # type: ignore[arg-type]
    assert (made.shape, str(made.dtype)) == ((golden.ROWS, 4, 3), dtype)
    assert len(np.unique(made)) > 50


def test_every_training_is_reported_not_only_those_that_made_a_model(ready: Synced) -> None:
    train(ready, recipe="base", veto=False)
    assert waiting(ready) == 1
    train(ready, recipe="base", veto=False)  # skipped: there is nothing to tell
    assert waiting(ready) == 1


# The incumbent


def duel(
    board: Synced,
    *,
    right: float,
    unseen: int,
    deleted: tuple[str, ...] = (),
    scores: Sequence[Score] = (),
    base: str | None = None,
) -> str | None:
    """Whether the incumbent stays, against a challenger that is right on that share of the samples in its folds."""
    with board.store() as store:
        material = training.prepare(board.board.home, manifest(board), store, seed=0, device="cpu", threads=1)
    slot = models(board).current()
    assert slot is not None
    known = (*material.mine.digests[unseen:], *deleted)
    lineage = replace(slot.lineage, samples=known, gain=0.5, base=base or slot.lineage.base)
    rows = np.arange(len(material.mine))
    said = (material.mine.samples.y + (rows >= right * len(rows))) % world.CLASSES
    hits, logits = (said == material.mine.samples.y).astype(np.float64), np.eye(world.CLASSES)[said]
    evidence = Evidence(rows, rows, rows % 2, dict.fromkeys(("base", "local"), logits), {"base": hits, "local": hits})
    choice = Choice("local", "", (Belief("base", 0, 0, ""), Belief("local", 0.1, 0.1, "")))
    slot = replace(slot, lineage=lineage)
    return training._incumbent_stays(slot, material, evidence, choice, training.Options(), scores)


def lived(count: int, *, right: bool, base_right: bool) -> list[Score]:
    """So many new recordings, as version 1 and the base predicted them."""
    return [Score(i, 0, 1, right, 0.5, 1, base_right, 0.5, 0.0) for i in range(count)]


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


def test_what_it_did_on_new_samples_counts_as_much_as_what_was_believed(trained: Synced) -> None:
    no_better = lived(30, right=True, base_right=True)
    assert "+50.0 points" in (duel(trained, right=1.0, unseen=2) or "")
    assert "+12.5 points" in (duel(trained, right=1.0, unseen=2, scores=no_better) or "")
    worse = lived(30, right=False, base_right=True)
    assert duel(trained, right=1.0, unseen=2, scores=worse) is None


def test_on_another_base_only_what_was_measured_beside_it_defends_the_incumbent(trained: Synced) -> None:
    better = lived(30, right=True, base_right=False)
    assert duel(trained, right=1.0, unseen=2, base="f" * 64) is None
    assert duel(trained, right=1.0, unseen=2, base="f" * 64, scores=better[:9]) is None
    assert "+100.0 points" in (duel(trained, right=1.0, unseen=2, base="f" * 64, scores=better) or "")


def test_where_samples_are_ranked_the_incumbent_is_scored_by_ranking(
    trained: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ranks all samples right, although it calls every one of them by the same label."""

    class Ranker:
        def __init__(self, model: object) -> None: ...

        def run(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return np.column_stack([np.zeros(len(x)), y[: len(x)] - 9.0]), np.zeros((len(x), 1))

    with trained.store() as store:
        material = training.prepare(trained.board.home, manifest(trained), store, seed=0, device="cpu", threads=1)
    y = np.arange(len(material.mine)) % 2
    ranked = replace(material.manifest.task, metric="auc")
    samples = replace(material.mine.samples, y=y)
    material = replace(
        material, manifest=replace(material.manifest, task=ranked), mine=replace(material.mine, samples=samples)
    )
    monkeypatch.setattr(training, "Predictor", Ranker)
    slot, rows = models(trained).current(), np.arange(len(y))
    assert slot is not None
    all_rows = np.ones(len(y), bool)

    def evidence(ranks: np.ndarray, fold: np.ndarray) -> Evidence:
        return Evidence(rows, rows, fold, {"local": np.column_stack([np.zeros(len(y)), ranks])}, {"local": y + 0.0})

    one, alone = np.zeros(len(y), int), rows
    assert "auc is 100 %" in (training._duel(slot, material, evidence(-y, one), "local", all_rows) or "")
    assert training._duel(slot, material, evidence(y, one), "local", all_rows) is None
    # where each fold has one label nobody is ranked, the incumbent as little as the new one
    assert training._duel(slot, material, evidence(-y, alone), "local", all_rows) is None


def test_a_better_incumbent_stays_through_a_whole_training(ready: Synced) -> None:
    """Made of many samples; the challenger would be made of the few that are left and some new ones."""
    ready.add(STYLE, per_class=20, seed=1)
    train(ready, recipe="local", veto=False)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
    ready.add(STYLE, per_class=2, seed=2)
    again = train(ready, recipe="local")
    assert (again.shipped, again.changed, serving(ready)) == ("incumbent", False, 1), again.reason


def test_a_worse_incumbent_goes(ready: Synced) -> None:
    wrong = world.samples(STYLE, 6, 3)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
        turned = sample_columns.make(wrong[0], (wrong[1] + 1) % world.CLASSES)
        store.add_samples(BOTH, turned, now=time.time())
    train(ready, recipe="local", veto=False)
    with ready.store() as store:
        store.expire(BOTH.id, older_than=None, ids=None)
    ready.add(STYLE, per_class=6, seed=4)
    again = train(ready)
    assert again.shipped != "incumbent", again.reason
    assert serving(ready) == 2


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


def test_golden_inputs_of_a_click_task_are_items_that_there_are() -> None:
    made = golden.inputs(InputSchema((5,), "int32", items=3))
    assert made.dtype == np.int32
    assert set(made.ravel()) == {1, 2, 3}


def test_where_the_head_alone_may_be_trained_nothing_else_changes(ready: Synced) -> None:
    said: list[str] = []
    outcome = train(ready, recipe="local", veto=False, head_above=0, on_event=said.append)
    slot = models(ready).current()
    assert outcome.shipped == "local"
    assert slot is not None
    own, _ = tensors.unpack((slot.folder / WEIGHTS).read_bytes(), what="weights", limit_bytes=1 << 20)
    base = world.base()
    changed = {name for name in own if not np.array_equal(own[name], base[name])}
    assert changed == {"head.weight", "head.bias"}
    assert any(line.startswith("scope:") for line in said)


def test_a_recipe_that_trains_more_than_the_head_is_refused_there(ready: Synced) -> None:
    with pytest.raises(ResourcesRefused, match="more than the head"):
        train(ready, recipe="matched", head_above=0)


def test_a_model_that_is_small_enough_is_trained_whole(ready: Synced) -> None:
    said: list[str] = []
    train(ready, recipe="local", veto=False, head_above=10**9, on_event=said.append)
    assert not any(line.startswith("scope:") for line in said)


def test_no_more_rows_pass_at_once_than_the_board_allows_and_batches_stay_as_they_were(ready: Synced) -> None:
    with ready.store() as store:
        made = training.prepare(ready.board.home, manifest(ready), store, seed=0, device="cpu", threads=1, batch_rows=8)
    wanted, found = Settings.of(BOTH), made.setting.settings
    assert {found.local.micro_batch, found.joint.micro_batch, found.bayes.micro_batch} == {8}
    assert (found.local.batch_size, found.joint.batch_size) == (wanted.local.batch_size, wanted.joint.batch_size)


def test_a_board_that_may_not_train_says_who_says_so(ready: Synced) -> None:
    ready.board.edgectl("config", "set", "train_scope", "none")
    done = ready.board.edgectl("train", "--force")
    assert done.returncode == 6
    assert b"train_scope is 'none'" in done.stderr
    assert b"config.toml" in done.stderr


def test_what_is_trained_for_a_comparison_keeps_to_what_training_may_do_here(ready: Synced) -> None:
    held = sample_columns.make(*world.samples(STYLE, 2, 9))

    def compare(*names: str, **settings: str) -> list[str]:
        environ = {f"EDGECTL_{name.upper()}": value for name, value in settings.items()}
        places = Places(
            {"EDGECTL_STATE": str(ready.board.home.root), **environ}, ready.board.folder, ready.board.folder, False
        )
        return [row["recipe"] for row in _train_and_score(Invocation(load(places), places), BOTH.id, [*names], held, 0)]

    with exclusive(ready.board.home.lock("train"), doing="training on this board"), pytest.raises(Busy):
        compare("local")
    with pytest.raises(ResourcesRefused, match="more than the head"):
        compare("local", "matched", train_scope="head")
    assert compare("base", "local", train_scope="head") == ["base", "local"]
    with pytest.raises(ResourcesRefused, match="training needs about"):
        compare("local", train_memory_mib="10")
    with pytest.raises(ResourcesRefused, match="train_scope is 'none'"):
        compare("local", train_scope="none")
