"""Which simulations `benchmarks.federated` plays, group by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from cloud_aug.simulation.plan import Plan
from edgelearn.federated.algorithm import LocalSettings

BOARDS = 100
TARGETS = {"2nn": 0.97, "lenet5": 0.99}
REFERENCE = {  # rounds until TARGETS, by model, batch size and C
    "2nn": {10: (107, 28, 34, 38, 35), 100: (288, 99, 99, 101, 102)},
    "lenet5": {10: (236, 82, 51, 49, 38), 100: (724, 80, 90, 114, 134)},
}
SHARES = (0.0, 0.1, 0.2, 0.5, 1.0)
STARTS = (
    "2nn standardised",
    "2nn standardised he",
    "2nn standardised glorot",
    "2nn he",
    "2nn glorot",
    "lenet5 standardised he",
)
EPOCHS = {  # E: rounds until 97 % with C = 0.1, by batch size and learning rate
    (10, 0.01): {5: 50, 10: 32, 20: 30},
    (100, 0.04): {5: 99, 10: 59, 20: 40},
}
PASSES = {200: (21, 23.6), 100: (11, 14.4), 50: (6, 10.2), 10: (3, 5.4)}  # over all data until 97 %, by batch size:
# in one place, and by one board after the other (E = 5); learning rate 0.04
PATIENCE = 1.5  # times the reference's rounds, after which a cell is given up
ROUNDS = 30  # of all groups without a target
ALGORITHMS = ("fedsgd", "fedavg", "fedprox", "scaffold", "fedadam", "fedyogi", "fedlaavg", "fedbuff", "ensemble")
ROBUST = {
    "fedavg": (),
    "median": (),
    "trimmed-mean": (("share", 0.3),),
    "multi-krum": (("attackers", 3.0),),
    "norm-clipping": (),
    "leave-one-out": (),
}
OPTIONS = {
    **ROBUST,
    "fedprox": (("mu", 0.1),),
    "fedadam": (("server_rate", 0.01),),
    "fedyogi": (("server_rate", 0.01),),
    "dp-fedavg": (("clip", 1.0), ("noise_multiplier", 0.3)),
}
ONE_EPOCH = Plan(settings=LocalSettings(epochs=1, batch_size=10, learning_rate=0.04), rounds=ROUNDS)


@dataclass(frozen=True)
class Case:
    """One simulation. target: accuracy at which it may stop; reference: how many of `unit` it took the reference until
    then (0: unknown); per_round: how many of `unit` a round is; last: rounds over whose accuracy the mean is taken;
    peer: a model that learns with the boards' one; own: samples that the server has, where a rule needs some."""

    group: str
    name: str
    model: str
    split: str
    plan: Plan
    target: float | None = None
    reference: float = 0
    unit: str = "rounds"
    per_round: float = 1
    boards: int = BOARDS
    last: int = 5
    peer: str = ""
    own: int = 500


def table(seeds: int) -> Iterator[Case]:
    for model, rows in REFERENCE.items():
        for batch, cells in rows.items():
            for share, reference in zip(SHARES, cells, strict=True):
                for seed in range(1 if share >= 0.5 else seeds):
                    name = f"{model} B={batch} C={share}"
                    yield _to_target("table", name, model, 5, batch, 0.04, share, reference, seed=seed)


def start(seeds: int) -> Iterator[Case]:
    """One cell of the table, B = 100 and C = 0.1, with other initializations and input scalings."""
    for model in STARTS:
        kind = model.split()[0]
        for seed in range(seeds):
            reference = REFERENCE[kind][100][SHARES.index(0.1)]
            cell = _to_target("start", f"{model} B=100 C=0.1", kind, 5, 100, 0.04, 0.1, reference, seed=seed)
            yield replace(cell, model=model)


def epochs(seeds: int) -> Iterator[Case]:
    for (batch, rate), cells in EPOCHS.items():
        for count, reference in cells.items():
            name = f"2nn E={count} B={batch} rate {rate}"
            yield _to_target("epochs", name, "2nn", count, batch, rate, 0.1, reference)


def compute(seeds: int) -> Iterator[Case]:
    for batch, (central, federated) in PASSES.items():
        one = _to_target("compute", f"2nn in one place B={batch}", "2nn", 1, batch, 0.04, 1.0, central)
        yield replace(one, boards=1, unit="passes")
        turns = federated * BOARDS / 5
        one = _to_target("compute", f"2nn board by board B={batch}", "2nn", 5, batch, 0.04, 0.0, turns)
        yield replace(one, reference=federated, unit="passes", per_round=5 / BOARDS)


