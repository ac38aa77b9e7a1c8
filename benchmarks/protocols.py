"""How each data set is dealt to pool and boards, so that results can be compared: base model on pool users only, nested
shots, no recording on both sides, every statistic from the pool or from the board's local rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo.data import find, windows
from edgewire.tasks import InputSchema, ModelSpec, Task

MIN_TEST_ROWS, MIN_LOCAL_ROWS = 20, 4
SHARES = (20, 50)  # percent of a user's rows, the earliest, that are local where time decides
HISTORY = 20  # items of a click sample's history


@dataclass(frozen=True)
class Board:
    """One user as a board. order: local rows in the order in which shots take them, per class; test: rows that may be
    tested on, where they are not local; in_time: rows are in the order of time, and shots are percent of them."""

    name: str
    x: np.ndarray
    y: np.ndarray
    group: np.ndarray
    order: dict[int, np.ndarray]
    test: np.ndarray
    in_time: bool = False

    def local(self, shots: int) -> np.ndarray:
        """Rows of the first `shots` samples of each class (in time: the earliest `shots` percent of all): those of
        fewer shots are among those of more."""
        if self.in_time:
            return np.arange(len(self.y) * shots // 100)
        return np.concatenate([rows[:shots] for _, rows in sorted(self.order.items())])

    def held_out(self, shots: int) -> np.ndarray:
        """Test rows where that is local. In time: none where they have one class only, which nothing can rank."""
        rows = np.setdiff1d(self.test, self.local(shots))
        return rows[:0] if self.in_time and len(np.unique(self.y[rows])) < 2 else rows


@dataclass(frozen=True)
class Fold:
    """A pool and the boards that it serves. x (n, *shape), y, user: of the pool; left_out: users with too few rows, or
    with one class in all of their tests; group: the recording of each pool row (None: each row its own)."""

    name: str
    task: Task
    x: np.ndarray
    y: np.ndarray
    user: np.ndarray
    boards: list[Board]
    left_out: int
    epochs: int
    group: np.ndarray | None = None


def folds(data: str, seed: int) -> Iterator[Fold]:
    """The folds of a data set by name, or of a generic file."""
    known = {"myo": _myo, "wisdm": _wisdm, "mnist": _mnist, "amazon": _amazon, "movielens": _movielens}
    if data in known:
        return known[data](seed)
    return _file(Path(data), seed)


def first_folds(names: Iterable[str]) -> Iterator[tuple[str, Fold]]:
    """Each data set and its first fold; one that is not at hand is told of and left out."""
    for name in names:
        try:
            fold = next(folds(name, 0))
        except ValueError as error:
            print(f"skipped: {error}", flush=True)
            continue
        yield name, fold


def _myo(seed: int) -> Iterator[Fold]:
    """Boards: the 18 evaluation users; local: repetition 0 of session training0; test: both test sessions."""
    data = np.load(find("myo_armband.npz"), allow_pickle=False)
    task = Task(
        "myo", "Gestures", InputSchema((52, 8), "int8", ring=True), tuple("0123456"), ModelSpec("cnn1d", width=32)
    )
    users = np.unique(data["user"])
    pool = [windows(data, data["user"] == user) for user in users if user.startswith("PreT")]
    boards = []
    for user in (str(user) for user in users if user.startswith("Eval")):
        mine = data["user"] == user
        first = windows(data, mine & (data["session"] == "training0") & (data["repetition"] == 0))
        later = windows(data, mine & np.isin(data["session"], ["Test0", "Test1"]))
        x, y = np.concatenate([first[0], later[0]]), np.concatenate([first[1], later[1]])
        group = np.unique(np.concatenate([first[2], later[2]]), return_inverse=True)[1].reshape(-1)
        rng = np.random.default_rng((seed, len(boards)))
        order = {int(label): rng.permutation(np.flatnonzero(first[1] == label)) for label in np.unique(first[1])}
        boards.append(Board(user, x, y, group, order, np.arange(len(first[1]), len(y))))
    x, y = np.concatenate([part[0] for part in pool]), np.concatenate([part[1] for part in pool])
    owner = np.repeat(np.arange(len(pool)), [len(part[1]) for part in pool])
    recordings = np.concatenate([part[2] for part in pool])
    yield Fold("all", task, x, y, owner, boards, 0, epochs=4, group=recordings)


def _wisdm(seed: int) -> Iterator[Fold]:
    """Every user once a board, in 6 seeded folds; local: a seeded half of the user's rows, test: the other half."""
    data = np.load(find("wisdm.npz"), allow_pickle=False)
    labels = tuple(sorted({str(label) for label in data["y"]}))
    task = Task("wisdm", "Activities", InputSchema((43,), "float32", True), labels, ModelSpec("mlp", width=64))
    y = np.searchsorted(np.asarray(labels), data["y"])
    users = np.random.default_rng(seed).permutation(np.unique(data["user"]))
    for number, chosen in enumerate(np.array_split(users, 6)):
        outside = ~np.isin(data["user"], chosen)
        boards = [_halved(f"user-{user}", data["x"], y, data["user"] == user, seed + user) for user in chosen]
        kept = [board for board in boards if board is not None]
        x, owner = data["x"][outside], data["user"][outside]
        yield Fold(str(number), task, x, y[outside], owner, kept, len(boards) - len(kept), epochs=30)


