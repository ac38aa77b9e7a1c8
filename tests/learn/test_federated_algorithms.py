"""Federated algorithms on numbers that can be checked by hand: one weight `w`, boards that pull it to their samples."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from edgelearn.federated.algorithm import Algorithm, LocalSettings, Server, Update
from edgelearn.federated.arrays import Arrays, EmptyRound, WeightedMean, flat, unflat, weighted_mean
from edgelearn.federated.catalogue import ALGORITHMS, Surroundings, make
from edgelearn.federated.ensemble import Ensemble, mean_opinion
from edgelearn.federated.example import Opinion, Pull
from edgelearn.federated.fedavg import FedAvg
from edgelearn.federated.fedbuff import FedBuff
from edgelearn.federated.fedlaavg import FedLaAvg
from edgelearn.federated.fedopt import FedAdam, FedYogi
from edgelearn.federated.fedprox import FedProx
from edgelearn.federated.fedsgd import FedSgd
from edgelearn.federated.local import batches, local_sgd
from edgelearn.federated.mutual import Classroom
from edgelearn.federated.scaffold import Scaffold

WHOLE = LocalSettings(epochs=1, batch_size=0, learning_rate=0.5)  # one step over all samples, half the way
TWICE = LocalSettings(epochs=2, batch_size=0, learning_rate=0.5)


def w(*values: float) -> Arrays:
    return {"w": np.asarray(values, np.float32)}


def update(delta: float, samples: int = 1, *, board: str = "one", at: int = 0) -> Update:
    return Update(board, at, samples, 1, w(delta))


def step(
    algorithm: Algorithm, server: Server, samples: list[float], settings: LocalSettings, memory: Arrays | None = None
) -> tuple[Update, Arrays]:
    rng = np.random.default_rng(0)
    order = algorithm.order(server, settings)
    return algorithm.client_step(order, Pull(samples), board="one", memory=memory or {}, rng=rng)


def play(algorithm: Algorithm, boards: list[list[float]], settings: LocalSettings, rounds: int) -> float:
    """w after so many rounds in which all boards take part."""
    server, memories = algorithm.start(w(0)), [{} for _ in boards]  # type: list[Arrays]
    for _ in range(rounds):
        updates = []
        for number, samples in enumerate(boards):
            sent, memories[number] = step(algorithm, server, samples, settings, memories[number])
            updates.append(sent)
        server = algorithm.server_update(server, updates)
    return float(server.weights["w"][0])


def test_local_sgd_takes_two_halves_of_the_way():
    local, steps = local_sgd(Pull([8]), w(0), TWICE, np.random.default_rng(0))
    assert (local["w"].tolist(), steps) == ([6.0], 2)  # 0 -> 4 -> 6


def test_local_sgd_leaves_the_weights_it_was_given_alone():
    start = w(0)
    local_sgd(Pull([8]), start, WHOLE, np.random.default_rng(0))
    assert start["w"].tolist() == [0]


def test_every_epoch_sees_every_sample_once_and_its_last_batch_is_small():
    found = list(batches(5, LocalSettings(epochs=2, batch_size=2), np.random.default_rng(0)))
    assert [len(rows) for rows in found] == [2, 2, 1, 2, 2, 1]
    assert sorted(np.concatenate(found[:3]).tolist()) == [0, 1, 2, 3, 4]


def test_a_board_without_samples_cannot_train():
    with pytest.raises(ValueError, match="no samples"):
        local_sgd(Pull([]), w(0), WHOLE, np.random.default_rng(0))


def test_the_delta_is_local_minus_global():
    sent, _ = step(FedAvg(), Server(0, w(10)), [4], WHOLE)
    assert sent.delta["w"].tolist() == [-3]  # from 10 to 7
    assert sent.delta["w"].dtype == np.float32


def test_fedavg_weighs_boards_by_their_samples():
    server = FedAvg().server_update(Server(0, w(1)), [update(4, 1), update(0, 3)])
    assert (server.round, server.weights["w"].tolist()) == (1, [2])


def test_fedavg_reads_updates_one_at_a_time():
    alive = []

    def arriving():
        for number in range(3):
            alive.append(number)
            yield update(number)

    stream = arriving()
    FedAvg().server_update(Server(0, w(0)), stream)
    assert alive == [0, 1, 2]
    assert next(stream, None) is None


def test_the_mean_of_many_updates_needs_no_more_memory_than_that_of_a_few():
    size, start = 100_000, Server(0, {"w": np.zeros(100_000, np.float32)})

    def peak_bytes(count: int) -> int:
        updates = (Update("one", 0, 1, 1, {"w": np.ones(size, np.float32)}) for _ in range(count))
        tracemalloc.start()
        FedAvg().server_update(start, updates)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(60) < 1.1 * peak_bytes(3)


def test_fedsgd_with_one_step_of_everybody_is_sgd_over_all_samples():
    assert play(FedSgd(), [[2], [4, 6]], WHOLE, 1) == pytest.approx(2)  # half the way to the mean 4


def test_fedprox_without_mu_is_fedavg_and_with_it_stays_nearer():
    boards = [[0.0], [8.0]]
    assert play(FedProx(mu=0), boards, TWICE, 1) == play(FedAvg(), boards, TWICE, 1) == 3  # (0 + 6) / 2
    assert play(FedProx(mu=0.5), boards, TWICE, 1) == 2.5  # 4, then 4 − ½·(−4 + ½·4) = 5: 5 / 2


def test_scaffold_by_hand_over_two_rounds():
    algorithm = Scaffold(boards=2)
    server = algorithm.start(w(0))
    one, own = step(algorithm, server, [8], TWICE)
    assert one.delta["w"].tolist() == [6]
    assert own["w"].tolist() == [-6]  # (0 − 6) / (2 · ½)
    server = algorithm.server_update(server, [one])
    assert (server.weights["w"].tolist(), server.state["w"].tolist()) == ([6], [-3])  # c: half of the boards
    again, own = step(algorithm, server, [8], TWICE, own)
    # gradients −2 and then: y = 6 − ½·(−2 + 6 − 3) = 5.5; y = 5.5 − ½·(−2.5 + 3) = 5.25
    assert again.delta["w"].tolist() == [-0.75]
    assert own["w"].tolist() == [-6 + 3 + 0.75]  # c_i − c − Δ / (K η)
    assert again.extra["w"].tolist() == [3 + 0.75]


def test_scaffold_sends_twice_the_arrays():
    sent, _ = step(Scaffold(boards=2), Scaffold(boards=2).start(w(0)), [8], TWICE)
    assert sent.extra.keys() == sent.delta.keys()


def test_scaffold_ends_where_all_samples_pull_though_boards_take_different_numbers_of_steps():
    """FedAvg's fixed point is drawn to who takes more steps; SCAFFOLD's is the optimum of the mean loss."""

    def many_rounds(algorithm: Algorithm) -> float:
        server, memories = algorithm.start(w(0)), [{}, {}]  # type: list[Arrays]
        for _ in range(60):
            updates = []
            for number, (samples, epochs) in enumerate((([0.0], 1), ([8.0], 4))):
                settings = LocalSettings(epochs=epochs, batch_size=0, learning_rate=0.1)
                sent, memories[number] = step(algorithm, server, samples, settings, memories[number])
                updates.append(sent)
            server = algorithm.server_update(server, updates)
        return float(server.weights["w"][0])

    assert many_rounds(FedAvg()) > 6
    assert many_rounds(Scaffold(boards=2)) == pytest.approx(4, abs=0.05)


def test_fedadam_takes_the_step_of_the_paper():
    algorithm = FedAdam(server_rate=0.1, beta_1=0.9, beta_2=0.99, tau=1.0)
    server = algorithm.server_update(algorithm.start(w(0)), [update(2)])
    second = 0.99 * 1 + 0.01 * 4
    assert server.weights["w"][0] == pytest.approx(0.1 * 0.2 / (math.sqrt(second) + 1))
    assert (server.state["first/w"][0], server.state["second/w"][0]) == (np.float32(0.2), np.float32(second))


def test_fedyogi_lets_the_second_moment_shrink_no_faster_than_the_update_is_long():
    algorithm = FedYogi(beta_2=0.75, tau=2.0)
    server = algorithm.server_update(algorithm.start(w(0)), [update(1)])
    assert server.state["second/w"].tolist() == [4 - 0.25 * 1]
    adam = FedAdam(beta_2=0.75, tau=2.0)
    assert adam.server_update(adam.start(w(0)), [update(1)]).state["second/w"].tolist() == [0.75 * 4 + 0.25 * 1]


def test_fedlaavg_counts_a_board_that_is_away_by_its_latest_gradient():
    algorithm = FedLaAvg(boards=2)
    server = algorithm.start(w(0))
    first, memory = step(algorithm, server, [4], WHOLE)
    server = algorithm.server_update(server, [first])
    assert server.weights["w"].tolist() == [1]
    server = algorithm.server_update(server, [])
    assert server.weights["w"].tolist() == [2]
    second, _ = step(algorithm, server, [4], WHOLE, memory)
    assert second.delta["w"].tolist() == [1 - 2]  # now from 2 to 3, before from 0 to 2
    assert algorithm.server_update(server, [second]).weights["w"].tolist() == [2.5]  # 2 + 1/2


def test_fedbuff_halves_what_is_three_steps_late_and_takes_no_update_of_the_future():
    server = FedBuff().server_update(Server(3, w(0)), [update(8, at=0)])
    assert server.weights["w"].tolist() == [4]
    with pytest.raises(ValueError, match="yet to come"):
        FedBuff().server_update(Server(3, w(0)), [update(8, at=4)])


def test_an_ensemble_averages_opinions_not_weights():
    algorithm = Ensemble(members=2)
    server = algorithm.server_update(algorithm.start(w(0)), [update(1, 5), update(-1, 5, board="two"), update(9, 1)])
    likely = mean_opinion(server, lambda weights: np.array([[0.0, 2.0 * float(weights["w"][0])]]))
    assert likely[0] == pytest.approx([0.5, 0.5])
    assert server.weights["w"].tolist() == [0]


def test_a_round_without_updates_is_an_error_and_so_is_one_without_weight():
    with pytest.raises(EmptyRound):
        FedAvg().server_update(Server(0, w(0)), [])
    with pytest.raises(EmptyRound, match="zero"):
        weighted_mean([(w(1), 0), (w(2), 0)])


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_a_weight_that_cannot_be_is_an_error(weight: float):
    with pytest.raises(ValueError, match="from 0 up"):
        WeightedMean().add(w(1), weight)


def test_arrays_of_other_names_cannot_be_averaged():
    mean = WeightedMean()
    mean.add(w(1), 1)
    with pytest.raises(ValueError, match="other names"):
        mean.add({"v": np.zeros(1, np.float32)}, 1)


def test_a_long_mean_is_exact_to_float32():
    mean = weighted_mean((w(0.1), 1) for _ in range(10_000))
    assert mean["w"][0] == np.float32(0.1)


def test_a_flat_vector_and_back():
    arrays = {"b": np.float32([[1, 2], [3, 4]]), "a": np.float32([9])}
    back = unflat(flat(arrays), arrays)
    assert flat(arrays).tolist() == [9, 1, 2, 3, 4]
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


SURROUNDINGS = Surroundings(
    2,
    2.0,
    lambda weights: 0.0,
    np.random.default_rng,
    classroom=lambda: Classroom(Opinion(), Opinion(), np.array([0]), w(0)),
)


@pytest.mark.parametrize("name", sorted(name for name in ALGORITHMS if hasattr(ALGORITHMS[name], "server_rate")))
def test_whoever_offers_a_rate_of_the_server_goes_half_as_far_with_half_of_it(name):
    still = {"dp-fedavg": {"noise_multiplier": 0.0}, "mutual": {"passes": 0}}.get(name, {})
    whole, half = (make(ALGORITHMS[name], SURROUNDINGS, {"server_rate": rate, **still}) for rate in (1.0, 0.5))
    start = whole.start(w(0))
    updates = [step(whole, start, [value], TWICE)[0] for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    moved = whole.server_update(start, updates).weights["w"]
    assert half.server_update(start, updates).weights["w"] == pytest.approx(0.5 * moved)
    assert moved[0] != 0 or name == "ensemble"  # which keeps models, and moves none


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_the_same_updates_give_the_same_bits_and_change_nothing_they_were_given(name: str):
    algorithm = make(ALGORITHMS[name], SURROUNDINGS, {})
    server = algorithm.start(w(0))
    updates = [step(algorithm, server, [value], TWICE)[0] for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    before = [sent.delta["w"].copy() for sent in updates]
    first, second = algorithm.server_update(server, updates), algorithm.server_update(server, iter(updates))
    assert first.weights["w"].tobytes() == second.weights["w"].tobytes()
    assert server.weights["w"].tolist() == [0]
    assert [sent.delta["w"].tolist() for sent in updates] == [array.tolist() for array in before]


def test_an_option_that_an_algorithm_lacks_is_named_beside_those_it_has():
    assert make(ALGORITHMS["fedprox"], SURROUNDINGS, {"mu": 0.5}) == FedProx(mu=0.5)
    with pytest.raises(ValueError, match="no option 'nu'; it has: mu, server_rate"):
        make(ALGORITHMS["fedprox"], SURROUNDINGS, {"nu": 0.5})
    with pytest.raises(ValueError, match="no option 'boards'"):
        make(ALGORITHMS["scaffold"], SURROUNDINGS, {"boards": 7})
