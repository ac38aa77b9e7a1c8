"""The service and the simulation play the same rounds: equal bits after three of them, for every way to count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cloud_aug.cloud import Cloud
from cloud_aug.rounds import series as all_series
from cloud_aug.rounds.plan import Series
from cloud_aug.simulation.plan import Plan as Simulated
from cloud_aug.simulation.play import Simulation
from edgelearn.compression.catalogue import CODECS
from edgelearn.crowd import Crowd
from edgelearn.federated import turn
from edgelearn.federated.algorithm import LocalSettings, Order
from edgelearn.federated.catalogue import ALGORITHMS, Surroundings, make
from edgelearn.federated.splits import iid
from edgelearn.models.build import build, set_weights
from edgewire import tensors
from edgewire.rounds import Local, Parts, UpdateMeta, pack_update
from tests.cloud import toys
from tests.cloud.players import PLAN, Player, begun, gathered, move_on

BACKENDS = ("files",)
ROUNDS, SEED = 3, 11
LOCAL = Local(epochs=2, batch_size=8, learning_rate=0.1)


@pytest.fixture
def players(client, cloud, clock):
    made = [Player(client, cloud, clock) for _ in range(4)]
    return sorted(made, key=lambda player: player.id)  # the service counts in this order


def crowd_of(cloud: Cloud, made: Series) -> Crowd:
    """Four boards, and a model with the base's weights."""
    model = build(toys.TASK)
    raw = cloud.blobs.read(made.base.weights.digest)
    set_weights(model, tensors.unpack(raw, what="base", limit_bytes=1 << 20)[0])
    columns = toys.people(count=8)
    y = np.searchsorted(sorted(toys.TASK.labels), columns["y"]).astype(np.int64)
    parts = iid(len(y), 4, np.random.default_rng(0))
    return Crowd(model, columns["x"], y, parts, (columns["x"], y))


def play_over_http(player: Player, place: int, crowd: Crowd, compression: str, memory: turn.Memory) -> turn.Memory:
    """What a board does, with the simulation's random numbers."""
    invitation = player.join()
    assert invitation is not None
    sent = player.order(invitation)
    number = invitation.number - 1
    settings = LocalSettings(LOCAL.epochs, LOCAL.batch_size, LOCAL.learning_rate)
    rng = np.random.default_rng((SEED, number, 4, place))
    rng.integers(0, 1)  # how late the simulation lets it be
    rng.random()  # whether it drops out there
    surroundings = Surroundings(invitation.boards, 4.0, lambda weights: 0.0, np.random.default_rng)
    update, memory = turn.play(
        make(ALGORITHMS[invitation.algorithm], surroundings, {}),
        CODECS[compression],
        Order(number, sent.main, settings, sent.extra),
        crowd.learner(f"board-{place}"),
        board=player.id,
        memory=memory,
        rng=rng,
    )
    upload_id = f"{number:016x}{place:016x}"
    meta = UpdateMeta(invitation.series, invitation.number, player.id, upload_id, update.num_samples, update.steps)
    assert player.send(invitation, upload_id, pack_update(Parts(update.delta, update.extra), meta)).status_code == 200
    return memory


@pytest.mark.parametrize(
    ("algorithm", "compression", "down"),
    [
        ("fedavg", "none", "none"),
        ("scaffold", "topk", "changes"),
        ("fedlaavg", "none", "none"),
        ("fedyogi", "eight-bit", "eight-bit"),
        ("median", "one-bit", "changes"),
    ],
)
def test_rounds_over_https_end_with_the_bits_of_the_simulation(
    cloud, clock, players, tmp_path, algorithm, compression, down
):
    plan = replace(PLAN, algorithm=algorithm, compression=compression, down=down)
    plan = replace(plan, rounds=ROUNDS, cohort=4, local=LOCAL, seed=SEED)
    made = begun(cloud, clock, plan)
    crowd = crowd_of(cloud, made)
    simulated = Simulated(
        algorithm=algorithm, compression=compression, down=down, rounds=ROUNDS, share=1.0, seed=SEED,
        settings=LocalSettings(LOCAL.epochs, LOCAL.batch_size, LOCAL.learning_rate),
    )  # fmt: skip
    simulation = Simulation(crowd, simulated, tmp_path / "simulation", world="toys")
    memories = [turn.Memory()] * 4
    for number in range(ROUNDS):
        gathered(players, made.id)
        memories = [
            play_over_http(player, place, crowd, compression, memories[place]) for place, player in enumerate(players)
        ]
        assert move_on(cloud, made.id, clock).closed == number + 1
    simulation.run()
    with cloud.database.reading() as connection:
        server = all_series.load_server(cloud, all_series.last_server(connection, made), ROUNDS)
    assert {name: array.tobytes() for name, array in server.weights.items()} == {
        name: array.tobytes() for name, array in simulation.server.weights.items()
    }
    assert server.state.keys() == simulation.server.state.keys()
