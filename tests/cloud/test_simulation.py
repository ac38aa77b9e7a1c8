"""Simulated rounds: the same seed gives the same bytes, whatever happens in between; and `cloud-aug simulate`."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_aug.simulation.plan import Plan
from cloud_aug.simulation.play import Simulation
from cloud_aug.simulation.processes import Processes
from cloud_aug.simulation.world import World
from edgelearn.compression.catalogue import CODECS
from edgelearn.crowd import Crowd
from edgelearn.device import use_threads
from edgelearn.federated.algorithm import LocalSettings
from edgelearn.federated.catalogue import ALGORITHMS
from edgewire import samples
from edgewire.errors import Conflict, InvalidMessage, Offline, UsageError
from edgewire.files import exclusive
from tests.cloud import toys

PLAN = Plan(rounds=3, share=0.5, settings=LocalSettings(epochs=2, batch_size=8, learning_rate=0.1))


TEN = World(boards=10)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As the command has it: results depend on the number."""
    use_threads(1)


def crowd(world: World = TEN, *, judged: bool = True) -> Crowd:
    columns = toys.people(count=12)
    y = np.searchsorted(sorted(set(columns["y"].tolist())), columns["y"])
    data = samples.make(columns["x"].astype(np.float32), y, user=columns["user"])
    return world.crowd(toys.TASK, data, None, judged=judged)


def played(folder: Path, plan: Plan = PLAN, **world) -> Simulation:
    world |= {"peer": "mlp:24"} if plan.algorithm == "mutual" else {}
    simulation = Simulation(crowd(World(boards=10, **world)), plan, folder, world=f"{world}")
    simulation.run()
    return simulation


def bits(simulation: Simulation) -> dict[str, bytes]:
    arrays = simulation.server.weights | {f"state/{n}": a for n, a in simulation.server.state.items()}
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"dp-fedavg"}))
def test_boards_learn_by_every_algorithm(tmp_path, name):
    options = (("server_rate", 0.1),) if name in ("fedadam", "fedyogi") else ()
    settings = replace(PLAN.settings, epochs=20) if name == "ensemble" else PLAN.settings  # its boards start anew
    plan = replace(PLAN, algorithm=name, options=options, settings=settings, rounds=12)
    simulation = played(tmp_path, plan)
    untrained = simulation.crowd.score(simulation.crowd.logits(simulation.crowd.weights()))
    assert simulation.history[-1].score >= max(0.6, untrained)
    assert all(done.answered == 5 and not done.refused for done in simulation.history)


@pytest.mark.parametrize("name", ["scaffold", "fedlaavg", "fedbuff", "dp-fedavg", "ensemble", "mutual"])
def test_a_simulation_that_was_cut_off_ends_with_the_same_bits(tmp_path, name):
    plan = replace(PLAN, algorithm=name, compression="topk", down="changes", late=2, rounds=5)
    whole = played(tmp_path / "whole", plan)
    for rounds in (2, 4, 5):
        parts = played(tmp_path / "parts", replace(plan, rounds=rounds))
    assert bits(parts) == bits(whole)
    assert parts.history == whole.history


def test_a_peer_learns_what_it_could_not_from_the_servers_samples_alone(tmp_path):
    plan = replace(PLAN, algorithm="mutual", rounds=12)
    together = played(tmp_path / "together", plan).history[-1]
    alone = played(tmp_path / "alone", replace(plan, options=(("trust", 0.0),))).history[-1]
    assert together.peer_score > alone.peer_score
    assert played(tmp_path / "without").history[-1].peer_score is None


@pytest.mark.parametrize(
    ("peer", "why"),
    [("", "needs a model"), ("gpt", "no model"), ("mlp:2", "width"), ("cnn1d", "cannot learn this task")],
)
def test_a_peer_that_cannot_be_is_refused(tmp_path, peer, why):
    with pytest.raises((UsageError, InvalidMessage), match=why):
        Simulation(crowd(World(boards=10, peer=peer)), replace(PLAN, algorithm="mutual"), tmp_path, world="{}")


