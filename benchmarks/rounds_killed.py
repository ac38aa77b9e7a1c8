"""Rounds whose server is killed again and again: do they end with the model that they would have made, and is every
update counted once?

Ten boards and a server in processes of their own, TLS between them, ten rounds of FedAvg with all of them (MNIST, 600
images each), twice from the same weights and with the same seed: once in peace, and once with `kill -9` of the server
after every fifth round, while updates to the next one come in.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure, answer, at_most, exactly, noted
from benchmarks.rounds_https import Place, played_place
from benchmarks.transport_vs_flower import BOARDS, iid_shares
from edgelearn.device import use_threads

ROUNDS, QUICK_ROUNDS, EVERY, QUICK_EVERY = 11, 4, 5, 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounds_killed", description=(__doc__ or ""))
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of three boards")
    parser.add_argument("--json", type=Path, metavar="OUT")
    arguments = parser.parse_args()
    use_threads(1)
    boards, rounds, every = (3, QUICK_ROUNDS, QUICK_EVERY) if arguments.quick else (BOARDS, ROUNDS, EVERY)
    made = tempfile.TemporaryDirectory(prefix="killed-", dir="/tmp")
    with made as folder, played_place(Path(folder), iid_shares(boards)) as place:
        figures = _figures(place, boards, rounds, every)
    answer((__doc__ or "").partition("\n\n")[0], figures, arguments.json)


def _figures(place: Place, boards: int, rounds: int, every: int) -> list[Figure]:
    peace = place.play(rounds=rounds)
    killed = place.play(rounds=rounds, kill_every=every)
    different = sum(not np.array_equal(array, killed.made[name]) for name, array in peace.made.items())
    lost = abs(peace.score - killed.score) * 100
    told = f"{100 * peace.score:.2f} % in peace, {100 * killed.score:.2f} % with kills"
    return [
        noted("times that the server was killed", place.kills, "", anchor=f"{boards} boards, {rounds} rounds"),
        at_most("accuracy, away from that in peace", lost, "points", 1.0, anchor=told),
        exactly("arrays of the model that differ", different, f"of {len(peace.made)}", 0, anchor="the same seed"),
        exactly("updates counted", killed.counted, "", boards * rounds, anchor="boards times rounds"),
    ]


if __name__ == "__main__":
    main()
