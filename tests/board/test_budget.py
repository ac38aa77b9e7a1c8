"""What a training may cost: kept, with the best model so far, or refused with a reason."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from edgectl import enrolment, material, retraining, tasks, training
from edgectl.budget import LATER_MIB, PACK_COPIES, Budget, Cost, Need, Spent, check_loadable, plan
from edgectl.models import WEIGHTS, Models
from edgelearn.models.build import build
from edgelearn.models.cost import model_bytes, row_bytes
from edgelearn.personalize.choose import Figure
from edgelearn.personalize.setting import Personal, Setting
from edgelearn.personalize.veto import Evidence
from edgewire import tensors
from edgewire.errors import ResourcesRefused, TimedOut
from edgewire.tasks import InputSchema, ModelSpec
from tests.board.synced import BOTH, Synced
from tests.learn import world

STYLE = world.style(41, 1.6)
MIB = 1 << 20


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# The budget itself


def test_time_is_up_a_tenth_early_to_leave_room_for_installing() -> None:
    clock = Clock()
    budget = Budget(seconds=20, clock=clock)
    clock.now = 17.9
    budget.check()
    clock.now = 18.0
    with pytest.raises(Spent) as found:
        budget.check()
    assert isinstance(found.value.refusal(), TimedOut)
    long = Budget(seconds=1000, clock=clock)
    clock.now = 18 + 994
    long.check()


def test_time_may_be_left_for_what_comes_after() -> None:
    clock = Clock()
    budget = Budget(seconds=20, clock=clock)
    clock.now = 12.0
    with pytest.raises(Spent), budget.leaving(Cost(seconds=6.0)):
        budget.check()
    budget.check()


def test_energy_is_up_a_tenth_early_and_may_be_left_too() -> None:
    used = [0.0]
    budget = Budget(joules=1000, used_joules=lambda: used[0])
    used[0] = 899.0
    budget.check()
    with pytest.raises(Spent), budget.leaving(Cost(joules=10.0)):
        budget.check()
    used[0] = 900.0
    with pytest.raises(Spent) as found:
        budget.check()
    assert found.value.kind == "energy"
    assert isinstance(found.value.refusal(), ResourcesRefused)


def test_memory_beyond_the_limit_ends_it() -> None:
    Budget(memory_mib=500, resident_mib=lambda: 500.0).check()
    with pytest.raises(Spent) as found:
        Budget(memory_mib=500, resident_mib=lambda: 501.0).check()
    assert isinstance(found.value.refusal(), ResourcesRefused)


def test_a_process_may_not_grow_beyond_what_the_machine_has() -> None:
    budget = Budget(memory_mib=500, resident_mib=lambda: 200.0)
    assert budget.limit_mib(available_mib=1000.0) == 500.0
    assert budget.limit_mib(available_mib=100.0) == 300.0
    assert budget.limit_mib(available_mib=None) == 500.0
    assert Budget(resident_mib=lambda: None).limit_mib(available_mib=100.0) is None


NEED = Need(
    resident_mib=200 - LATER_MIB, local_bytes=0, row_bytes=MIB, model_bytes=0, packs_bytes=(10 * MIB, 20 * MIB),
    head_bytes=2 * MIB,
)  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "rows", "packs", "head_only"),
    [
        (None, 48, 2, False),
        (200 + 48 + PACK_COPIES * 30, 48, 2, False),
        (200 + 24 + PACK_COPIES * 30, 24, 2, False),
        (200 + 6 + PACK_COPIES * 30, 6, 2, False),
        (200 + 6 + PACK_COPIES * 10, 6, 1, False),
        (200 + 45, 6, 0, False),
        (200 + 6, 6, 0, False),
        (200 + 5, 48, 0, True),
        (200 + 2, 48, 0, True),
    ],
)
def test_the_largest_way_that_fits_is_taken(limit: float | None, rows: int, packs: int, head_only: bool) -> None:
    """The same in smaller pieces first, then with fewer files, then the last layer alone."""
    chosen = plan(NEED, batch=48, limit_mib=limit)
    assert (chosen.micro_batch, chosen.packs, chosen.head_only) == (rows, packs, head_only)
    assert limit is None or chosen.mib <= limit


def test_where_the_head_alone_is_allowed_nothing_else_is_planned() -> None:
    chosen = plan(NEED, batch=48, limit_mib=None, head_only=True)
    assert (chosen.packs, chosen.head_only) == (0, True)


def test_rows_that_only_pass_through_the_model_count_too() -> None:
    need = replace(NEED, forward_bytes=100 * MIB, local_forward_bytes=30 * MIB)
    assert need.mib(48, 2) == 200 + 100 + PACK_COPIES * 30
    assert need.mib(48, 0) == 200 + 48
    assert need.mib(6, 0) == 200 + 30


def test_where_nothing_fits_the_refusal_says_what_the_least_is() -> None:
    with pytest.raises(ResourcesRefused, match="about 202 MiB at the least, 201 MiB are allowed"):
        plan(NEED, batch=48, limit_mib=201)


def test_what_a_row_costs_is_counted_layer_by_layer() -> None:
    task = replace(world.TASK, input=InputSchema((10,)), model=ModelSpec("mlp", width=4, embedding=4))
    model = build(task)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert model_bytes(model) == 4 * 4 * weights
    wide = build(replace(task, model=ModelSpec("mlp", width=64, embedding=4)))
    assert row_bytes(task, wide) > row_bytes(task, model) >= 3 * 4 * (10 + 4 + 4 + world.CLASSES)


# Training within it


@pytest.fixture
def ready(synced: Synced) -> Synced:
    synced.add(STYLE)
    synced.sync()
    return synced


def manifest(board: Synced):  # type: ignore[no-untyped-def]
    return tasks.known_task(board.board.home, enrolment.load(board.board.home), BOTH.id, time.time())


def train(board: Synced, **options: object) -> training.Outcome:
    made = retraining.Options(**options)  # type: ignore[arg-type]
    with board.store() as store:
        return training.train(board.board.home, manifest(board), store, made, now=time.time())


def serving(board: Synced) -> int | None:
    slot = Models(board.board.home, BOTH.id).current()
    return None if slot is None else slot.lineage.version


@dataclass
class Staged:
    """Recipes and folds that take as many seconds of a clock as `costs` says, and then look whether time is up. done:
    what was done; prior: what the rehearsal found; good: recipes that the folds speak for."""

    clock: Clock = field(default_factory=Clock)
    done: list[str] = field(default_factory=list)
    prior: list[Figure] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=lambda: {"matched": 2.0, "fold": 4.0})
    good: set[str] = field(default_factory=lambda: {"mpda"})

    def recipe(self, name: str) -> Callable[[Setting], Personal]:
        def run(setting: Setting) -> Personal:
            self.done.append(f"train {name}")
            self.clock.now += self.costs.get(name, 0.0)
            setting.on_step()
            return Personal(setting.base)

        return run

    def gather(self, setting: Setting, names: Sequence[str], on_fold: object) -> Evidence:
        self.clock.now += self.costs["fold"]
        setting.on_step()
        self.done.append(f"evidence {','.join(names)}")
        rows = np.arange(len(setting.local))
        return Evidence(rows, rows, rows, {}, {name: np.full(len(rows), float(name in self.good)) for name in names})


@pytest.fixture
def staged(ready: Synced, monkeypatch: pytest.MonkeyPatch) -> Staged:
    """With a prior by which `matched` gains most."""
    made, real = Staged(), material.prepare
    made.prior += [
        Figure(name, 3, gain, 0.1, 0.0, 6) for name, gain in (("local", 0.1), ("matched", 0.2), ("mpda", 0.15))
    ]

    def prepare(*arguments: object, **options: object) -> material.Material:
        return replace(real(*arguments, **options), prior=tuple(made.prior))  # type: ignore[arg-type]

    monkeypatch.setattr(training, "prepare", prepare)
    monkeypatch.setattr(training, "gather", made.gather)
    monkeypatch.setattr(training, "choices", lambda setting: ("base", "local", "matched", "mpda"))
    for name in ("base", "local", "matched", "mpda"):
        monkeypatch.setitem(training.RECIPES, name, made.recipe(name))
    return made


def test_without_a_limit_only_the_choice_is_trained(ready: Synced, staged: Staged) -> None:
    outcome = train(ready)
    assert staged.done == ["evidence base,local,matched,mpda", "train mpda"]
    assert (outcome.shipped, outcome.cut, outcome.omitted) == ("mpda", "", [])


def test_what_the_rehearsal_would_choose_is_trained_before_it_is_doubted(ready: Synced, staged: Staged) -> None:
    outcome = train(ready, budget=Budget(seconds=100, clock=staged.clock))
    assert staged.done == [
        "train matched", "evidence base,matched", "evidence base,local", "evidence base,mpda", "train mpda"
    ]  # fmt: skip
    assert (outcome.shipped, outcome.cut) == ("mpda", "")


def test_when_time_ends_in_the_folds_the_best_so_far_is_shipped_and_the_rest_is_named(
    ready: Synced, staged: Staged
) -> None:
    staged.good = {"matched"}
    outcome = train(ready, budget=Budget(seconds=10 / 0.9, clock=staged.clock))
    assert staged.done == ["train matched", "evidence base,matched"]
    assert (outcome.shipped, outcome.cut) == ("matched", "time")
    assert outcome.omitted == ["evidence for local", "evidence for mpda"]
    assert serving(ready) == 1


def test_when_time_ends_in_the_last_training_the_first_is_shipped(ready: Synced, staged: Staged) -> None:
    staged.costs["mpda"] = 1000.0
    outcome = train(ready, budget=Budget(seconds=100, clock=staged.clock))
    assert staged.done[-1] == "train mpda"
    assert (outcome.shipped, outcome.cut, outcome.omitted) == ("matched", "time", ["training of mpda"])


def test_when_time_ends_before_a_first_model_nothing_changes_and_it_is_a_timeout(ready: Synced, staged: Staged) -> None:
    staged.costs["matched"] = 1000.0
    with pytest.raises(TimedOut, match="what served before still serves") as found:
        train(ready, budget=Budget(seconds=100, clock=staged.clock))
    assert found.value.exit_code == 4
    assert serving(ready) is None


def test_an_explicit_recipe_without_a_veto_is_all_or_nothing(ready: Synced, staged: Staged) -> None:
    staged.costs["mpda"] = 1000.0
    with pytest.raises(TimedOut):
        train(ready, recipe="mpda", veto=False, budget=Budget(seconds=100, clock=staged.clock))
    assert staged.done == ["train mpda"]


def test_without_a_rehearsal_the_simplest_training_comes_first(ready: Synced, staged: Staged) -> None:
    staged.prior.clear()
    staged.good = {"local"}
    outcome = train(ready, budget=Budget(seconds=10 / 0.9, clock=staged.clock))
    assert staged.done == ["train local", "evidence base,local", "evidence base,matched"]
    assert (outcome.shipped, outcome.omitted) == ("local", ["evidence for mpda"])


def test_a_budget_never_puts_the_base_in_the_place_of_what_serves(ready: Synced, staged: Staged) -> None:
    """Nothing is known of any recipe, and there is no time to find out."""
    staged.prior.clear()
    train(ready, recipe="local", veto=False)
    staged.costs["fold"] = 1000.0
    outcome = train(ready, budget=Budget(seconds=100, clock=staged.clock))
    assert (outcome.shipped, outcome.reason) == (
        "incumbent",
        "the time budget ended it before anything spoke against it",
    )
    assert serving(ready) == 1


def test_memory_that_runs_out_while_training_is_refused_and_nothing_changes(ready: Synced) -> None:
    resident = iter([100.0] * 30)
    budget = Budget(memory_mib=5000, resident_mib=lambda: next(resident, 6000.0))
    with pytest.raises(ResourcesRefused, match="memory budget"):
        train(ready, recipe="local", veto=False, budget=budget)
    assert serving(ready) is None


def test_with_less_memory_fewer_packs_are_read_and_the_outcome_says_so(
    ready: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = Need(200 - LATER_MIB, 0, MIB, 0, (10 * MIB, 10 * MIB), head_bytes=100 * MIB)
    monkeypatch.setattr(material, "_need", lambda *_: need)
    outcome = train(ready, recipe="matched", veto=False, budget=Budget(memory_mib=247, resident_mib=lambda: 200.0))
    assert (outcome.cut, outcome.omitted) == (
        "memory", ["memory: batches in pieces of 6 of 48", "memory: 1 of 2 sample files"]
    )  # fmt: skip
    slot = Models(ready.board.home, BOTH.id).current()
    assert slot is not None
    assert len(slot.lineage.packs) == 1


def test_with_memory_for_the_head_alone_the_other_layers_stay(ready: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.add(STYLE, per_class=12, seed=3)  # so many that all layers would be trained
    monkeypatch.setattr(material, "_need", lambda *_: Need(200 - LATER_MIB, 0, MIB, 0, (), head_bytes=MIB))
    outcome = train(ready, recipe="local", veto=False, budget=Budget(memory_mib=202, resident_mib=lambda: 100.0))
    assert outcome.omitted == ["memory: training of all layers but the last", "memory: 2 sample files"]
    slot = Models(ready.board.home, BOTH.id).current()
    assert slot is not None
    weights, _ = tensors.unpack((slot.folder / WEIGHTS).read_bytes(), what="weights", limit_bytes=1 << 20)
    base = world.base()
    assert {name for name in weights if not np.array_equal(weights[name], base[name])} == {"head.weight", "head.bias"}


def test_what_was_decided_for_want_of_memory_is_an_event(ready: Synced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "_need", lambda *_: Need(200 - LATER_MIB, 0, MIB, 0, (0, 0), head_bytes=MIB))
    outcome = train(ready, recipe="local", veto=False, budget=Budget(memory_mib=210, resident_mib=lambda: 100.0))
    assert [(event["kind"], event["line"]) for event in outcome.events] == [
        ("memory", "memory: batches in pieces of 6 of 48")
    ]


def test_a_battery_s_share_ends_with_the_best_so_far_shipped(ready: Synced, staged: Staged) -> None:
    """A second costs ten joules here: nine tenths of 100 J pay for a training and one set of folds."""
    staged.good = {"matched"}
    budget = Budget(joules=100, clock=staged.clock, used_joules=lambda: 10 * staged.clock.now)
    outcome = train(ready, budget=budget)
    assert staged.done == ["train matched", "evidence base,matched"]
    assert (outcome.shipped, outcome.cut, outcome.max_joules) == ("matched", "energy", 100)
    assert outcome.events[-1]["kind"] == "cut"
    assert serving(ready) == 1


def test_with_too_little_memory_to_load_torch_training_is_refused_before_the_kernel_ends_it() -> None:
    with pytest.raises(ResourcesRefused, match="120 MiB are free"):
        check_loadable(120.0)
    check_loadable(400.0)
    check_loadable(None)  # the system does not say


def test_a_budget_that_python_alone_exceeds_is_refused_with_its_exit_code(ready: Synced) -> None:
    done = ready.board.edgectl("train", "--max-memory-mib", "20")
    assert done.returncode == 6
    assert b"at the least, 20 MiB are allowed" in done.stderr
    assert b"--max-memory-mib" in done.stderr


def test_a_budget_in_the_settings_counts(ready: Synced) -> None:
    (ready.board.folder / "config" / "edgectl").mkdir(parents=True)
    (ready.board.folder / "config" / "edgectl" / "config.toml").write_text("train_memory_mib = 20\n")
    assert ready.board.edgectl("train").returncode == 6
    done = ready.board.edgectl("train", "--max-memory-mib", "4000", "--recipe", "local", "--no-veto", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["max_memory_mib"], said["cut"]) == (4000, "")
    assert 50 < said["peak_mib"] < 4000
