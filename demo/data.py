"""Data for the demo, in the generic format: a pool file, and for each board one file with `local` and `test` rows.

The embedded default is scikit-learn's handwritten digits: 1,797 real images, each dealt to one person. The persons'
styles are simulated (each tilts or mirrors the paper in an own way); with DATA=myo, wisdm or a file the users are real.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SHOTS = 3
MAX_POOL_ROWS_PER_USER = 400
MAX_TEST_ROWS = 1000
MIN_TEST_ROWS = 20

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Problem:
    """rows: columns x, y, user, group and part ('pool', 'local', 'test'); about: sentences for the person who
    watches."""

    name: str
    title: str
    about: str
    rows: Columns

    @property
    def boards(self) -> list[str]:
        return [str(user) for user in np.unique(self.rows["user"][self.rows["part"] == "local"])]

    def write(self, folder: Path) -> tuple[Path, dict[str, Path]]:
        """Write the pool file and each board's file; return their paths."""
        pool = self._write(folder / "pool.npz", self.rows["part"] == "pool")
        mine = self.rows["part"] != "pool"
        return pool, {
            user: self._write(folder / f"{user}.npz", mine & (self.rows["user"] == user)) for user in self.boards
        }

    def _write(self, path: Path, keep: np.ndarray) -> Path:
        np.savez(path, **{name: column[keep] for name, column in self.rows.items()})
        return path


def load(source: str | None, *, boards: int, seed: int) -> Problem:
    """The problem named 'digits' (default), 'myo', 'wisdm', or in an NPZ file. Raises ValueError with what is
    missing."""
    rng = np.random.default_rng(seed)
    if source in (None, "", "digits"):
        return _digits(boards, rng)
    if source == "myo":
        return _myo(boards, rng)
    if source == "wisdm":
        return _wisdm(boards, rng)
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"DATA is 'digits', 'myo', 'wisdm' or an NPZ file; there is no file {path}")
    return _file(path, boards, rng)


# Digits


def _digits(boards: int, rng: np.random.Generator) -> Problem:
    from sklearn.datasets import load_digits

    images = load_digits()
    people = [f"contributor-{i:02d}" for i in range(18)] + [f"board-{i}" for i in range(boards)]
    # a board's person gets two hands: most of it is for the test, and a test of forty samples says little
    hands = [*range(len(people)), *range(18, len(people))]
    parts: list[Columns] = []
    dealt = _deal(images.target, len(hands), rng)
    for number, person in enumerate(people):
        rows = np.concatenate([hand for owner, hand in zip(hands, dealt, strict=True) if owner == number])
        style = _Style.of(number % _Style.FAMILIES, rng)
        x = np.stack([style.apply(images.images[row]) for row in rows])
        y = images.target[rows].astype(np.int64)
        part = _few_local(y, rng) if person.startswith("board") else np.full(len(y), "pool", "<U6")
        parts.append(_columns(x, y, person, part))
    about = (
        f"{len(images.target)} real handwritten digits, each dealt to one of {len(people)} people. "
        "Their styles are SIMULATED: each person tilts or mirrors the paper in an own way."
    )
    return Problem("digits", "Handwritten digits", about, _concatenate(parts))


