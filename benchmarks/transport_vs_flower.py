"""Rounds over real transport, here and in Flower: time, memory of the server, bytes and accuracy.

Ten boards and a server in processes of their own on this machine, TLS between them, one half after the other. FedAvg of
the same model (a 2NN with layer norm) from the same weights, ten of ten boards in each round, 600 images of MNIST each,
E = 1, B = 10. Here: `cloud-aug serve`, and `edgectl round join --for` on each board. Flower: `flower-superlink` and
`flower-supernode` as it comes, in an environment of its own under --cache (about 1 GB). Both sides' bytes are counted
by the same relay between boards and server. Played once more with compression both ways, for its bytes.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.federated import World
from benchmarks.federated_cases import BOARDS as SHARES
from benchmarks.figures import Figure, answer, at_least, at_most, noted
from benchmarks.flower_env import environment
from benchmarks.flower_transport import Flower
from benchmarks.rounds_https import played_place
from benchmarks.transported import WARM_UP, Played, Shares
from edgelearn.device import use_threads
from edgelearn.federated import splits

BOARDS = 10
ROUNDS, QUICK_ROUNDS = 50, 5
COMPRESSED = {"compression": "sparse", "down": "changes"}


def main() -> None:
    arguments = _arguments()
    use_threads(1)
    rounds = QUICK_ROUNDS if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory(prefix="transport-", dir="/tmp") as folder:
        played = _play(Path(folder), arguments, rounds)
    answer((__doc__ or "").partition("\n\n")[0], _figures(played, rounds), arguments.json)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transport_vs_flower", description=(__doc__ or ""))
    parser.add_argument("--cache", type=Path, default=Path("build/flower"), help="where Flower is installed")
    parser.add_argument("--boards", type=int, default=BOARDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds")
    parser.add_argument("--alone", action="store_true", help="our half only")
    parser.add_argument("--json", type=Path, metavar="OUT")
    return parser.parse_args()


def _play(folder: Path, arguments: argparse.Namespace, rounds: int) -> dict[str, Played]:
    """The sides by name, one after the other. Two more rounds than asked for: they warm up."""
    shares, played = iid_shares(arguments.boards), dict[str, Played]()
    if not arguments.alone:
        flower = Flower(folder / "flower", environment(arguments.cache))
        played["flower"] = flower.play(shares, rounds=rounds + WARM_UP)
    with played_place(folder / "ours", shares) as place:
        played["ours"] = place.play(rounds=rounds + WARM_UP)
        played["compressed"] = place.play(rounds=rounds + WARM_UP, **COMPRESSED)
    return played


def iid_shares(boards: int) -> Shares:
    world, rng = World(), np.random.default_rng(0)
    parts = [part.rows for part in splits.iid(len(world.y), SHARES, rng)[:boards]]
    flat = world.x.reshape(len(world.x), -1)
    return Shares(flat, world.y, parts, (world.test[0].reshape(len(world.test[0]), -1), world.test[1]))


def _figures(played: dict[str, Played], rounds: int) -> list[Figure]:
    ours, small = played["ours"], played["compressed"]
    load = f"{rounds} rounds; load of the machine {os.getloadavg()[1]:.1f}"
    own = [
        noted("time per round", _round_s(ours), "s", anchor=load),
        noted("processor time per round", ours.worked_s, "s", anchor="of all processes, boards' and server's"),
        noted("memory of the server", ours.server_mib, "MiB"),
        noted("bytes per round", _kb(ours), "kB", anchor=f"up {ours.up / 1000:.0f}, down {ours.down / 1000:.0f}"),
        noted("compressed, up, of uncompressed", small.up / ours.up, "x", anchor=f"{small.up / 1000:.0f} kB"),
        noted("compressed, down, of uncompressed", small.down / ours.down, "x", anchor=f"{small.down / 1000:.0f} kB"),
        noted("accuracy", 100 * ours.score, "%", anchor=f"compressed {100 * small.score:.2f} %"),
    ]
    return [*own, *(_beside(played["flower"], ours, small) if "flower" in played else [])]


def _beside(flower: Played, ours: Played, small: Played) -> list[Figure]:
    both = ", ".join(" ".join(pair) for pair in COMPRESSED.items())
    time_s, memory, size = _round_s(flower), flower.server_mib, _kb(flower)
    points = 100 * (ours.score - flower.score)
    with_up = f"Flower {size:.0f} kB, up {flower.up / 1000:.0f}, down {flower.down / 1000:.0f}"
    worked = f"Flower {flower.worked_s:.1f} s"
    return [
        at_most("time per round, of Flower's", _round_s(ours) / time_s, "x", 0.2, anchor=f"Flower {time_s:.2f} s"),
        noted("processor time, of Flower's", ours.worked_s / flower.worked_s, "x", anchor=worked),
        at_most("memory, of Flower's", ours.server_mib / memory, "x", 0.5, anchor=f"Flower {memory:.0f} MiB"),
        at_most("bytes per round, of Flower's", _kb(ours) / size, "x", 1, anchor=with_up),
        at_most("compressed, of Flower's bytes", _kb(small) / size, "x", 0.05, anchor=f"{_kb(small):.0f} kB; {both}"),
        at_least("accuracy, over Flower's", points, "points", -0.5, anchor=f"Flower {100 * flower.score:.2f} %"),
    ]


def _round_s(played: Played) -> float:
    """Median, the first rounds left out."""
    ended = played.ended[WARM_UP:]
    return statistics.median(after - before for before, after in itertools.pairwise(ended))


def _kb(played: Played) -> float:
    return (played.up + played.down) / 1000


if __name__ == "__main__":
    main()
