"""One board, measured with what `cloud-aug base train`, `edgectl sync` and `edgectl train` call. Runs in worker
processes, one thread each, so that the result does not depend on how many there are."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from benchmarks.personalize.records import Row, Spent, Units
from benchmarks.protocols import Board, Fold, folds
from edgectl.material import make_candidates
from edgelearn.device import use_threads
from edgelearn.examples import groups_from_names, make
from edgelearn.metrics import row_scores
from edgelearn.models.build import Weights, load, outputs
from edgelearn.personalize.choose import Figure, can_tell, choose, shortlist
from edgelearn.personalize.head import Head
from edgelearn.personalize.recipes import RECIPES, applicable, choices
from edgelearn.personalize.rehearsal import rehearse
from edgelearn.personalize.setting import Candidate, Personal, Setting, Settings
from edgelearn.personalize.veto import gather
from edgelearn.pretrain import train_base
from edgelearn.retrieval.prototypes import class_means
from edgewire import tensors
from edgewire.files import write_atomic
from edgewire.samples import Samples, sample_digests
from edgewire.samples import make as make_samples

CONTROL_SEED = 100_003  # added to the training seed of the control
LARGEST_STAGE_BYTES = 4 << 30


@dataclass(frozen=True)
class Place:
    """A fold of a data set under a seed. base: digest of what decides its base model; code: of everything."""

    data: str
    seed: int
    fold: int
    base: str
    code: str


@dataclass(frozen=True)
class Stage:
    """What all boards of a fold share. held: the digests of each candidate's samples; prior: of the rehearsal."""

    fold: Fold
    base: Weights
    candidates: list[Candidate]
    held: list[set[str]]
    global_means: np.ndarray
    prior: list[Figure]


def start_worker() -> None:
    """One thread, and rows through models counted."""
    os.environ["OMP_NUM_THREADS"] = "1"
    use_threads(1)
    register_module_forward_hook(_count)


# The stage


def prepare(place: Place, folder: Path, *, rehearsed: bool) -> list[Spent]:
    """Make the base model and, if wanted, the rehearsal of a fold, unless an earlier run left them in the folder. What
    they took, then or now."""
    base, prior = _base_file(place, folder), _prior_file(place, folder)
    if not base.exists():
        _make_base(place, base)
    _, meta = _read_base(base)
    spent = [Spent(place.data, place.seed, place.fold, "base", meta["seconds"], place.code)]
    if rehearsed:
        if not prior.exists():
            _make_prior(place, prior)
        seconds = json.loads(prior.read_text())["seconds"]
        spent.append(Spent(place.data, place.seed, place.fold, "rehearsal", seconds, place.code))
    return spent


def _base_file(place: Place, folder: Path) -> Path:
    return folder / f"base-{place.base}.safetensors"


def _prior_file(place: Place, folder: Path) -> Path:
    return folder / f"prior-{place.code}.json"


