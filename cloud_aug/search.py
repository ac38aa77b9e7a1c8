"""Online search, for modes 'embedding' and 'bits': queries come up, digests and scores go down; then the samples of
those digests that a board does not have.

A search reads no sample. What a filter needs lies mapped beside the index (`roster.py`), and whether samples may still
be used is remembered until the pool says that something left use (`living.py`).
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass

import numpy as np

from cloud_aug import batches, keys, pool, publications, ranking, replays, searchable, tasks
from cloud_aug.cloud import Cloud
from cloud_aug.living import Living
from cloud_aug.pseudonyms import pseudonyms
from cloud_aug.publications import Publication
from cloud_aug.searchable import Searchable
from cloud_aug.vectors import NEIGHBOURS, Excluded, SearchIndex, bits_bytes
from edgewire import tensors
from edgewire.decoding import convert, plain
from edgewire.errors import Conflict, CorruptFile, InvalidMessage, NotFound, NotGranted, NotReady, TooLarge
from edgewire.messages import (
    MAX_FOUND,
    MAX_SEARCH_CELLS,
    QUERIES_LIMIT_BYTES,
    WANTED_LIMIT_BYTES,
    FoundMeta,
    SearchMeta,
    WantedMeta,
)
from edgewire.samples import DIGEST_BYTES, most_at_once, to_bytes
from edgewire.tasks import Mode, Task

REPLAYED = 0.01  # of queries

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Question:
    """values: embeddings, float32 (n, dim), or sign bits, uint8 (n, bytes)."""

    mode: Mode
    values: np.ndarray
    k: int


@dataclass(frozen=True)
class _Loaded:
    """What searches of one publication need. stamp: of the task's publications when it was found to be the newest of
    its base."""

    publication: Publication
    held: Searchable
    stamp: publications.Stamp


class Searcher:
    """Holds the search indexes of each task: of what the manifest names, and of bases under release. A new publication
    replaces that of its base at the next search.

    replayed: the share of queries that are answered again exactly, aside, for the live figure of recall.
    """

    def __init__(self, cloud: Cloud, *, replayed: float = REPLAYED) -> None:
        self._cloud, self._replayed = cloud, replayed
        self._loaded: dict[tuple[str, str], _Loaded] = {}  # by task and base
        self._living: dict[str, Living] = {}
        self._lock, self._replaying = threading.Lock(), threading.Lock()

    def search(self, board: str, task_id: str, body: bytes, *, now: float) -> bytes:
        """Digests and scores of samples like the queries, of every class, as bytes. The board's own contributions are
        never among them, nor what was withdrawn or has no consent any more; no contributor has more than a fifth.

        Raises NotGranted (the task does not allow this mode), InvalidMessage, TooLarge, Conflict (queries made with
        another base), NotReady.
        """
        arrays, wanted = _unpacked(body, task_id)
        task, loaded = self._open(task_id, wanted.base)
        question = _read_queries(arrays, wanted, loaded.held.index.dim)
        _check_allowed(task, question)
        roster = loaded.held.roster
        scores, numbers = self._find(loaded, question, roster.own(board))
        found = ranking.rank(
            scores,
            np.where(numbers >= 0, numbers + roster.starts[:, None], -1),
            entries=roster.entries,
            usable=lambda ids: self._usable(task_id, ids, now=now),
            most=MAX_FOUND,
        )
        arrays = {"digests": found.digests, "rows": found.rows, "scores": found.scores}
        return tensors.pack(arrays, plain(FoundMeta("found/1", task_id)))

    def fetch(self, board: str, task_id: str, body: bytes, *, now: float) -> bytes:
        """The samples of these digests that the index has, the board's own left out, in the order asked for; under the
        rules of `search`. Raises what `search` does."""
        arrays, meta = tensors.unpack(body, what="wanted digests", limit_bytes=WANTED_LIMIT_BYTES)
        asked = convert(WantedMeta, meta, what="wanted digests")
        task, loaded = self._open(task_id, asked.base)
        wanted = _read_wanted(arrays, asked, task)
        roster = loaded.held.roster
        rows = roster.find(wanted)
        own = np.concatenate([start + mine for start, mine in zip(roster.starts, roster.own(board), strict=True)])
        ids = roster.entries(rows[~np.isin(rows, own)])["id"]
        ids = ids[self._usable(task_id, ids, now=now)]
        samples = pool.by_ids(self._cloud, task, ids.tolist(), now=now).samples
        names = pseudonyms(keys.pseudonym_secret(self._cloud.keys), f"found\0{board}", samples.user)
        return to_bytes(samples.without_metadata(names), task_id)

    def _open(self, task_id: str, base: str) -> tuple[Task, _Loaded]:
        with self._cloud.database.reading() as connection:
            task, stamp = tasks.get(connection, task_id), publications.stamp(connection, task_id)
        if set(task.privacy.modes) == {"directory"}:
            raise NotGranted(f"task '{task_id}' does not allow searches", hint="use mode 'directory'")
        return task, self._current(task_id, base, stamp)

    def _usable(self, task_id: str, ids: np.ndarray, *, now: float) -> np.ndarray:
        living = self._living.setdefault(task_id, Living(self._cloud, task_id))
        return living.usable(batches.of_ids(ids), now=now)

    def _find(self, loaded: _Loaded, question: _Question, own: Excluded) -> tuple[np.ndarray, np.ndarray]:
        index = loaded.held.index
        if question.mode == "bits":
            if not index.knows_bits:
                hint = "the administrator has to run 'cloud-aug index build'"
                raise NotReady("the index was built before mode 'bits' was allowed", hint=hint, retry_after_s=60.0)
            return index.search_bits(question.values, question.k, exclude=own)
        styles = index.styles(question.values)
        self._replay(loaded.publication, index, styles)
        return index.search(styles, question.k, exclude=own)

    def _replay(self, publication: Publication, index: SearchIndex, styles: np.ndarray) -> None:
        """Some of the queries once more, exactly; one replay at a time, and never in the way of the answer."""
        chosen = styles[[random.random() < self._replayed for _ in styles]]  # noqa: S311 -- a sample, no secret
        if not index.approximate or len(chosen) == 0 or not self._replaying.acquire(blocking=False):
            return

        def run() -> None:
            try:
                replays.record(self._cloud, publication, index, chosen, NEIGHBOURS)
            except Exception as error:  # a figure is not worth a request
                _log.warning("a replay of queries failed: %s", type(error).__name__)
            finally:
                self._replaying.release()

        threading.Thread(target=run, daemon=True).start()

    def _current(self, task_id: str, base: str, stamp: publications.Stamp) -> _Loaded:
        """The newest publication of a base with its index. One request loads a new index, the others search the old one
        meanwhile. A new one that cannot be read leaves the old one serving."""
        old = self._loaded.get((task_id, base))
        if old is not None and old.stamp == stamp:
            return old
        publication = publications.require(self._cloud, task_id, base=base)
        if publication.base.onnx.digest != base:
            raise Conflict(
                "the queries were made with another base model than the current one", hint="sync, then search again"
            )
        if old is None:
            self._lock.acquire()
        elif not self._lock.acquire(blocking=False):
            return old
        try:
            return self._load(publication, stamp)
        finally:
            self._lock.release()

    def _load(self, publication: Publication, stamp: publications.Stamp) -> _Loaded:
        task_id, base = publication.task, publication.base.onnx.digest
        old = self._loaded.get((task_id, base))
        if old is not None and old.publication.search == publication.search:  # also by the request before
            found = old.held
        else:
            publication, found = self._read(publication, old)
        self._loaded[task_id, base] = _Loaded(publication, found, stamp)
        self._forget_unused(task_id)
        return self._loaded[task_id, base]

    def _read(self, publication: Publication, old: _Loaded | None) -> tuple[Publication, Searchable]:
        try:
            return publication, searchable.load(self._cloud, publication.search.digest)
        except (NotFound, CorruptFile, NotReady) as error:
            newest = publications.require(self._cloud, publication.task, base=publication.base.onnx.digest)
            if newest.search != publication.search:  # replaced, and its files removed, while they were read
                return newest, searchable.load(self._cloud, newest.search.digest)
            if old is None:
                raise
            _log.error("publication %d of '%s' cannot be searched: %s", publication.version, publication.task, error)
            return publication, old.held

    def _forget_unused(self, task_id: str) -> None:
        """Let go of the indexes of bases that no board is at any more."""
        with self._cloud.database.reading() as connection:
            served = {one.base.onnx.digest for one in publications.served(connection, task_id)}
        for task, base in [*self._loaded]:
            if task == task_id and base not in served:
                self._loaded.pop((task, base), None)


def _unpacked(body: bytes, task_id: str) -> tuple[tensors.Arrays, SearchMeta]:
    arrays, meta = tensors.unpack(body, what="queries", limit_bytes=QUERIES_LIMIT_BYTES)
    wanted = convert(SearchMeta, meta, what="queries")
    if wanted.task != task_id:
        raise InvalidMessage("the queries are for another task than their address")
    return arrays, wanted


def _read_queries(arrays: tensors.Arrays, wanted: SearchMeta, dim: int) -> _Question:
    if "bits" in arrays:
        shape = (None, bits_bytes(dim))
        mode: Mode = "bits"
        queries = tensors.require(arrays, "bits", dtype="uint8", shape=shape, what="queries")
    else:
        mode = "embedding"
        queries = tensors.require(arrays, "queries", dtype="float32", shape=(None, dim), what="queries")
    if len(queries) == 0:
        raise InvalidMessage("there are no queries")
    return _Question(mode, queries, wanted.k)


def _read_wanted(arrays: tensors.Arrays, asked: WantedMeta, task: Task) -> np.ndarray:
    if asked.task != task.id:
        raise InvalidMessage("the digests are for another task than their address")
    what = "wanted digests"
    digests = tensors.require(arrays, "digests", dtype="uint8", shape=(None, DIGEST_BYTES), what=what)
    if len(digests) > (most := most_at_once(task)):
        raise TooLarge(f"{len(digests)} samples are too many at once", hint=f"ask for {most} at most")
    return digests


def _check_allowed(task: Task, question: _Question) -> None:
    if question.mode not in task.privacy.modes:
        raise NotGranted(
            f"task '{task.id}' does not allow mode '{question.mode}'",
            hint=f"it allows: {', '.join(task.privacy.modes)}",
        )
    if len(question.values) * len(task.labels) * question.k > MAX_SEARCH_CELLS:
        raise TooLarge(
            f"{len(question.values)} queries for {question.k} samples of each of {len(task.labels)} classes are too"
            " many at once",
            hint=f"their product may be {MAX_SEARCH_CELLS}; send fewer queries",
        )