def test_a_peer_that_nobody_asked_for_is_refused(tmp_path):
    with pytest.raises(UsageError, match="learns with no other"):
        Simulation(crowd(World(boards=10, peer="mlp")), PLAN, tmp_path, world="{}")


def test_a_round_that_was_cut_off_in_the_middle_is_played_again_from_its_start(tmp_path):
    plan = replace(PLAN, algorithm="scaffold", rounds=4)
    whole = played(tmp_path / "whole", plan)
    first = Simulation(crowd(), plan, tmp_path / "parts", world="{}")
    first.next_round()
    first.next_round()
    learner, asked = first.crowd.learner, []

    def dies(board: str, rows):
        asked.append(board)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return learner(board, rows)

    first.crowd.learner = dies
    with pytest.raises(KeyboardInterrupt):
        first.next_round()
    assert bits(played(tmp_path / "parts", plan)) == bits(whole)


@pytest.mark.parametrize("name", ["scaffold", "leave-one-out", "dp-fedavg", "mutual"])
def test_several_processes_give_the_same_bits(tmp_path, name):
    plan = replace(PLAN, algorithm=name, compression="topk", late=2, drop=0.2)
    world = World(boards=10, peer="mlp:24" if name == "mutual" else "")
    with Processes(2) as players:
        there = Simulation(crowd(world), plan, tmp_path / "there", world="{}", players=players)
        there.run()
    here = played(tmp_path / "here", plan)
    assert bits(there) == bits(here)
    assert there.history == here.history


def test_a_process_that_is_killed_ends_the_round_and_the_run_goes_on(tmp_path):
    plan = replace(PLAN, rounds=2)
    with Processes(2) as players:
        first = Simulation(crowd(), plan, tmp_path / "there", world="{}", players=players)
        first.next_round()
        for child in multiprocessing.active_children():
            child.kill()
        with pytest.raises(Offline, match="was killed"):
            first.next_round()
    assert bits(played(tmp_path / "there", plan)) == bits(played(tmp_path / "here", plan))


def test_what_a_board_refuses_on_another_process_comes_back_as_it_was(tmp_path):
    noisy = replace(PLAN, algorithm="scaffold", noise=1.0)
    with Processes(1) as players, pytest.raises(UsageError, match="sends more"):
        Simulation(crowd(), noisy, tmp_path, world="{}", players=players).run()


def test_a_round_in_which_nothing_counts_leaves_boards_the_memories_that_they_had(tmp_path):
    # of five invited too few answer where an attacker is refused
    plan = replace(PLAN, algorithm="multi-krum", compression="topk", attack="nan", attackers=0.5, rounds=8)
    simulation = Simulation(crowd(), plan, tmp_path, world="{}")
    memories = dict[str, bytes]()
    for _ in range(plan.rounds):
        before = bits(simulation)
        simulation.next_round()
        now = {path.name.partition(".")[0]: path.read_bytes() for path in (tmp_path / "memory").iterdir()}
        if bits(simulation) == before:
            assert now == memories
        memories = now
    assert any(done.refused for done in simulation.history)


def test_memories_of_earlier_rounds_are_deleted(tmp_path):
    played(tmp_path, replace(PLAN, algorithm="scaffold", rounds=6))
    files = [file.name.partition(".")[0] for file in (tmp_path / "memory").iterdir()]
    assert len(files) == len(set(files)) <= 10


def test_another_seed_plays_otherwise(tmp_path):
    assert bits(played(tmp_path / "a")) != bits(played(tmp_path / "b", replace(PLAN, seed=1)))


def test_a_folder_of_another_simulation_is_not_gone_on_with(tmp_path):
    played(tmp_path)
    with pytest.raises(Conflict, match="another simulation"):
        played(tmp_path, replace(PLAN, share=0.2))
    with pytest.raises(Conflict, match="another simulation"):
        played(tmp_path, split="shards")


@pytest.mark.parametrize("split", ["iid", "shards", "dirichlet", "user", "quantity", "feature", "concept"])
def test_every_split_deals_to_all_boards(split):
    dealt = crowd(World(split=split, boards=10))
    assert sum(dealt.samples(board) for board in dealt.boards) > 100