def _read_base(path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    return tensors.unpack(path.read_bytes(), what=path.name, limit_bytes=LARGEST_STAGE_BYTES)


def _make_base(place: Place, path: Path) -> None:
    fold = find_fold(place.data, place.seed, place.fold)
    with _clock() as seconds:
        pool, contributor = in_pool_order(fold)
        recordings = groups_from_names(pool.group)
        base = train_base(fold.task, pool.x, pool.y, contributor, seed=place.seed, epochs=fold.epochs, group=recordings)
        model = load(fold.task, base)
        made = make_candidates([pool], set(), embed=lambda x: outputs(model, x)[1])
    arrays = {f"weight.{name}": array for name, array in base.items()}
    arrays["embedding"] = np.concatenate([candidate.embedding for candidate in made])
    write_atomic(path, tensors.pack(arrays, {"seconds": seconds()}))


def _make_prior(place: Place, path: Path) -> None:
    fold = find_fold(place.data, place.seed, place.fold)
    pool, contributor = in_pool_order(fold)
    group = groups_from_names(pool.group)
    with _clock() as seconds:
        prior = rehearse(fold.task, pool.x, pool.y, contributor, group=group, seed=place.seed, epochs=fold.epochs)
    found = {"seconds": seconds(), "figures": [asdict(figure) for figure in prior]}
    write_atomic(path, json.dumps(found).encode())


def in_pool_order(fold: Fold) -> tuple[Samples, np.ndarray]:
    """The pool as the cloud would give it back, and contributors as numbers: by contributor, then by digest, nothing
    twice."""
    group = None if fold.group is None else fold.group.astype(str)
    samples = make_samples(fold.x, fold.y, user=fold.user.astype(str), group=group)
    digests = np.asarray(sample_digests(samples))
    order = np.lexsort((digests, samples.user))
    again = (samples.user[order][1:] == samples.user[order][:-1]) & (digests[order][1:] == digests[order][:-1])
    samples = samples.take(order[np.r_[True, ~again]])
    return samples, np.unique(samples.user, return_inverse=True)[1].reshape(-1).astype(np.int64)


@lru_cache(maxsize=2)
def find_fold(data: str, seed: int, number: int) -> Fold:
    return next(islice(folds(data, seed), number, None))


@lru_cache(maxsize=1)
def find_stage(place: Place, folder: Path) -> Stage:
    """The prepared stage. Candidates are those that `sync` would bring where all packs are fetched."""
    fold = find_fold(place.data, place.seed, place.fold)
    pool, _ = in_pool_order(fold)
    arrays, _ = _read_base(_base_file(place, folder))
    base = {name.removeprefix("weight."): array for name, array in arrays.items() if name.startswith("weight.")}
    embedding = arrays["embedding"]
    pieces = iter(np.split(embedding, np.flatnonzero(pool.user[1:] != pool.user[:-1]) + 1))
    candidates = make_candidates([pool], set(), embed=lambda x: next(pieces))
    held = [set(sample_digests(make_samples(c.x, c.y))) for c in candidates]
    known = _prior_file(place, folder)
    prior = [Figure(**figure) for figure in json.loads(known.read_text())["figures"]] if known.exists() else []
    means, _ = class_means(embedding, pool.y, len(fold.task.labels))
    return Stage(fold, base, candidates, held, means, prior)


# A board


def play(
    place: Place, folder: Path, number: int, shots: int, top: int, recipes: tuple[str, ...], *, control: bool
) -> tuple[list[Row], Spent]:
    """Every recipe on one board, and its control. number: which board of the fold; top: the highest rung of its
    ladder."""
    stage = find_stage(place, folder)
    board = stage.fold.boards[number]
    with _clock() as seconds:
        rows = list(_Game(place, stage, board, shots, top).rows(recipes, control=control))
    what = f"{board.name}, {shots}: {','.join(recipes)}"
    return rows, Spent(place.data, place.seed, place.fold, what, seconds(), place.code)


def make_setting(stage: Stage, board: Board, shots: int, seed: int) -> Setting:
    """What `edgectl train` would be given on this board."""
    local = board.local(shots)
    own = set(sample_digests(make_samples(board.x[local], board.y[local])))
    candidates = [c for c, held in zip(stage.candidates, stage.held, strict=True) if own.isdisjoint(held)]
    examples = make(board.x[local], board.y[local], board.group[local])
    return Setting(
        stage.fold.task, stage.base, examples, candidates, stage.global_means, Settings.of(stage.fold.task), seed
    )


def choose_recipe(stage: Stage, setting: Setting) -> str:
    """What `auto` ships."""
    names = questioned(stage, setting)
    shots = setting.local.shots(setting.n_classes)
    asked = can_tell(names, stage.prior, recordings=setting.local.recordings, shots=shots)
    return choose(names, stage.prior, gather(setting, names) if asked else None, shots=shots).recipe


def questioned(stage: Stage, setting: Setting) -> tuple[str, ...]:
    """What `auto` chooses among, as `edgectl train` does."""
    return shortlist(choices(setting), stage.prior, shots=setting.local.shots(setting.n_classes))


def unit_ids(board: Board) -> np.ndarray:
    """uint32 (n,): which recording each row is of, by content, so that it is the same under every seed."""
    of_row = np.asarray(
        [zlib.crc32(x.tobytes() + bytes([int(y) % 256])) for x, y in zip(board.x, board.y, strict=True)], np.uint32
    )
    codes = np.unique(board.group, return_inverse=True)[1].reshape(-1)
    least = np.full(int(codes.max()) + 1, np.iinfo(np.uint32).max, np.uint32)
    np.minimum.at(least, codes, of_row)
    return np.asarray(least[codes])


@dataclass(frozen=True)
class _Trained:
    """A recipe's result on the held-out rows, and what it cost."""

    personal: Personal
    score: float
    common: float
    units: Units
    forwards: int
    seconds: float


class _Game:
    def __init__(self, place: Place, stage: Stage, board: Board, shots: int, top: int) -> None:
        self.place, self.stage, self.board, self.shots = place, stage, board, shots
        self.test, self.common = board.held_out(shots), board.held_out(top)
        self.unit = unit_ids(board)

    def rows(self, recipes: tuple[str, ...], *, control: bool) -> Iterator[Row]:
        setting = make_setting(self.stage, self.board, self.shots, self.place.seed)
        other = make_setting(self.stage, self.board, self.shots, self.place.seed + CONTROL_SEED)
        needed = set(recipes) | (set(questioned(self.stage, setting)) if "auto" in recipes else set())
        trained = {name: self._train(setting, name) for name in applicable(setting.task) if name in needed}
        again = {name: self._train(other, name) for name in trained} if control else {}
        for training, results in enumerate((trained, again)):
            for name, result in results.items():
                if name in recipes:
                    yield self._row(name, training, result)
        if "auto" in recipes:
            before = _rows_seen()
            with _clock() as seconds:
                name = choose_recipe(self.stage, setting)
            spent, seen = seconds(), _rows_seen() - before
            yield self._row("auto", 0, trained[name], chosen=name, more_seconds=spent, more_forwards=seen)
            if control:
                yield self._row("auto", 1, again[name], chosen=name)

    def _train(self, setting: Setting, name: str) -> _Trained:
        before = _rows_seen()
        with _clock() as seconds:
            personal = RECIPES[name](replace(setting))  # which no recipe before it has prepared anything for
        spent, seen = seconds(), _rows_seen() - before
        model = load(setting.task, personal.weights)
        scores = self._scores(setting, model, self.test)
        common = self._scores(setting, model, self.common)
        units = Units.of(self.unit[self.test], scores)
        return _Trained(personal, float(scores.mean()), float(common.mean()), units, seen, spent)

    def _scores(self, setting: Setting, model: nn.Module, rows: np.ndarray) -> np.ndarray:
        logits, _ = outputs(model, self.board.x[rows])
        return row_scores(setting.task.metric, logits, self.board.y[rows])

    def _row(
        self,
        recipe: str,
        training: int,
        result: _Trained,
        *,
        chosen: str = "",
        more_seconds: float = 0.0,
        more_forwards: int = 0,
    ) -> Row:
        personal = result.personal
        return Row(
            data=self.place.data,
            board=self.board.name,
            shots=self.shots,
            seed=self.place.seed,
            recipe=recipe,
            training=training,
            metric=self.stage.fold.task.metric,
            score=round(result.score, 6),
            common=round(result.common, 6),
            labels=len(self.board.local(self.shots)),
            tests=len(self.test),
            units=result.units.text(),
            candidates=personal.candidates,
            kept=len(personal.kept),
            candidate_samples=personal.candidate_samples,
            outside_samples=personal.outside_samples,
            forwards=result.forwards + more_forwards,
            seconds=round(result.seconds + more_seconds, 4),
            code=self.place.code,
            chosen=chosen,
        )


# What it costs

_seen = 0


def _count(module: nn.Module, inputs: tuple[Tensor, ...], outputs: object) -> None:
    """Whole models and heads alone give (logits, embedding). A row that is trained on goes forward once and back for
    about twice that."""
    global _seen
    if isinstance(outputs, tuple) and len(outputs) == 2 and not isinstance(module, Head):
        _seen += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)


def _rows_seen() -> int:
    return _seen


@contextmanager
def _clock() -> Iterator[Callable[[], float]]:
    """Seconds of this process on its one core until the block ended: a busy machine changes them little."""
    started = time.process_time()
    ended: list[float] = []
    yield lambda: ended[0] - started
    ended.append(time.process_time())
