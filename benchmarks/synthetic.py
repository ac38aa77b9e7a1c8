"""Contributors that never were, as many as wanted: seeded mixtures of the Myo recordings.

Each wears the armband a little differently: a mixture of two real people's windows of the same gesture, with gains of
its own per channel and noise. The same number gives the same person.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from demo.data import find, windows
from edgewire.tasks import InputSchema, ModelSpec, Privacy, Task

PER_CONTRIBUTOR = 1000
LABELS = tuple("0123456")
MODES = ("directory", "embedding", "bits")


def task() -> Task:
    """52 steps of 8 sensors in a ring, embeddings of 64 values; the policy allows every mode."""
    privacy = Privacy(modes=MODES, epsilon=8.0, epsilon_budget=64.0)
    return Task("myo", "Gestures", InputSchema((52, 8), "int8", ring=True), LABELS, ModelSpec("cnn1d"), privacy=privacy)


@cache
def _people() -> list[dict[int, np.ndarray]]:
    """Real windows by gesture, of everybody who recorded for pre-training."""
    data = np.load(find("myo_armband.npz"), allow_pickle=False)
    found = []
    for user in np.unique(data["user"]):
        if user.startswith("PreT"):
            x, y, _ = windows(data, data["user"] == user)
            found.append({int(label): x[y == label] for label in np.unique(y)})
    return found


def contributor(number: int, count: int = PER_CONTRIBUTOR) -> tuple[np.ndarray, np.ndarray]:
    """x int8 (count, 52, 8) and y int64 (count,) of a made-up person."""
    rng, people = np.random.default_rng((number, 71)), _people()
    one, other = (people[i] for i in rng.choice(len(people), 2, replace=False))
    weight, gains = rng.uniform(0.5, 1.0), rng.uniform(0.8, 1.25, 8).astype(np.float32)
    y = rng.integers(0, len(LABELS), count)
    a, b = (_drawn(person, y, rng.integers(0, 1 << 30, count)) for person in (one, other))
    mixed = (weight * a.astype(np.float32) + (1 - weight) * b.astype(np.float32)) * gains
    noise = rng.integers(-2, 3, mixed.shape, np.int8)
    return np.clip(np.rint(mixed) + noise, -128, 127).astype(np.int8), y


def _drawn(person: dict[int, np.ndarray], y: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """A window of each label in y, chosen by draws, int (n,)."""
    found = np.empty((len(y), 52, 8), np.int8)
    for label, windows_of in person.items():
        rows = np.flatnonzero(y == label)
        found[rows] = windows_of[draws[rows] % len(windows_of)]
    return found


def write(path: Path, numbers: range) -> None:
    """A data file of these contributors, in order."""
    parts = [contributor(number) for number in numbers]
    names = np.repeat([f"person-{number:06}" for number in numbers], PER_CONTRIBUTOR)
    np.savez(path, x=np.concatenate([x for x, _ in parts]), y=np.concatenate([y for _, y in parts]), user=names)