@pytest.mark.parametrize("name", CODECS)
def test_compressed_updates_are_smaller_and_boards_still_learn(tmp_path, name):
    simulation = played(tmp_path, replace(PLAN, compression=name, rounds=15))
    plain = played(tmp_path / "plain", replace(PLAN, rounds=1))
    assert simulation.history[-1].score > 0.6
    assert (simulation.history[0].bytes_up < plain.history[0].bytes_up) == (name != "none")


@pytest.mark.parametrize("name", ["eight-bit", "changes"])
def test_less_goes_down_and_boards_still_learn(tmp_path, name):
    simulation = played(tmp_path, replace(PLAN, down=name, rounds=12, share=1.0))
    plain = played(tmp_path / "plain", replace(PLAN, rounds=12, share=1.0))
    assert simulation.history[-1].score > 0.6
    assert simulation.history[-1].bytes_down < 0.6 * plain.history[-1].bytes_down


def test_boards_that_hold_nothing_yet_are_sent_the_whole(tmp_path):
    first, second = played(tmp_path, replace(PLAN, down="changes", rounds=2, share=1.0)).history
    assert first.bytes_down == played(tmp_path / "plain", replace(PLAN, rounds=1, share=1.0)).history[0].bytes_down
    assert second.bytes_down < first.bytes_down


def test_changes_of_submodels_are_not_offered(tmp_path):
    with pytest.raises(UsageError, match="whole models"):
        played(tmp_path, replace(PLAN, algorithm="fedsubavg", down="changes"))


def test_scaffold_pays_twice_both_ways(tmp_path):
    avg = played(tmp_path / "a").history[0]
    scaffold = played(tmp_path / "b", replace(PLAN, algorithm="scaffold")).history[0]
    assert 1.8 < scaffold.bytes_up / avg.bytes_up < 2.2
    assert 1.8 < scaffold.bytes_down / avg.bytes_down < 2.2


def test_boards_that_drop_are_invited_and_do_not_answer(tmp_path):
    done = played(tmp_path, replace(PLAN, drop=0.5, rounds=6)).history
    assert 5 < sum(r.answered for r in done) < 25
    assert sum(r.invited for r in done) == 30


def test_a_round_in_which_everybody_drops_changes_nothing_and_ends(tmp_path):
    simulation = played(tmp_path, replace(PLAN, drop=1.0))
    assert [done.answered for done in simulation.history] == [0, 0, 0]
    assert bits(simulation) == {name: array.tobytes() for name, array in crowd().weights().items()}


def test_updates_that_are_not_numbers_are_refused_and_the_rest_counts(tmp_path):
    simulation = played(tmp_path, replace(PLAN, attack="nan", attackers=0.4, rounds=6))
    assert sum(done.refused for done in simulation.history) > 5
    assert all(np.isfinite(array).all() for array in simulation.server.weights.values())


def test_the_median_withstands_attackers_that_ruin_the_mean(tmp_path):
    attacked = replace(PLAN, attack="flip", attackers=0.2, share=1.0, rounds=8)
    mean = played(tmp_path / "mean", attacked).history[-1].score
    assert played(tmp_path / "median", replace(attacked, algorithm="median")).history[-1].score > mean


def test_late_updates_count_for_fedbuff_only(tmp_path):
    late = replace(PLAN, late=3, rounds=6)
    assert sum(done.late for done in played(tmp_path / "a", late).history) > 0
    buffered = played(tmp_path / "b", replace(late, algorithm="fedbuff")).history
    assert sum(done.late for done in buffered) == 0
    assert all(done.answered == 5 for done in buffered)


def test_boards_take_turns_in_being_online(tmp_path):
    simulation = Simulation(
        crowd(World("shards", 10)), replace(PLAN, turn_rounds=2, share=1.0), tmp_path, world="turns"
    )
    simulation.run()
    assert simulation.history[0].invited + simulation.history[2].invited == 10


