"""Planted attackers, updates that must be refused, what each board is worth, and who is invited."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from edgelearn.federated.algorithm import LocalSettings, Order, Server, Update
from edgelearn.federated.arrays import EmptyRound, norm
from edgelearn.federated.attacks import ATTACKS
from edgelearn.federated.cohort import at_random, by_coin, longest_absent
from edgelearn.federated.contribution import FedLeaveOneOut, contributions
from edgelearn.federated.fedavg import FedAvg
from edgelearn.federated.krum import MultiKrum
from edgelearn.federated.median import FedMedian
from edgelearn.federated.norm_clipping import FedNormClip
from edgelearn.federated.trimmed_mean import FedTrimmedMean
from edgelearn.federated.updates import Limits, UpdateRefused, check_update

HONEST = np.float32([1.0, -1.0, 0.5])
START = Server(0, {"w": np.zeros(3, np.float32)})
ORDER = Order(0, START.weights, LocalSettings())


def honest(number: int) -> Update:
    noise = np.random.default_rng(number).normal(0, 0.05, 3)
    return Update(f"honest-{number}", 0, 10, 1, {"w": (HONEST + noise).astype(np.float32)})


def cohort(attack: str, attackers: int = 3, of: int = 10) -> list[Update]:
    rng = np.random.default_rng(1)
    updates = [honest(number) for number in range(of)]
    return [ATTACKS[attack](update, rng) if n < attackers else update for n, update in enumerate(updates)]


def error(algorithm: FedAvg, updates: list[Update]) -> float:
    return float(np.abs(algorithm.server_update(START, updates).weights["w"] - HONEST).max())


@pytest.mark.parametrize("attack", ["flip", "noise", "greedy"])
@pytest.mark.parametrize("algorithm", [FedMedian(), FedTrimmedMean(share=0.3), MultiKrum(attackers=3)])
def test_three_attackers_of_ten_cannot_move_a_robust_rule_far(algorithm: FedAvg, attack: str):
    assert error(algorithm, cohort(attack)) < 0.25
    assert error(FedAvg(), cohort(attack)) > 0.5


def test_clipping_bounds_what_attackers_do_without_undoing_it():
    moved = error(FedNormClip(limit=2.0), cohort("flip"))
    assert 0.3 < moved < error(FedAvg(), cohort("flip"))


def test_without_attackers_robust_rules_agree_with_the_mean():
    for algorithm in (FedMedian(), FedTrimmedMean(share=0.1), MultiKrum(attackers=1), FedNormClip(limit=100.0)):
        assert error(algorithm, cohort("flip", attackers=0)) < 0.1


def test_krum_alone_takes_the_one_update_that_has_most_company():
    updates = [replace(honest(0), board=str(v), delta={"w": np.float32([v])}) for v in (0, 1, 1.5, 2, 50)]
    assert MultiKrum(attackers=1, keep=1).combine(updates)["w"].tolist() == [1.5]


def test_krum_tells_long_vectors_apart_that_differ_little():
    updates = [replace(honest(0), delta={"w": np.float32([1e4 + v])}) for v in (0, 0.01, 0.02, 0.03, 1)]
    assert MultiKrum(attackers=1).combine(updates)["w"][0] == pytest.approx(1e4 + 0.015, abs=2e-3)


@pytest.mark.parametrize("rule", [MultiKrum(attackers=2), FedMedian(), FedTrimmedMean()])
def test_a_rule_takes_its_cohort_once_more_and_no_more_often(rule):
    updates = [Update(str(w), 0, 1, 1, {"w": np.full(50_000, w, np.float32)}) for w in range(20)]
    tracemalloc.start()
    try:
        rule.combine(updates)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1.5 * sum(update.delta["w"].nbytes for update in updates)


def test_too_few_updates_for_a_rule_are_an_empty_round():
    with pytest.raises(EmptyRound, match="too few for Krum"):
        MultiKrum(attackers=2).server_update(START, [honest(number) for number in range(6)])
    with pytest.raises(EmptyRound, match="leave out"):
        FedTrimmedMean(share=0.5).server_update(START, [honest(0), honest(1)])
    with pytest.raises(EmptyRound, match="no update"):
        FedMedian().server_update(START, [])


def value(weights) -> float:
    return -float(np.square(weights["w"] - HONEST).sum())


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_a_contribution_is_the_exact_difference_that_leaving_out_makes(rate):
    updates = [replace(honest(number), num_samples=number + 1) for number in range(4)]
    told: dict[str, float] = {}
    FedLeaveOneOut(value=value, server_rate=rate, judged=told.update).server_update(START, updates)
    for update in updates:
        others = [other for other in updates if other is not update]
        difference = value(FedAvg(rate).server_update(START, updates).weights) - value(
            FedAvg(rate).server_update(START, others).weights
        )
        assert told[update.board] == pytest.approx(difference, abs=1e-6)


def test_a_saboteur_contributes_less_than_nothing_and_is_left_out():
    updates = cohort("flip", attackers=1)
    worth = contributions(START, updates, value)
    assert min(worth, key=lambda board: worth[board]) == "honest-0"
    assert worth["honest-0"] < 0
    assert error(FedLeaveOneOut(value=value, margin=0.01), updates) < 0.1


def test_a_round_that_would_be_better_without_each_of_its_boards_says_so():
    apart = FedLeaveOneOut(value=lambda weights: abs(float(weights["w"][0])))  # together they go nowhere
    updates = [Update(str(w), 0, 1, 1, {"w": np.float32([w])}) for w in (1, -1)]
    with pytest.raises(EmptyRound, match="none of 2 updates is worth counting"):
        apart.server_update(Server(0, {"w": np.float32([0])}), updates)


def test_there_is_no_contribution_of_a_single_board():
    with pytest.raises(EmptyRound):
        contributions(START, [honest(0)], value)


GOOD = Update("one", 0, 10, 5, {"w": np.float32([1, 2, 3])})


def test_an_update_that_answers_the_order_passes():
    check_update(GOOD, ORDER, Limits())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 1}, "round 1, not 0"),
        ({"delta": {"v": np.zeros(3, np.float32)}}, "other names"),
        ({"delta": {}}, "other names"),
        ({"delta": {"w": np.zeros((3, 1), np.float32)}}, r"float32\[3, 1\], expected float32\[3\]"),
        ({"delta": {"w": np.zeros(3, np.float64)}}, "float64"),
        ({"delta": {"w": np.zeros(3, np.int32)}}, "int32"),
        ({"delta": {"w": np.float32([0, np.nan, 0])}}, "not finite"),
        ({"delta": {"w": np.float32([0, np.inf, 0])}}, "not finite"),
        ({"delta": {"w": np.float32([0, 3e38, 3e38])}}, "norm"),
        ({"delta": {"w": np.float32([0, 0, 1001])}}, "the limit is 1000"),
        ({"num_samples": 0}, "num_samples"),
        ({"num_samples": -5}, "num_samples"),
        ({"num_samples": True}, "num_samples"),
        ({"num_samples": 2.5}, "num_samples"),
        ({"num_samples": 10**9}, "num_samples"),
        ({"steps": 0}, "steps"),
        ({"extra": {"w": np.zeros(3, np.float32)}}, "extra has other names"),
        ({"rows": {"t": np.array([1])}}, "rows of other tables"),
    ],
)
def test_an_update_that_does_not_is_refused_with_its_reason(changes, reason):
    with pytest.raises(UpdateRefused, match=reason):
        check_update(replace(GOOD, **changes), ORDER, Limits())


def test_an_update_for_other_rows_than_were_sent_is_refused():
    order = replace(ORDER, rows={"w": np.array([1, 2, 5])})
    check_update(replace(GOOD, rows={"w": np.array([1, 2, 5])}), order, Limits())
    with pytest.raises(UpdateRefused, match="not those that were sent"):
        check_update(replace(GOOD, rows={"w": np.array([1, 2, 6])}), order, Limits())


def test_attackers_do_what_they_are_named_after():
    rng = np.random.default_rng(0)
    assert ATTACKS["flip"](GOOD, rng).delta["w"].tolist() == [-5, -10, -15]
    assert norm(ATTACKS["noise"](GOOD, rng).delta) == pytest.approx(10 * norm(GOOD.delta), rel=1e-5)
    assert ATTACKS["greedy"](GOOD, rng).num_samples == 1000
    with pytest.raises(UpdateRefused, match="not finite"):
        check_update(ATTACKS["nan"](GOOD, rng), ORDER, Limits())


BOARDS = [f"b{number}" for number in range(1000)]


def test_cohorts_follow_from_seed_and_round():
    first = at_random(BOARDS, 10, seed=1, round_number=2)
    assert first == at_random(BOARDS, 10, seed=1, round_number=2)
    assert first != at_random(BOARDS, 10, seed=1, round_number=3)
    assert len(set(first)) == 10
    assert at_random(BOARDS[:3], 10, seed=1, round_number=2) == BOARDS[:3]


def test_by_coin_the_size_of_a_cohort_varies_around_its_share():
    sizes = [len(by_coin(BOARDS, 0.1, seed=0, round_number=number)) for number in range(50)]
    assert len(set(sizes)) > 10
    assert np.mean(sizes) == pytest.approx(100, abs=5)


def test_all_boards_have_their_turn_if_the_longest_absent_go_first():
    last: dict[str, int] = {}
    for number in range(4):
        last |= dict.fromkeys(longest_absent(BOARDS[:20], 5, last), number)
    assert set(last) == set(BOARDS[:20])