def _mnist(seed: int) -> Iterator[Fold]:
    """Boards: 100 seeded training writers with at least 100 images; pool: the other training writers."""
    data = np.load(find("mnist_writers.npz"), allow_pickle=False)
    x, y, writer = data["x_train"], data["y_train"].astype(np.int64), data["writer_train"]
    task = Task(
        "mnist", "Digits by writer", InputSchema((28, 28), "uint8"), tuple("0123456789"), ModelSpec("cnn2d", 16)
    )
    names, counts = np.unique(writer, return_counts=True)
    chosen = np.random.default_rng(seed).permutation(names[counts >= 100])[:100]
    boards = [_by_class(f"writer-{name}", x, y, writer == name, int(seed + name)) for name in chosen]
    outside = ~np.isin(writer, chosen)
    yield Fold("all", task, x[outside], y[outside], writer[outside], boards, 0, epochs=2)


def _amazon(seed: int) -> Iterator[Fold]:
    """Boards: 200 seeded users with at least 40 rows; label: five stars; histories as the data set has them."""
    data = dict(np.load(find("amazon_electronics_din.npz"), allow_pickle=False))
    lengths = data["history_length"].astype(np.int64)
    x = _click_samples(data["item"], data["history"], np.cumsum(lengths), lengths)
    items = int(max(data["item"].max(), data["history"].max()))
    names, counts = np.unique(data["user"], return_counts=True)
    chosen = np.random.default_rng(seed).permutation(names[counts >= 40])[:200]
    yield _clicks("amazon", "Five stars for electronics", items, x, data["label"], data["user"], chosen)


def _movielens(seed: int) -> Iterator[Fold]:
    """Boards: 100 seeded users; label: a rating of at least 4; histories: what the user rated so at an earlier time."""
    data = dict(np.load(find("movielens_latest_small.npz"), allow_pickle=False))
    names, item = np.unique(data["item"], return_inverse=True)
    item = item.reshape(-1) + 1
    order = np.lexsort((item, data["timestamp"], data["user"]))
    user, item, time = data["user"][order], item[order], data["timestamp"][order]
    liked = data["rating"][order] >= 4
    # who liked it before: counted in the list of all liked rows, where a user's are in one piece
    moment = np.stack([user, time], axis=1)
    before = _count_before(moment[liked], moment)
    first = np.searchsorted(user[liked], user)
    x = _click_samples(item, item[liked], before, before - first)
    chosen = np.random.default_rng(seed).permutation(np.unique(user))[:100]
    yield _clicks("movielens", "Four stars for a film", len(names), x, liked, user, chosen)


def _count_before(moments: np.ndarray, when: np.ndarray) -> np.ndarray:
    """How many of the sorted moments (n, 2) are before each of `when` (m, 2)."""
    codes = np.unique(np.concatenate([moments, when]), axis=0, return_inverse=True)[1].reshape(-1)
    return np.searchsorted(codes[: len(moments)], codes[len(moments) :])