def _to_target(
    group: str,
    name: str,
    model: str,
    count: int,
    batch: int,
    rate: float,
    share: float,
    rounds: float,
    *,
    seed: int = 0,
) -> Case:
    settings = LocalSettings(epochs=count, batch_size=batch, learning_rate=rate)
    plan = Plan(share=share, settings=settings, rounds=int(PATIENCE * rounds), seed=seed)
    return Case(group, name, f"{model} standardised", "iid", plan, TARGETS[model], rounds)


def algorithms(seeds: int) -> Iterator[Case]:
    for split in ("shards", "writers", "dirichlet", "quantity", "feature", "concept"):
        for name in (*ALGORITHMS, *(name for name in ROBUST if name not in ALGORITHMS), "dp-fedavg"):
            late = 4 if name == "fedbuff" else 0
            plan = replace(ONE_EPOCH, algorithm=name, options=OPTIONS.get(name, ()), late=late)
            yield Case("algorithms", f"{name} on {split}", "2nn", split, plan)


def compression(seeds: int) -> Iterator[Case]:
    for split in ("iid", "shards"):
        for name in ("none", "eight-bit", "one-bit", "topk", "dgc", "sparse"):
            yield Case(
                "compression", f"compression {name} on {split}", "2nn", split, replace(ONE_EPOCH, compression=name)
            )
        for down in ("eight-bit", "changes"):
            yield Case("compression", f"down {down} on {split}", "2nn", split, replace(ONE_EPOCH, down=down))


def attack(seeds: int) -> Iterator[Case]:
    for name, options in ROBUST.items():
        for kind in ("flip", "greedy", "nan"):
            plan = replace(ONE_EPOCH, algorithm=name, options=options, attack=kind, attackers=0.2)
            yield Case("attack", f"{name} with 20 % sending {kind} on iid", "2nn", "iid", plan)


def faults(seeds: int) -> Iterator[Case]:
    """Three boards of ten do not answer, and one of ten sends what is no update, or one to do harm. Multi-Krum against
    three attackers counts no round with fewer than nine updates, so it invites twice as many."""
    for name in ("fedavg", "median", "multi-krum"):
        share = 0.2 if name == "multi-krum" else ONE_EPOCH.share
        plan = replace(ONE_EPOCH, algorithm=name, options=ROBUST[name], share=share)
        yield Case("faults", f"{name} without faults", "2nn", "iid", plan)
        for kind in ("nan", "flip"):
            hurt = replace(plan, drop=0.3, attack=kind, attackers=0.1)
            yield Case("faults", f"{name} with 30 % dropping and 10 % sending {kind}", "2nn", "iid", hurt)


def mutual(seeds: int) -> Iterator[Case]:
    """With each other, and each by itself on the same samples of the server's: few of them, where boards know more than
    the peer, and many, where it is the other way round."""
    for split, own in (("iid", 500), ("shards", 500), ("shards", 5000)):
        for trust in (1.0, 0.0):
            for seed in range(seeds):
                plan = replace(ONE_EPOCH, algorithm="mutual", options=(("trust", trust),), seed=seed)
                how = "mutual" if trust else "each by itself"
                name = f"{how} on {split}, {own} samples, seed {seed}"
                yield Case("mutual", name, "2nn", split, plan, peer="lenet5", own=own)


def availability(seeds: int) -> Iterator[Case]:
    """Over a day and a night, in the long one with a few local steps in each round."""
    for name in ("fedavg", "fedlaavg"):
        plan = replace(ONE_EPOCH, algorithm=name, turn_rounds=5, rounds=60)
        yield Case("availability", f"{name} by day and night", "2nn", "day-night", plan, last=10)
        few = LocalSettings(epochs=1, batch_size=100, learning_rate=0.02)
        plan = replace(plan, settings=few, turn_rounds=20, rounds=400)
        yield Case("availability", f"{name} by long days and nights", "2nn", "day-night", plan, last=40)
        plan = replace(ONE_EPOCH, algorithm=name, turn_rounds=10, rounds=60)
        yield Case("availability", f"{name} in turns of 10 rounds", "2nn", "halves", plan)


def privacy(seeds: int) -> Iterator[Case]:
    for noise in (0.3, 1.0):
        options = (("clip", 1.0), ("noise_multiplier", noise))
        plan = replace(ONE_EPOCH, algorithm="dp-fedavg", options=options)
        yield Case("privacy", f"server's noise {noise} on iid", "2nn", "iid", plan)
    yield Case("privacy", "boards' own noise 0.01 on iid", "2nn", "iid", replace(ONE_EPOCH, noise=0.01))


GROUPS: dict[str, Callable[[int], Iterator[Case]]] = {
    "table": table,
    "start": start,
    "epochs": epochs,
    "compute": compute,
    "algorithms": algorithms,
    "compression": compression,
    "attack": attack,
    "faults": faults,
    "mutual": mutual,
    "availability": availability,
    "privacy": privacy,
}