def _deal(y: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Every image into exactly one hand, about as many of each digit in every hand."""
    hands: list[list[int]] = [[] for _ in range(count)]
    for label in np.unique(y):
        for i, row in enumerate(rng.permutation(np.flatnonzero(y == label))):
            hands[i % count].append(int(row))
    return [np.asarray(hand) for hand in hands]


@dataclass(frozen=True)
class _Style:
    """How one simulated person writes: angle in degrees, mirrored or not, and how hard the pen is pressed."""

    angle: float
    mirrored: bool
    pressure: float

    FAMILIES = 6

    @classmethod
    def of(cls, family: int, rng: np.random.Generator) -> _Style:
        angle = (0.0, 90.0, 180.0, -90.0, 0.0, 180.0)[family]
        return cls(angle + rng.normal(0, 6), family >= 4, rng.uniform(0.7, 1.2))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """An 8x8 image of 0..16 in this style, as uint8 of 0..255."""
        from scipy import ndimage

        seen = image[:, ::-1] if self.mirrored else image
        turned = ndimage.rotate(seen, self.angle, reshape=False, order=1)
        return np.clip(np.rint(turned * self.pressure * 15), 0, 255).astype(np.uint8)


# Real users


def find(name: str) -> Path:
    """A data file in $EDGE_DATA or ../shared/data. Raises ValueError that says where it was looked for."""
    places = [Path(os.environ["EDGE_DATA"])] if os.environ.get("EDGE_DATA") else []
    places.append(Path(__file__).resolve().parent.parent.parent / "shared" / "data")
    for place in places:
        if (place / name).is_file():
            return place / name
    raise ValueError(f"{name} was not found; set EDGE_DATA to the folder that holds it")


def _myo(boards: int, rng: np.random.Generator) -> Problem:
    data = np.load(find("myo_armband.npz"), allow_pickle=False)
    users = np.unique(data["user"])
    chosen = rng.permutation([user for user in users if user.startswith("Eval")])[:boards]
    parts: list[Columns] = []
    for user in [user for user in users if user.startswith("PreT")]:
        x, y, group = windows(data, data["user"] == user)
        rows = rng.permutation(len(y))[:MAX_POOL_ROWS_PER_USER]
        parts.append(_columns(x[rows], y[rows], str(user), np.full(len(rows), "pool"), group[rows]))
    for user in chosen:
        first = (data["user"] == user) & (data["session"] == "training0") & (data["repetition"] == 0)
        x, y, group = windows(data, first)
        rows = np.concatenate([np.flatnonzero(y == label)[:SHOTS] for label in np.unique(y)])
        parts.append(_columns(x[rows], y[rows], str(user), np.full(len(rows), "local"), group[rows]))
        x, y, group = windows(data, (data["user"] == user) & np.isin(data["session"], ["Test0", "Test1"]))
        rows = rng.permutation(len(y))[:MAX_TEST_ROWS]
        parts.append(_columns(x[rows], y[rows], str(user), np.full(len(rows), "test"), group[rows]))
    about = (
        f"Muscle signals of an armband (8 channels, 7 gestures), real users: {len(chosen)} boards, each with {SHOTS} "
        "windows per gesture of one recording, tested on other sessions; the pool is 22 other users, "
        f"{MAX_POOL_ROWS_PER_USER} windows each."
    )
    return Problem("myo", "Gestures from muscle signals", about, _concatenate(parts))


def windows(data: np.lib.npyio.NpzFile, recordings: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows of 52 readings, every 26, of the chosen recordings: x (n, 52, 8) int8, y, recording numbers."""
    signal, x, y, group = data["signal"], [], [], []
    for number in np.flatnonzero(recordings):
        start, length = int(data["start"][number]), int(data["length"][number])
        for at in range(start, start + length - 51, 26):
            x.append(signal[at : at + 52])
            y.append(int(data["gesture"][number]))
            group.append(f"recording-{number}")
    return np.stack(x), np.asarray(y), np.asarray(group)


def _wisdm(boards: int, rng: np.random.Generator) -> Problem:
    data = np.load(find("wisdm.npz"), allow_pickle=False)
    users = rng.permutation(np.unique(data["user"]))
    parts: list[Columns] = []
    chosen = 0
    for user in users:
        rows = rng.permutation(np.flatnonzero(data["user"] == user))
        x, y = data["x"][rows].astype(np.float32), data["y"][rows]
        part = np.full(len(rows), "pool", "<U6")
        if chosen < boards:
            half = np.arange(len(rows)) < len(rows) // 2
            local = np.zeros(len(rows), bool)
            for label in np.unique(y[half]):
                local[np.flatnonzero(half & (y == label))[:SHOTS]] = True
            if (~half).sum() >= MIN_TEST_ROWS and local.sum() >= 4:
                part = np.where(local, "local", np.where(half, "unused", "test"))
                chosen += 1
        parts.append(_columns(x, y, f"user-{user:02d}", part))
    about = (
        f"Phone accelerometer, 6 activities, 43 features, real users: {chosen} boards, each with at most {SHOTS} "
        f"windows per activity; the pool is {len(users) - chosen} other users."
    )
    return Problem("wisdm", "Activities from a phone's accelerometer", about, _concatenate(parts))


def _file(path: Path, boards: int, rng: np.random.Generator) -> Problem:
    """A file in the generic format. Without `part`, the users with most samples are dealt: some boards, the others
    the pool."""
    with np.load(path, allow_pickle=False) as data:
        rows = {name: data[name] for name in data.files if name in ("x", "y", "user", "group", "time", "part")}
    if "x" not in rows or "y" not in rows or "user" not in rows:
        raise ValueError(f"{path} needs columns x, y and user")
    rows["user"] = np.asarray([_safe(str(user)) for user in rows["user"]])
    rows.setdefault("group", np.full(len(rows["y"]), ""))
    if "part" not in rows:
        rows["part"] = _parts(rows, boards, rng)
    rows["part"] = rows["part"].astype(np.str_)
    users = np.unique(rows["user"][rows["part"] == "local"])
    dropped = np.isin(rows["user"], users[boards:]) & (rows["part"] != "pool")
    rows = {name: column[~dropped] for name, column in rows.items()}
    about = (
        f"{len(rows['y'])} samples of {path.name}: {min(len(users), boards)} boards, their users are not in the pool."
    )
    return Problem(_safe(path.stem), path.name, about, rows)


def _parts(rows: Columns, boards: int, rng: np.random.Generator) -> np.ndarray:
    users, counts = np.unique(rows["user"], return_counts=True)
    enough = users[counts >= 2 * MIN_TEST_ROWS]
    if len(enough) < 2 or len(users) < boards + 3:
        raise ValueError("the file has too few users with enough samples for boards and a pool")
    part = np.full(len(rows["y"]), "pool", "<U6")
    for user in rng.permutation(enough)[:boards]:
        mine = np.flatnonzero(rows["user"] == user)
        part[mine] = _few_local(rows["y"][mine], rng)
    return part


def _few_local(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SHOTS random samples per class are local, the rest is for the test."""
    part = np.full(len(y), "test", "<U6")
    for label in np.unique(y):
        part[rng.permutation(np.flatnonzero(y == label))[:SHOTS]] = "local"
    return part


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")[:50] or "data"


def _columns(x: np.ndarray, y: np.ndarray, user: str, part: np.ndarray, group: np.ndarray | None = None) -> Columns:
    blank = np.full(len(y), "")
    return {"x": x, "y": y, "user": np.full(len(y), user), "group": blank if group is None else group, "part": part}


def _concatenate(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def counts(problem: Problem) -> Iterator[tuple[str, int]]:
    """Rows per part."""
    for part in ("pool", "local", "test"):
        yield part, int((problem.rows["part"] == part).sum())