def test_noise_is_accounted_for(tmp_path):
    server = played(tmp_path / "a", replace(PLAN, algorithm="dp-fedavg", options=(("noise_multiplier", 2.0),)))
    boards = played(tmp_path / "b", replace(PLAN, noise=2.0))
    assert 0 < server.epsilon() < 20
    assert 0 < boards.epsilon() < 20
    assert played(tmp_path / "c").epsilon() is None


def test_without_noise_there_is_no_epsilon_to_tell_of(tmp_path):
    silent = replace(PLAN, algorithm="dp-fedavg", options=(("noise_multiplier", 0.0),))
    assert played(tmp_path, silent).epsilon() is None


@pytest.mark.parametrize("name", ["scaffold", "fedlaavg"])
def test_what_boards_send_or_go_on_from_does_not_go_without_noise(tmp_path, name):
    with pytest.raises(UsageError, match="without noise"):
        played(tmp_path, replace(PLAN, algorithm=name, noise=1.0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"algorithm": "fedmagic"}, "no algorithm 'fedmagic'"),
        ({"algorithm": "fedprox", "options": (("nu", 1.0),)}, "no option 'nu'"),
        ({"algorithm": "no.such:Thing"}, "cannot import"),
        ({"algorithm": "json:JSONDecoder"}, "no class that derives"),
        ({"compression": "zip"}, "no compression 'zip'"),
        ({"down": "hill"}, "no way down 'hill'"),
        ({"attack": "nice"}, "no attack 'nice'"),
        ({"algorithm": "multi-krum", "share": 0.2}, "makes nothing of 2 updates"),
        ({"attack": "flip"}, "add --attackers"),
        ({"attackers": 0.1}, "add --attack,"),
    ],
)
def test_a_plan_that_cannot_be_says_what_could(tmp_path, changes, reason):
    with pytest.raises(UsageError, match=reason):
        Simulation(crowd(), replace(PLAN, **changes), tmp_path, world="w")


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (World(split="odd"), "no split 'odd'"),
        (World(split="user", boards=1000), "cannot be 1000 boards"),
        (World(boards=100_000), "fewer boards"),
        (World(split="dirichlet", skew=0.0), "above 0"),
    ],
)
def test_a_world_that_cannot_be_says_why(world, reason):
    with pytest.raises(UsageError, match=reason):
        crowd(world)


QUICK = ("--boards", "6", "--rounds", "2", "--share", "0.5", "--epochs", "1", "--json")


def simulate(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The command as a user runs it: its exit code, and what it says as JSON."""
    line = [sys.executable, "-m", "cloud_aug", "simulate", *arguments, *QUICK]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=toys.environment(), check=False)
    return done.returncode, json.loads(done.stdout)


def test_the_command_goes_on_where_it_was_and_reports_every_round(tmp_path):
    file, out = str(toys.data_file(tmp_path / "people.npz")), ("--processes", "2", "--out", str(tmp_path / "run"))
    code, first = simulate(file, *out)
    assert (code, first["schema_version"], first["epsilon"]) == (0, 1, None)
    assert [done["number"] for done in first["rounds"]] == [0, 1]
    assert first["bytes_up"] == sum(done["bytes_up"] for done in first["rounds"]) > 0
    assert simulate(file, *out)[1] == first
    code, refused = simulate(file, *out, "--seed", "9")
    assert (code, refused["error"]["code"]) == (1, "conflict")


def test_an_option_without_a_number_is_a_usage_error(tmp_path):
    code, said = simulate(str(toys.data_file(tmp_path / "people.npz")), "--set", "mu")
    assert (code, said["error"]["hint"]) == (2, "write for example --set mu=0.1")


def test_two_processes_do_not_play_in_one_folder(tmp_path):
    with exclusive(tmp_path / "lock", doing="testing"):
        code, said = simulate(str(toys.data_file(tmp_path / "people.npz")), "--out", str(tmp_path))
    assert (code, said["error"]["code"]) == (9, "busy")


def test_item_ids_have_no_feature_skew():
    data = samples.make(np.arange(40, dtype=np.int32).reshape(20, 2), np.arange(20) % 2)
    with pytest.raises(UsageError, match="item ids"):
        World("feature", boards=5).crowd(toys.TASK, data, None, judged=False)
