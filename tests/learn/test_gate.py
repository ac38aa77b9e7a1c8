import math

import numpy as np
import pytest

from edgelearn.personalize.gate import alpha_shares, gate, mean_and_error, student_quantile
from edgelearn.personalize.match import nearest, rank
from edgelearn.personalize.mpda import mpda
from tests.learn import world

STYLE = world.style(7, 1.6)


def _others(count: int) -> list:
    return [world.candidate(f"other-{i}", *world.samples(world.style(200 + i, 1.6), 15, i)) for i in range(count)]


def test_a_planted_similar_contributor_is_matched_first_and_kept():
    twin = world.candidate("twin", *world.samples(STYLE, 30, 5))
    setting = world.board(STYLE, [*_others(6), twin])
    assert rank(setting)[0][1].name == "twin"
    assert "twin" in mpda(setting).kept


def test_a_contributor_with_flipped_labels_is_refused():
    x, y = world.samples(STYLE, 30, 5)
    liar = world.candidate("liar", x, (y + 1) % world.CLASSES)
    gated = gate(world.board(STYLE, [liar]), world.base(), [liar])
    assert gated.kept == ()
    assert gated.verdicts[0].improvement < 0


def test_with_only_useless_candidates_nine_of_ten_boards_keep_none():
    empty_handed = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        useless = []
        for i in range(8):
            x, y = world.samples(world.style(3000 + 10 * seed + i, 0.3), 8, seed)
            useless.append(world.candidate(f"u{i}", x, rng.permutation(y)))
        setting = world.board(world.style(5000 + seed, 0.3), useless, per_class=5, seed=seed)
        empty_handed += not gate(setting, setting.base, nearest(setting)).kept
    assert empty_handed >= 45


def test_what_the_gate_refuses_leaves_the_weights_alone():
    x, y = world.samples(STYLE, 30, 5)
    liar = world.candidate("liar", x, (y + 1) % world.CLASSES)
    gated = gate(world.board(STYLE, [liar]), world.base(), [liar])
    assert gated.weights is world.base()


def test_one_recording_is_one_observation():
    values = np.array([1.0, 1.0, 1.0, 0.0])
    mean, error, freedom = mean_and_error(values, np.array([0, 0, 0, 1]))
    assert (mean, freedom) == (0.5, 1)
    assert error == pytest.approx(0.5)


def test_a_single_recording_proves_nothing():
    assert mean_and_error(np.array([1.0, 2.0]), np.array([3, 3])) == (1.5, math.inf, 0)


@pytest.mark.parametrize(
    ("p", "freedom", "expected"),
    [(0.95, 1, 6.3138), (0.975, 2, 4.3027), (0.95, 9, 1.8331), (0.99, 30, 2.4573)],  # printed tables of Student's t
)
def test_student_quantile_agrees_with_printed_tables(p, freedom, expected):
    assert student_quantile(p, freedom) == pytest.approx(expected, abs=1e-4)


def test_shares_of_alpha_fall_with_rank_and_add_up():
    shares = alpha_shares(3, 0.11)
    assert shares == pytest.approx([0.06, 0.03, 0.02])