def _click_samples(item: np.ndarray, liked: np.ndarray, end: np.ndarray, length: np.ndarray) -> np.ndarray:
    """int32 (n, 1 + HISTORY): each candidate, then the last of the `length` items before liked[end], the latest
    first."""
    back = np.arange(1, HISTORY + 1)
    there = back <= length[:, None]
    history = np.where(there, liked[np.where(there, end[:, None] - back, 0)], 0)
    return np.column_stack([item, history]).astype(np.int32)


def _clicks(
    name: str, title: str, items: int, x: np.ndarray, label: np.ndarray, user: np.ndarray, chosen: np.ndarray
) -> Fold:
    """Rows of each user are in the order of time already."""
    schema = InputSchema((1 + HISTORY,), "int32", items=items)
    task = Task(name, title, schema, ("no", "yes"), ModelSpec("dssm", width=32, embedding=16), "auc")
    y = label.astype(np.int64)
    boards = []
    for who in chosen:
        rows = np.flatnonzero(user == who)
        here = np.arange(len(rows))
        boards.append(Board(f"user-{who}", x[rows], y[rows], here, {}, here, in_time=True))
    kept = [board for board in boards if any(_ranked(board, share) for share in SHARES)]
    outside = ~np.isin(user, chosen)
    return Fold("all", task, x[outside], y[outside], user[outside], kept, len(boards) - len(kept), epochs=2)


def _ranked(board: Board, share: int) -> bool:
    return len(board.local(share)) >= MIN_LOCAL_ROWS and len(board.held_out(share)) >= MIN_TEST_ROWS


def _file(path: Path, seed: int) -> Iterator[Fold]:
    """A generic file: rows of part `pool`; each user with `local` and `test` rows is a board, and in nobody's pool. The
    seed decides which of the local rows come first. A row without a group is a recording of its own."""
    from edgewire.readers import draft_task

    task = draft_task(path, task_id="file", title=path.name)
    data = np.load(path, allow_pickle=False)
    index = {name: i for i, name in enumerate(task.labels)}
    y = np.asarray([index[str(label)] for label in data["y"].tolist()])
    x = data["x"].astype(task.input.dtype)
    owners = np.unique(data["user"][data["part"] == "local"])
    pool = (data["part"] == "pool") & ~np.isin(data["user"], owners)
    recordings = data["group"][pool] if "group" in data else None
    boards = []
    for user in owners:
        mine = np.flatnonzero((data["user"] == user) & (data["part"] != "pool"))
        part = data["part"][mine]
        group = data["group"][mine].astype(str) if "group" in data else np.full(len(mine), "")
        group = np.where(group == "", [f"row {i}" for i in range(len(mine))], group)
        local = np.random.default_rng(seed).permutation(np.flatnonzero(part == "local"))
        order = {int(label): local[y[mine][local] == label] for label in np.unique(y[mine][local])}
        codes = np.unique(group, return_inverse=True)[1].reshape(-1)
        boards.append(Board(str(user), x[mine], y[mine], codes, order, np.flatnonzero(part == "test")))
    kept = [
        board
        for board in boards
        if len(board.test) >= MIN_TEST_ROWS and sum(map(len, board.order.values())) >= MIN_LOCAL_ROWS
    ]
    yield Fold(
        "all", task, x[pool], y[pool], data["user"][pool], kept, len(boards) - len(kept), epochs=20, group=recordings
    )


def _halved(name: str, x: np.ndarray, y: np.ndarray, mine: np.ndarray, seed: int) -> Board | None:
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(mine))
    half = len(rows) // 2
    local, test = np.arange(half), np.arange(half, len(rows))
    if len(local) < MIN_LOCAL_ROWS or len(test) < MIN_TEST_ROWS:
        return None
    order = {int(label): local[y[rows][local] == label] for label in np.unique(y[rows][local])}
    return Board(name, x[rows], y[rows], np.arange(len(rows)), order, test)


def _by_class(name: str, x: np.ndarray, y: np.ndarray, mine: np.ndarray, seed: int) -> Board:
    """k per class are local, the user's other rows are the test."""
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(mine))
    order = {int(label): np.flatnonzero(y[rows] == label) for label in np.unique(y[rows])}
    return Board(name, x[rows], y[rows], np.arange(len(rows)), order, np.arange(len(rows)))
